"""Traces as a report: who misses where and of which kind, crowded sets, pseudo-code, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .cache import Level
from .crowding import crowding, stretch
from .nest_text import pseudocode
from .report import Report, Table
from .shape import short
from .tally import tally
from .trace import KINDS, Trace

if TYPE_CHECKING:
    import numpy as np

_READ_AS = (
    "Misses are not seconds: processors hide many behind other work and the next level, and run vector code that "
    "touches memory less often. 'spatialconv bench' measures time."
)


def report(traces: Sequence[Trace], source: str, code: bool = False) -> Report:
    """``source``: where the levels come from, in words; ``code`` adds each nest's pseudo-code to the notes."""
    from . import trace_pictures

    first = traces[0]
    crowds = [crowding(one.nest, first.levels[0]) for one in traces]
    found = Report(
        {
            "shape": short(first.nest.problem), "problem": str(first.nest.problem), "cache": source,
            "levels": [_level_data(level) for level in first.levels], "nests": [_data(one) for one in traces],
        }
    )  # fmt: skip
    found.tables = [_table(traces, level, source) for level in first.levels]
    for one, crowd in zip(traces, crowds, strict=True):
        found.notes += [*_sampled(one), *_crowd_notes(one, crowd)]
    if any(count < 0 for one in traces for count in one.kinds.values()):
        found.notes.append("A negative conflict: sets kept lines that LRU over the whole level would have evicted.")
    found.notes.append(_READ_AS)
    if code:
        found.notes += [f"\n{one.nest.name}:\n{pseudocode(one.nest)}" for one in traces]
    found.pictures = [trace_pictures.who_misses(traces), trace_pictures.crowded_sets(traces, crowds)]
    found.pictures += [trace_pictures.raster(one.nest) for one in traces]
    found.pictures += [trace_pictures.heat(one) for one in traces if one.heat]
    return found


def _level_data(level: Level) -> dict[str, object]:
    return {"name": level.name, "size": level.size, "sets": level.sets, "ways": level.ways, "line": level.line}


def _data(one: Trace) -> dict[str, object]:
    names = [level.name for level in one.levels]
    window = one.window
    return {
        "nest": one.nest.name,
        "code": pseudocode(one.nest).splitlines(),
        "accesses": one.accesses,
        "misses": {name: {buffer: one.misses[buffer, name] for buffer in one.accesses} for name in names},
        "kinds": {
            name: {buffer: {kind: one.kinds[buffer, name, kind] for kind in KINDS} for buffer in one.accesses}
            for name in names
        } if one.kinds else None,
        "sets": {names[0]: one.sets[names[0]].tolist()},
        "heat": {name: values.tolist() for name, values in one.heat.items()} or None,
        "sampled": window and {
            "first": window.first, "last": window.last, "warm": window.warm, "rows": window.rows,
            "accesses of the whole": tally(one.nest).total,
        },
        "seconds": one.seconds,
    }  # fmt: skip


def _table(traces: Sequence[Trace], level: Level, source: str) -> Table:
    """One level: what each tensor sends to it, and what becomes of that."""
    rows: list[tuple[object, ...]] = []
    for one in traces:
        before = one.levels[one.levels.index(level) - 1] if level != one.levels[0] else None
        parts = []
        for buffer in one.accesses:
            reach = one.misses[buffer, before.name] if before else one.accesses[buffer]
            kinds = [one.kinds.get((buffer, level.name, kind)) for kind in KINDS]
            parts.append([reach, one.misses[buffer, level.name], *kinds])
            rows.append((one.nest.name, buffer, *_row(parts[-1])))
        sums = [None if None in column else sum(column) for column in zip(*parts, strict=True)]
        rows.append((one.nest.name, "all", *_row(sums)))
    title = f"{level.name}: {level.size:,} B, {level.sets:,} sets of {level.ways} lines of {level.line} B ({source})"
    return Table(title, ("nest", "tensor", "accesses", "misses", "per 1000", *KINDS), tuple(rows))


def _row(values: list[int | None]) -> tuple[object, ...]:
    reach, missed, *kinds = values
    return reach, missed, 1000 * missed / reach if reach else 0.0, *kinds


def _sampled(one: Trace) -> list[str]:
    window, name = one.window, one.nest.name
    if window is None:
        return []
    whole = tally(one.nest).total
    counted = sum(one.accesses.values())
    return [
        f"{name}: SAMPLED: rows {window.first:,} to {window.last:,} of {window.rows:,} in the order of execution, "
        f"{counted:,} of {whole:,} accesses, after {window.first - window.warm:,} rows to fill the caches; kinds of "
        f"misses need a whole run."
    ]


def _crowd_notes(one: Trace, crowd: np.ndarray) -> list[str]:
    """What the busiest set is asked to hold at once, and where over the run misses gather."""
    level, name = one.levels[0], one.nest.name
    lines = crowd.sum(0)
    found = []
    if lines.max() > level.ways:
        found.append(
            f"{name}: {stretch(one.nest):,} accesses in a row want up to {lines.max()} lines in "
            f"one set of {level.name}, which holds {level.ways}; {int((lines > level.ways).sum())} sets are asked for "
            f"more than they hold."
        )
    by_set = one.sets[level.name].sum(0)
    hot = [number for number, count in enumerate(by_set) if count > 2 * by_set.mean()]
    if hot:
        shown = ", ".join(map(str, hot[:8])) + (", ..." if len(hot) > 8 else "")
        share = by_set[hot].sum() / by_set.sum()
        found.append(
            f"{name}: hot sets of {level.name}: {len(hot)} of {level.sets} ({shown}) take {share:.0%} of its misses."
        )
    return found
