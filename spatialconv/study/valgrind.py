"""Programs made of nests, watched by Valgrind: lackey tells every address, cachegrind simulates two levels of cache."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from .c_source import c_source
from .cache import Level
from .lru import extent
from .nest import Nest

_PATIENCE = 600


class MissingToolError(RuntimeError):
    """What a check needs is not on this machine; the message says what."""


def build(nest: Nest, folder: Path, exact: bool = True) -> Path:
    """Compile a nest's program into a folder that is there. Valgrind knows AVX2 but not AVX-512, hence x86-64-v3 and
    not this processor's own instructions. Raises MissingToolError without a compiler."""
    compiler = os.environ.get("CC") or next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        raise MissingToolError("no C compiler (cc, gcc or clang)")
    program = folder / f"{nest.name}{'' if exact else '-vector'}"
    source = program.with_suffix(".c")
    source.write_text(c_source(nest, exact))
    flags = ["-O2", "-ffp-contract=off"] if exact else ["-O3", "-ffast-math"]
    flags += ["-march=x86-64-v3"] if platform.machine() in ("x86_64", "AMD64") else []
    done = _run([*compiler.split(), *flags, str(source), "-o", str(program)])
    if done.returncode:
        raise MissingToolError(f"{compiler} does not compile the program: {done.stderr.strip()[-300:]}")
    return program


def find() -> str:
    """The program valgrind; raises MissingToolError where it is not installed."""
    found = shutil.which("valgrind")
    if found is None:
        raise MissingToolError("valgrind is not installed")
    return found


def version() -> str:
    return _run([find(), "--version"]).stdout.strip()


def _run(words: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE)
    except OSError as error:
        raise MissingToolError(f"{words[0]} cannot be run: {error}") from None


def addresses(nest: Nest, program: Path) -> list[tuple[int, bool]]:
    """Every access of a program to the nest's buffers, in order: the address, and whether it stores."""
    limits = [(one.base, one.base + extent(one) * one.itemsize) for one in nest.buffers]
    found: list[tuple[int, bool]] = []
    log = program.with_suffix(".lackey")
    done = _run([find(), "--tool=lackey", "--trace-mem=yes", f"--log-file={log}", str(program)])
    if done.returncode:
        raise MissingToolError(f"lackey ends with {done.returncode}: {log.read_text()[-300:].strip()}")
    with log.open() as lines:
        for line in lines:
            if match := re.match(r" ([LSM]) ([0-9a-f]+),", line):
                address = int(match[2], 16)
                if any(low <= address < high for low, high in limits):
                    found += [(address, False)] if match[1] in "LM" else []
                    found += [(address, True)] if match[1] in "SM" else []
    log.unlink()
    return found


@dataclass(frozen=True)
class Counts:
    """Data accesses of one function, misses of the first and of the last level, and seconds of the whole program."""

    accesses: int
    first: int
    last: int
    seconds: float


def cachegrind(program: Path, first: Level, last: Level) -> Counts:
    """What cachegrind counts in the function ``nest``. It takes powers of two as numbers of sets only: ValueError."""
    for level in (first, last):
        if level.sets & (level.sets - 1):
            raise ValueError(f"study: cachegrind: expected a number of sets of 2**n, {level} has {level.sets}")
    result = program.with_suffix(".cachegrind")
    words = [find(), "--tool=cachegrind", "--cache-sim=yes", f"--cachegrind-out-file={result}", "--I1=32768,8,64"]
    words += [f"--{name}={one.size},{one.ways},{one.line}" for name, one in (("D1", first), ("LL", last))]
    started = perf_counter()
    done = _run([*words, str(program)])
    seconds = perf_counter() - started
    if done.returncode:
        raise MissingToolError(f"cachegrind ends with {done.returncode}: {done.stderr[-300:].strip()}")
    counts = _function_counts(result.read_text(), "nest")
    result.unlink()
    return Counts(
        accesses=counts["Dr"] + counts["Dw"], first=counts["D1mr"] + counts["D1mw"],
        last=counts["DLmr"] + counts["DLmw"], seconds=seconds,
    )  # fmt: skip


def _function_counts(text: str, function: str) -> dict[str, int]:
    """Sums by event of one function's lines in cachegrind's file; trailing zeros are left out there."""
    events: list[str] = []
    sums: dict[str, int] = {}
    inside = False
    for line in text.splitlines():
        if line.startswith("events:"):
            events = line.split()[1:]
            sums = dict.fromkeys(events, 0)
        elif line.startswith("fn="):
            inside = line[3:].strip() == function
        elif inside and line[:1].isdigit():
            for event, count in zip(events, line.split()[1:], strict=False):
                sums[event] += int(count)
    return sums
