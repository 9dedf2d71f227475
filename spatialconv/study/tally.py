"""How often a nest touches each buffer, and how many rows it runs through, exactly and without running it.

Loops that no guard or bound inside depends on are multiplied; what depends on the same indices is counted once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .nest import Affine, Guard, Let, Loop, Nest, Step

_ROW = ("oh0", "oh", "o")


@dataclass(frozen=True)
class Tally:
    """``accesses`` by buffer, and ``rows``: passes through the loops that ``row_loops`` names."""

    accesses: dict[str, int]
    rows: int

    @property
    def total(self) -> int:
        return sum(self.accesses.values())


def row_loops(nest: Nest) -> set[int]:
    """The ``id`` of the loops of which one pass is a *row*: those over output rows or over tiles of them, over outputs
    in a dense layer, and the outermost loop where there is none of these."""
    found: set[int] = set()
    for step in nest.body:
        rows = list(_rows((step,)))
        found |= {id(loop) for loop in rows or ([step] if isinstance(step, Loop) else [])}
    return found


def _rows(body: tuple[Step, ...]) -> Iterator[Loop]:
    for step in body:
        if isinstance(step, Loop) and step.name in _ROW:
            yield step
        elif isinstance(step, (Loop, Guard)):
            yield from _rows(step.body)


def tally(nest: Nest) -> Tally:
    names = [buffer.name for buffer in nest.buffers]
    counts = _Counter(nest, names).count(nest.body, {})
    return Tally(dict(zip(names, counts, strict=False)), counts[-1])


def _named(*expressions: Affine) -> frozenset[str]:
    return frozenset(name for expression in expressions for name, _ in expression.terms)


class _Counter:
    """Counts by body and by the values of the names that its guards and bounds depend on."""

    def __init__(self, nest: Nest, names: list[str]) -> None:
        self.names, self.rows = names, row_loops(nest)
        self.free_names: dict[int, frozenset[str]] = {}
        self.known: dict[tuple, list[int]] = {}

    def free(self, body: tuple[Step, ...]) -> frozenset[str]:
        """The names from outside that decide how often something in the body runs."""
        if id(body) not in self.free_names:
            names: frozenset[str] = frozenset()
            for step in reversed(body):
                if isinstance(step, Let):
                    names = names - {step.name} | (_named(step.value) if step.name in names else frozenset())
                elif isinstance(step, Guard):
                    names |= _named(step.value) | self.free(step.body)
                elif isinstance(step, Loop):
                    names |= _named(step.start, *step.stops) | (self.free(step.body) - {step.name})
            self.free_names[id(body)] = names
        return self.free_names[id(body)]

    def count(self, body: tuple[Step, ...], indices: dict[str, int]) -> list[int]:
        key = (id(body), *(indices[name] for name in sorted(self.free(body))))
        if key not in self.known:
            self.known[key] = self._count(body, indices)
        return self.known[key]

    def _count(self, body: tuple[Step, ...], indices: dict[str, int]) -> list[int]:
        total = [0] * (len(self.names) + 1)
        for step in body:
            if isinstance(step, Let):
                # Names of inputs that only touches use may stand on loops that a multiplied pass never entered.
                if all(name in indices for name, _ in step.value.terms):
                    indices = {**indices, step.name: step.value.value(indices)}
            elif isinstance(step, Guard):
                if step.low <= step.value.value(indices) < step.high:
                    total = [a + b for a, b in zip(total, self.count(step.body, indices), strict=True)]
            elif isinstance(step, Loop):
                total = [a + b for a, b in zip(total, self._loop(step, indices), strict=True)]
            else:
                for touch in step.touches:
                    total[self.names.index(touch.reference.buffer.name)] += 1
        return total

    def _loop(self, step: Loop, indices: dict[str, int]) -> list[int]:
        values = range(step.start.value(indices), min(stop.value(indices) for stop in step.stops), step.step)
        total = [0] * (len(self.names) + 1)
        if step.name in self.free(step.body):
            for value in values:
                inner = self.count(step.body, {**indices, step.name: value})
                total = [a + b for a, b in zip(total, inner, strict=True)]
        elif values:
            total = [len(values) * one for one in self.count(step.body, indices)]
        if id(step) in self.rows:
            total[-1] += len(values)
        return total
