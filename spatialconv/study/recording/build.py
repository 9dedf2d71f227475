"""Builds one kernel file of the extension with its loads and stores instrumented, on first use: a CPU kernel's as it is
shipped, a CUDA kernel's as its CPU twin.

The sources are those beside the package, or in the folder given; objects and libraries stay in the package's cache
folder under a hash of all that they are made of.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from ... import settings
from ...backends.extension import loader

# Kernels by the file that has them; pooling's have one file for each operation.
_FILES = {
    "gemm": "gemm", "winograd": "winograd", "winograd4": "winograd", "direct": "direct", "depthwise": "depthwise",
    "inner": "inner",
}  # fmt: skip
# CUDA kernels by op; those on tensor cores read through copies that are not loads of a lane.
_CUDA_FILES = {
    ("cuda_simt", "conv2d"): "conv_simt_forward",
    ("cuda_simt", "conv2d_grad_input"): "conv_simt_grad_input",
    ("cuda_simt", "conv2d_grad_weight"): "conv_simt_grad_weight",
    ("cuda_depthwise", "conv2d"): "depthwise_forward",
    ("cuda_depthwise", "conv2d_grad_input"): "depthwise_grad_input",
    ("cuda_depthwise", "conv2d_grad_weight"): "depthwise_grad_weight",
    ("cuda_windows", "max_pool2d"): "max_pool",
    ("cuda_windows", "avg_pool2d"): "avg_pool",
    ("cuda_windows", "avg_pool2d_grad_input"): "avg_pool",
}
CUDA_KERNELS = tuple(dict.fromkeys(name for name, _ in _CUDA_FILES))
# As shipped, but for the level of optimisation: the same tiles, a fraction of the time to compile.
_FLAGS = "-std=c++17 -O2 -g0 -fPIC -fvisibility=hidden -fno-exceptions -fno-rtti -fno-math-errno -ffp-contract=fast"
# A vector of 16 bytes is loaded as one, as on a GPU, and not member by member where each is used.
_CUDA_FLAGS = (
    "-std=c++17 -O1 -g0 -fPIC -fvisibility=hidden -fno-gnu-unique -Wno-unknown-pragmas -Wno-psabi -fno-tree-sra "
    "-fno-tree-fre"
)
_WRAPPED = ("memcpy", "memmove", "memset")


def sources() -> Path | None:
    """The folder ``csrc`` of the source tree that the package was imported from or that is the current folder."""
    for folder in (Path(__file__).resolve().parents[3], Path.cwd()):
        if (folder / "csrc" / "record" / "recorder.cpp").is_file():
            return folder / "csrc"
    return None


@cache
def compiler() -> str | None:
    """The C++ compiler, which has to be GCC's: the instrumentation of whole vectors is its own."""
    for name in (os.environ.get("CXX", "").strip(), "g++", "c++"):
        if name and (found := shutil.which(name)):
            macros = subprocess.run(
                [found, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True, check=False
            ).stdout
            if "__GNUC__" in macros and "__clang__" not in macros:
                return found
    return None


def unavailable(csrc: Path | None = None) -> str | None:
    """Why no kernel can be recorded here, in a sentence; None where it can."""
    if reason := loader.unavailable():
        return reason
    if compiler() is None:
        return "recording compiles a kernel with GCC, and no g++ was found on PATH"
    if csrc is not None and not (csrc / "record" / "recorder.cpp").is_file():
        return f"{csrc} is not this project's folder csrc"
    if (csrc or sources()) is None:
        return "recording compiles a kernel from csrc, which a wheel does not hold: run it in a source tree"
    return None


def table_of(op: str, name: str) -> str:
    """The kernel file that has a kernel. Raises ValueError where no C++ kernel has that name."""
    if op.startswith(("max_pool2d", "avg_pool2d")) and name in ("rows", "planes"):
        return "max_pool" if op.startswith("max") else "avg_pool"
    if name not in _FILES:
        raise ValueError(f"study: kernel: expected one of {', '.join(_FILES)}, rows, planes, got {name!r}")
    return _FILES[name]


def cuda_table_of(op: str, name: str) -> str:
    """The kernel file that has a CUDA kernel. Raises ValueError where none is recorded."""
    if (name, op) not in _CUDA_FILES:
        raise ValueError(f"study: kernel: expected one of {', '.join(CUDA_KERNELS)} that computes {op}, got {name!r}")
    return _CUDA_FILES[name, op]


def cuda_library(table: str, csrc: Path | None = None) -> Path:
    """The shared library of one CUDA file over the emulator. Raises RuntimeError as ``library``."""
    csrc = _sources(csrc)
    flags = [*_CUDA_FLAGS.split(), f"-DSC_RECORDED={table}_table"]
    kernel, recorder = csrc / "cuda" / f"{table}.cu", csrc / "record" / "recorder_cuda.cpp"
    objects = [
        _made(f"{table}.o", kernel, [*flags, "-fsanitize=thread", "-x", "c++"]),
        _made("recorder_cuda.o", recorder, [*flags, "-D__SANITIZE_THREAD__=1"]),
    ]
    return _linked(f"{table}-cuda.so", objects)


def library(table: str, level: str, csrc: Path | None = None) -> Path:
    """The shared library of one kernel file at an instruction-set level. Raises RuntimeError with the reason or with
    the compiler's words where it cannot be built."""
    csrc = _sources(csrc)
    flags = [*_FLAGS.split(), f"-DSPATIALCONV_ISA={level}", f"-DSC_RECORDED={table}_table", *_level_flags(level)]
    kernel, recorder = csrc / "cpu" / f"{table}.cpp", csrc / "record" / "recorder.cpp"
    watched = ["-fsanitize=thread", "-include", str(csrc / "record" / "masked.h")]
    objects = [_made(f"{table}.o", kernel, [*flags, *watched]), _made("recorder.o", recorder, flags)]
    return _linked(f"{table}-{level}.so", objects)


def _sources(csrc: Path | None) -> Path:
    if reason := unavailable(csrc):
        raise RuntimeError(f"study: {reason}")
    return csrc or sources()


def _linked(name: str, objects: list[Path]) -> Path:
    wrap = [f"-Wl,--wrap={word}" for word in _WRAPPED]
    return _made(name, None, ["-shared", *wrap, "-Wl,-z,defs", *map(str, objects)])


def _level_flags(level: str) -> list[str]:
    words = loader.build_info()["flags"][level].split()
    return [word for word in words if word.startswith("-m")]


def _closure(source: Path) -> list[Path]:
    """The file and all that it includes of ours, and those in turn."""
    waiting, seen = [source], set()
    while waiting:
        path = waiting.pop().resolve()
        if path not in seen and path.exists():
            seen.add(path)
            waiting += [path.parent / name for name in re.findall(r'#include "([^"]+)"', path.read_text())]
    return sorted(seen)


def _made(name: str, source: Path | None, flags: list[str]) -> Path:
    """What the compiler makes, found again under the hash of what it is made of."""
    folder = settings.cache_folder() / "recording"
    folder.mkdir(parents=True, exist_ok=True)
    texts = [f"{path.name}\n{path.read_text()}" for path in _closure(source)] if source else []
    texts += [Path(word).read_text() for word in flags if word.endswith(".h")]
    plain = [word if not word.endswith(".h") else Path(word).name for word in flags]
    digest = hashlib.sha256(json.dumps([_version(), plain, texts]).encode()).hexdigest()[:24]
    stem, dot, suffix = name.partition(".")
    product = folder / f"{stem}-{digest}{dot}{suffix}"
    with open(folder / f"{digest}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not product.exists():
            scratch = product.with_suffix(".part")
            compiled = ["-c", str(source)] if source else []
            command = [str(compiler()), *flags, *compiled, "-o", str(scratch)]
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            if answer.returncode:
                raise RuntimeError(f"study: {name} cannot be built:\n{answer.stderr[-4000:]}")
            os.replace(scratch, product)
    return product


@cache
def _version() -> str:
    return subprocess.run([str(compiler()), "--version"], capture_output=True, text=True, check=True).stdout
