"""How often a nest touches each buffer, and how many rows it runs through, exactly and without running it.

The loops and guards around a touch fall apart into groups that share no index, such as rows with their taps and columns
with theirs. Passes are counted group by group, and the counts multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .nest import Affine, Guard, Let, Loop, Nest, Step

_ROW = ("oh0", "oh", "o")
Around = Loop | Guard | Let


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
    accesses = dict.fromkeys((buffer.name for buffer in nest.buffers), 0)
    rows, marked = 0, row_loops(nest)
    for around, step in _innermost(nest.body, ()):
        if isinstance(step, Loop):
            rows += _passes(around) if id(step) in marked else 0
            continue
        for touch in step.touches:
            accesses[touch.reference.buffer.name] += _passes(around)
    return Tally(accesses, rows)


def _innermost(body: tuple[Step, ...], around: tuple[Around, ...]) -> Iterator[tuple[tuple[Around, ...], Step]]:
    """Every statement with what stands around it, and every loop with what stands around it, itself included."""
    for step in body:
        if isinstance(step, Let):
            around = (*around, step)
        elif isinstance(step, (Loop, Guard)):
            if isinstance(step, Loop):
                yield (*around, step), step
            yield from _innermost(step.body, (*around, step))
        else:
            yield around, step


def _passes(around: tuple[Around, ...]) -> int:
    """How often what stands inside of all these runs."""
    count = 1
    for group in _groups(around):
        count *= _group_passes(group, {})
    return count


def _groups(around: tuple[Around, ...]) -> list[list[Around]]:
    """The steps parted into groups, in each the steps in their order, so that no name is used in two of them."""
    groups: list[tuple[set[str], list[Around]]] = []
    for step in around:
        names, steps = _names(step), [step]
        for other in [group for group in groups if group[0] & names]:
            groups.remove(other)
            names, steps = names | other[0], other[1] + steps
        order = {id(one): place for place, one in enumerate(around)}
        groups.append((names, sorted(steps, key=lambda one: order[id(one)])))
    return [steps for _, steps in groups]


def _names(step: Around) -> set[str]:
    if isinstance(step, Loop):
        return {step.name}.union(*(_terms(one) for one in (step.start, *step.stops)))
    return _terms(step.value) | ({step.name} if isinstance(step, Let) else set())


def _terms(expression: Affine) -> set[str]:
    return {name for name, _ in expression.terms}


def _group_passes(steps: list[Around], indices: dict[str, int]) -> int:
    for place, step in enumerate(steps):
        if isinstance(step, Let):
            indices = {**indices, step.name: step.value.value(indices)}
        elif isinstance(step, Guard):
            if not step.low <= step.value.value(indices) < step.high:
                return 0
        else:
            values = range(step.start.value(indices), min(stop.value(indices) for stop in step.stops), step.step)
            inner = steps[place + 1 :]
            if not inner:
                return len(values)
            return sum(_group_passes(inner, {**indices, step.name: value}) for value in values)
    return 1
