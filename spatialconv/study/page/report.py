"""The page written to a file, and what is said about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ... import __version__
from ...problem import Problem
from .. import cache
from ..cache import Level
from ..report import Report, Table
from .assemble import page
from .examples import CAP, EXAMPLES, TOY, Example, check_levels, chosen, level_data, reference


def html(examples: Sequence[Example], levels: tuple[Level, ...], where: str) -> tuple[str, list[dict[str, object]]]:
    """The page's text and its examples with Python's counts. ``levels``: the caches of all but the toy examples, found
    as ``where`` says."""
    check_levels(levels)
    counted = [reference(example, levels) for example in examples]
    presets = {"toy": TOY, f"{where}: {', '.join(map(str, levels))}": levels}
    presets |= {f"{name}: {text}": cache.parse(text) for name, text in cache.PRESETS.items()}
    data = {
        "examples": counted,
        "presets": [{"title": title, "levels": list(map(level_data, some))} for title, some in presets.items()],
    }
    check = (
        "Python's simulator counted these examples when this file was written. The browser counts them again, from "
        "Python's description of each nest, and compares every count and the nest that its own builder makes."
    )
    caches = ", ".join(map(str, levels))
    footer = f"spatialconv {__version__}. Caches: {where}, {caches}. This file asks for nothing from a network."
    return page(data, check, footer), counted


def written(path: Path, problems: Sequence[Problem], cache_text: str) -> Report:
    """Write the page. Raises ValueError on a layer or caches that the page cannot show."""
    levels, where = cache.read(cache_text)
    text, examples = html((*EXAMPLES, *chosen(problems)), levels, where)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    rows = tuple(map(_row, examples))
    notes = [f"{path.resolve()}: {len(text.encode()) / 1024:.0f} KiB, opens in any browser, needs no network."]
    if any(example["python"] is None or sum(example["python"]["accesses"].values()) > CAP for example in examples):
        notes.append(f"Nests of more than {CAP:,} accesses are sampled on the page: it counts their first {CAP:,}.")
    notes.append("Misses are not seconds.")
    columns = ("example", "shape", "nest", "accesses", "misses of the first level", "of the last level")
    data = {"path": str(path), "cache": where, "levels": list(map(level_data, levels)), "examples": examples}
    return Report(data, [Table("Examples on the page, counted by Python", columns, rows)], notes)


def _row(example: dict[str, object]) -> tuple[object, ...]:
    python = example["python"]
    named = example["title"], example["shape"], f"{example['way']}, {example['layout']}"
    if python is None:
        return *named, None, None, None
    first, last = python["levels"][0], python["levels"][-1]
    return *named, sum(python["accesses"].values()), sum(first["misses"].values()), sum(last["misses"].values())
