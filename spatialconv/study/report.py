"""What a study command hands over: figures for programs, tables for people, and pictures, each with the sentence that
reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """Rows of equal length under their headings; numbers are formatted by whoever shows them."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A picture drawn on demand, and the one sentence printed under it that says how to read it."""

    name: str
    draw: Callable[[], Figure]
    reading: str


@dataclass
class Report:
    """``data`` is written by --json, ``pictures`` by --out; ``notes`` are sentences below the tables. ``failed`` makes
    the command's exit code 1."""

    data: dict[str, object]
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    failed: bool = False
