"""Caches as geometry: this machine's, well-known ones by name, and any that is written down.

A level is written ``SIZE/WAYS/LINE``, as in ``32K/8/64``, and levels follow each other from the processor outwards,
separated by commas. The number of sets, size / (ways * line), need not be a power of two.
"""

from __future__ import annotations

import platform
import re
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SYSFS = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True)
class Level:
    """One level of set-associative data cache: ``sets`` of ``ways`` lines of ``line`` bytes."""

    name: str
    sets: int
    ways: int
    line: int

    def __post_init__(self) -> None:
        for field in ("sets", "ways"):
            if getattr(self, field) < 1:
                raise ValueError(
                    f"study: cache: {self.name}: expected {field} of at least 1, got {getattr(self, field)}"
                )
        if not 16 <= self.line <= 4096 or self.line & (self.line - 1):
            raise ValueError(f"study: cache: {self.name}: expected lines of 16 to 4096 B, 2**n, got {self.line}")

    @property
    def size(self) -> int:
        """Bytes."""
        return self.sets * self.ways * self.line

    @property
    def lines(self) -> int:
        return self.sets * self.ways

    def __str__(self) -> str:
        return f"{self.name} {_size(self.size)}/{self.ways}/{self.line}"


def _size(size: int) -> str:
    for unit, factor in reversed(_UNITS.items()):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    raise AssertionError


def spelled(levels: tuple[Level, ...]) -> str:
    """Levels as ``parse`` reads them."""
    return ",".join(f"{_size(level.size)}/{level.ways}/{level.line}" for level in levels)


def parse(text: str) -> tuple[Level, ...]:
    """Levels from ``32K/8/64,1M/16/64``: size, ways and bytes of a line; named L1, L2 and so on. Raises ValueError
    where a size is not a whole number of sets, or a level is smaller than the one before."""
    levels: list[Level] = []
    for number, word in enumerate(text.split(","), 1):
        found = re.fullmatch(r"\s*([0-9]+)([KMG]?)i?B?/([0-9]+)/([0-9]+)\s*", word, re.IGNORECASE)
        if not found:
            raise ValueError(f"study: cache: expected SIZE/WAYS/LINE like 32K/8/64, got {word!r}")
        size, ways, line = int(found[1]) * _UNITS[found[2].upper()], int(found[3]), int(found[4])
        if ways < 1 or line < 1 or size % (ways * line) or not size:
            raise ValueError(f"study: cache: {word!r}: expected a size that is a multiple of ways * line")
        levels.append(Level(f"L{number}", size // (ways * line), ways, line))
        if number > 1 and levels[-1].size < levels[-2].size:
            raise ValueError(f"study: cache: {text!r}: expected levels to grow outwards, {levels[-1].name} is smaller")
    return tuple(levels)


# Data caches of one core, and the last level where it is not shared out in slices. Sources: Intel 64 and IA-32
# Architectures Optimization Reference Manual (skylake-server, sapphire-rapids), AMD Software Optimization Guide for
# Family 19h (zen3), Arm Neoverse N1 and Cortex-A72 Technical Reference Manuals.
PRESETS = {
    "skylake-server": "32K/8/64,1M/16/64",
    "sapphire-rapids": "48K/12/64,2M/16/64",
    "zen3": "32K/8/64,512K/8/64,32M/16/64",
    "neoverse-n1": "64K/4/64,1M/8/64",
    "cortex-a72": "32K/2/64,1M/16/64",
}
_UNKNOWN = "sapphire-rapids"


def read(text: str) -> tuple[tuple[Level, ...], str]:
    """The levels that ``host``, a preset's name or a written geometry means, and where they come from, in words."""
    if text == "host":
        return _host()
    if text in PRESETS:
        return parse(PRESETS[text]), f"preset {text}"
    if "/" not in text:
        raise ValueError(f"study: cache: expected host, {', '.join(PRESETS)} or levels like 32K/8/64, got {text!r}")
    return parse(text), "as given"


def host() -> tuple[Level, ...]:
    """The data caches of this machine's first core, from the nearest outwards; ``read('host')`` also says how they were
    found, and whether a preset stands in for them."""
    return _host()[0]


@lru_cache
def _host() -> tuple[tuple[Level, ...], str]:
    if levels := from_sysfs(SYSFS):
        return levels, "this machine, by sysfs"
    if platform.system() == "Darwin" and (levels := _from_sysctl()):
        return levels, "this machine's sizes, by sysctl; it tells no ways, 8 are assumed"
    return parse(PRESETS[_UNKNOWN]), f"preset {_UNKNOWN}, as this machine does not tell its caches"


def from_sysfs(folder: Path) -> tuple[Level, ...]:
    """Data and unified caches that Linux describes in a folder of ``index*``; empty where it does not."""
    found = {}
    for index in sorted(folder.glob("index*")):
        try:
            if (index / "type").read_text().strip() == "Instruction":
                continue
            number, sets, ways, line = (
                int((index / name).read_text())
                for name in ("level", "number_of_sets", "ways_of_associativity", "coherency_line_size")
            )
            found[number] = Level(f"L{number}", sets, ways, line)
        except (OSError, ValueError):
            # Virtual machines and some Arm kernels leave files out or empty; a gap ends what is known.
            break
    return tuple(found[number] for number in sorted(found))


def _from_sysctl() -> tuple[Level, ...]:
    levels, names = [], ("hw.l1dcachesize", "hw.l2cachesize", "hw.l3cachesize")
    line = _sysctl("hw.cachelinesize")
    for number, name in enumerate(names, 1):
        size = _sysctl(name)
        if not line or not size or size % (8 * line):
            break
        levels.append(Level(f"L{number}", size // (8 * line), 8, line))
    return tuple(levels)


def _sysctl(name: str) -> int:
    try:
        found = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=10)
        return int(found.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return 0
