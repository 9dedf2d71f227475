"""Builds the CUDA sources for a CPU, over the emulator: as the Python module that plans call, and as a program that
runs listed problems under a sanitizer. Objects stay in the package's cache folder until a source changes."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path
from types import ModuleType

import ninja

from spatialconv import settings
from spatialconv.backends.extension import cuda_build

ROOT = Path(__file__).resolve().parents[2]
# Optimised a little, and with warnings as errors: what nvcc would let pass in a kernel is seen here.
COMMON = "-std=c++17 -O1 -fPIC -fvisibility=hidden -fno-gnu-unique".split()
COMMON += "-Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-psabi".split()
# When asynchronous copies happen: at once, or as late as the hardware may.
LAZY = "EMULATE_LAZY_COPIES"
COPIES = {"eager": [], "lazy": [f"-D{LAZY}"]}
SANITIZERS: dict[str, list[str]] = {
    "none": [],
    "address": ["-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "thread": ["-g1", "-fsanitize=thread"],
}


def compiler() -> str | None:
    return shutil.which("g++") or shutil.which("c++")


def copies_matter(source: Path) -> bool:
    """Whether the file, or one that it includes, asks when copies happen."""
    waiting, seen = [source], set()
    while waiting:
        path = waiting.pop().resolve()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        text = path.read_text()
        if LAZY in text:
            return True
        waiting += [path.parent / name for name in re.findall(r'#include "([^"]+)"', text)]
    return False


def _ninja_text(root: Path, folder: Path, entry: Path, flags: list[str], link: list[str], target: str) -> str:
    lines = [
        f"builddir = {folder}",
        "rule compile",
        f"  command = {compiler()} {' '.join(flags)} $copies -MMD -MF $out.d -x c++ -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = {compiler()} $in {' '.join(link)} -o $out",
    ]
    objects: dict[str, list[str]] = {copies: [] for copies in COPIES}
    for source in [*(root / path for path in cuda_build.sources(root)), entry]:
        for copies, flag in COPIES.items() if copies_matter(source) else [("both", [])]:
            made = str(folder / copies / f"{source.stem}.o")
            lines += [f"build {made}: compile {source}", f"  copies = {' '.join(flag)}"]
            for name in COPIES if copies == "both" else [copies]:
                objects[name].append(made)
    lines += [f"build {folder / copies / target}: link {' '.join(made)}" for copies, made in objects.items()]
    return "\n".join(lines) + "\n"


def _built(
    copies: str, root: Path, entry: Path, flags: list[str], link: list[str], target: str, cache: Path | None = None
) -> Path:
    version = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    key = hashlib.sha256(json.dumps([str(root), str(entry), version, flags, link]).encode()).hexdigest()[:16]
    folder = (cache or settings.cache_folder()) / "emulated" / key
    folder.mkdir(parents=True, exist_ok=True)
    script, product = folder / "build.ninja", folder / copies / target
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        script.write_text(_ninja_text(root, folder, entry, flags, link, target))
        command = [str(Path(ninja.BIN_DIR) / "ninja"), "-f", str(script), "-j", os.environ.get("MAX_JOBS") or "2"]
        command.append(str(product))
        answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(f"the CUDA sources do not compile for a CPU:\n{answer.stdout[-6000:]}")
    return product


@cache
def module(copies: str, root: Path = ROOT) -> ModuleType:
    """The module ``_CUDA`` over the emulator."""
    include = [f"-I{sysconfig.get_path('include')}", "-DPy_LIMITED_API=0x030A0000"]
    entry = root / "csrc/bindings/cuda_module.cpp"
    path = _built(copies, root, entry, [*COMMON, *include], ["-shared"], "_CUDA.abi3.so")
    spec = importlib.util.spec_from_file_location("_CUDA", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def program(copies: str, sanitizer: str, root: Path = ROOT, cache: Path | None = None) -> Path:
    """``driver.cpp`` with all kernels, watched by a sanitizer."""
    entry = Path(__file__).with_name("driver.cpp")
    flags = [*COMMON, *SANITIZERS[sanitizer], f"-I{root / 'csrc'}"]
    return _built(copies, root, entry, flags, SANITIZERS[sanitizer], "driver", cache)
