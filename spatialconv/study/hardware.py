"""Misses that the processor itself counts, through Linux' perf: a report beside the simulation, never a verdict, since
prefetchers, other programs and the program's start count as well."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .valgrind import MissingToolError

LOADS, MISSES = "L1-dcache-loads", "L1-dcache-load-misses"


def count(program: Path) -> dict[str, int]:
    """Loads, and loads that missed the first level, of one run of a program. Raises MissingToolError where perf or the
    counters are missing."""
    perf = shutil.which("perf")
    if perf is None:
        raise MissingToolError("perf is not installed")
    words = [perf, "stat", "-x", ",", "-e", f"{LOADS}:u,{MISSES}:u", str(program)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    return parse(done.stderr)


def parse(text: str) -> dict[str, int]:
    """Counts by event from what ``perf stat -x ,`` prints. Raises MissingToolError where one is not a number."""
    found = {}
    for line in text.splitlines():
        fields = line.split(",")
        for name in (LOADS, MISSES):
            if len(fields) > 2 and fields[2].split(":")[0] == name:
                if not fields[0].isdigit():
                    raise MissingToolError(f"perf says {name}: {fields[0]}")
                found[name] = int(fields[0])
    if len(found) < 2:
        raise MissingToolError(f"perf counts nothing here: {' '.join(text.split())[-200:]}")
    return found
