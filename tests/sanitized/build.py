"""Builds the CPU kernels of a level into a program that runs listed problems under a sanitizer. One level more than the
package has, ``wide``, runs the tiles of AVX-512 where there is no AVX-512. Objects stay in the package's cache folder
under a hash of all that they are made of, so that a copy of the sources shares those in which it does not differ."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from emulated.build import SANITIZERS, compiler

from spatialconv import settings
from spatialconv.backends.extension import loader

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("driver.cpp")
WIDE = "wide"
# As shipped, but optimised a little only, and with warnings as errors.
COMMON = "-std=c++17 -O1 -fno-math-errno -ffp-contract=fast -pthread".split()
COMMON += "-Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-psabi".split()
# ThreadSanitizer's calls look to GCC like readers of vectors that are only half written.
FALSE_ALARMS = {"thread": ["-Wno-maybe-uninitialized"]}
# It can find a race only where every thread does its part of a small problem.
OF_KERNELS = {"thread": ["-DSPATIALCONV_FIXED_SHARES"]}


def levels() -> list[str]:
    """Every level that this machine runs, and the wide one."""
    return [*loader.load().levels(), WIDE]


def _level_flags(level: str) -> list[str]:
    name = f"-DSPATIALCONV_ISA={level}"
    if level == WIDE:
        return [name, "-DSPATIALCONV_WIDE"]
    return [name, *(flag for flag in loader.build_info()["flags"][level].split() if flag.startswith("-m"))]


def _closure(source: Path, csrc: Path) -> list[Path]:
    """The file and all that it includes of ours, and those in turn."""
    waiting, seen = [source], set()
    while waiting:
        path = waiting.pop().resolve()
        if path not in seen and path.exists():
            seen.add(path)
            names = re.findall(r'#include "([^"]+)"', path.read_text())
            waiting += [folder / name for name in names for folder in (path.parent, csrc)]
    return sorted(seen)


@cache
def _version() -> str:
    return subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout


def _made(name: str, key: list[str], command: list[str]) -> Path:
    """What the command makes, found again under the hash of ``key``."""
    folder = settings.cache_folder() / "sanitized"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(json.dumps([_version(), *key]).encode()).hexdigest()[:24]
    product = folder / f"{name}-{digest}"
    with open(folder / f"{digest}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not product.exists():
            scratch = folder / f"{product.name}.part"
            answer = subprocess.run([compiler(), *command, "-o", scratch], capture_output=True, text=True, check=False)
            if answer.returncode:
                raise RuntimeError(f"{name} cannot be built:\n{answer.stderr[-6000:]}")
            os.replace(scratch, product)
    return product


def _object(source: Path, flags: list[str], csrc: Path) -> Path:
    key = [*flags, *(f"{path.name}\n{path.read_text()}" for path in _closure(source, csrc))]
    return _made(f"{source.stem}.o", key, [*flags, f"-I{csrc}", "-x", "c++", "-c", str(source)])


def program(level: str, sanitizer: str, csrc: Path = ROOT / "csrc") -> Path:
    """The driver with every kernel file in ``csrc/cpu`` at a level, watched by a sanitizer."""
    watched = SANITIZERS[sanitizer]
    flags = [*COMMON, *_level_flags(level), *watched, *FALSE_ALARMS.get(sanitizer, []), *OF_KERNELS.get(sanitizer, [])]
    sources = [DRIVER, *sorted((csrc / "cpu").glob("*.cpp"))]
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or 2)) as pool:
        objects = [str(path) for path in pool.map(lambda source: _object(source, flags, csrc), sources)]
    return _made(f"driver-{level}-{sanitizer}", [*objects, *watched], [*objects, *watched, "-pthread"])


def small_program(source: Path, sanitizer: str, csrc: Path = ROOT / "csrc") -> Path:
    """A program of one file, watched by a sanitizer."""
    flags = [*COMMON, "-DSPATIALCONV_ISA=baseline", *SANITIZERS[sanitizer], *FALSE_ALARMS.get(sanitizer, [])]
    made = _object(source, flags, csrc)
    return _made(f"{source.stem}-{sanitizer}", [str(made), *flags], [str(made), *SANITIZERS[sanitizer], "-pthread"])
