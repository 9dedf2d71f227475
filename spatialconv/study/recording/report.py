"""A recorded kernel in words: what it touches of each tensor, what misses, and whether its nest says the same."""

from __future__ import annotations

import numpy as np

from ..cache import Level
from ..kernel_nests import kernel_nest
from ..report import Report, Table
from ..shape import short
from .agreement import compare
from .misses import misses
from .record import Recording


def by_tensor(recording: Recording, levels: tuple[Level, ...]) -> list[dict[str, object]]:
    """For each tensor that the kernel touched its loads, stores, bytes moved, bytes it has, and misses by level."""
    found = misses(recording, levels)
    rows = []
    for number, (name, size) in enumerate(zip(recording.buffers, recording.sizes, strict=True)):
        events = recording.events[recording.events["buffer"] == number]
        if not len(events):
            continue
        stores = int(np.count_nonzero(events["store"]))
        rows.append({
            "tensor": name, "bytes": size, "loads": len(events) - stores, "stores": stores,
            "moved": int(events["bytes"].sum(dtype=np.int64)), "misses": {x.name: found[name, x.name] for x in levels},
        })  # fmt: skip
    return rows


def agreement(recording: Recording) -> tuple[bool | None, str]:
    """Whether the kernel's nest is equal to the recording, None where it has none; and that in words."""
    try:
        nest = kernel_nest(recording.problem, recording.kernel.partition(":")[2], recording.level)
    except ValueError as error:
        return None, f"not compared with a nest: {error}"
    found = compare(recording, nest)
    if found.equal:
        return True, f"equal to its nest, access by access and in order: {found.recorded:,} of {found.described:,}"
    return False, (
        f"differs from its nest from access {found.first} on: recorded {found.recorded_there or 'nothing more'}, "
        f"described {found.described_there or 'nothing more'}"
    )


def report(recording: Recording, levels: tuple[Level, ...], source: str) -> Report:
    """The table, the comparison with the nest, and how to read both."""
    rows = by_tensor(recording, levels)
    equal, words = agreement(recording)
    title = f"{recording.kernel} at {recording.level}, {short(recording.problem)}, one thread; caches: {source}"
    table = Table(
        title,
        ("tensor", "bytes", "loads", "stores", "bytes an access", "times over", *(f"{x.name} misses" for x in levels)),
        tuple(
            (
                row["tensor"], row["bytes"], row["loads"], row["stores"],
                row["moved"] / (row["loads"] + row["stores"]), row["moved"] / max(row["bytes"], 1),
                *row["misses"].values(),
            )
            for row in rows
        ),
    )  # fmt: skip
    notes = [
        "'times over': bytes loaded and stored for each byte that the tensor has: what registers did not save.",
        words,
    ]
    data = {
        "problem": str(recording.problem), "kernel": recording.kernel, "level": recording.level,
        "levels": [str(level) for level in levels], "tensors": rows, "equal_to_nest": equal, "comparison": words,
    }  # fmt: skip
    return Report(data, [table], notes, failed=equal is False)
