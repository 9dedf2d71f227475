"""A loop nest as data: loops, guards, and statements that load and store elements of buffers.

The one description is the source of everything that speaks of a nest: the simulator of caches, the pseudo-code, the C
program that a cache profiler runs, and the page. It is scalar and has two registers: ``sum``, which statements load,
change and store, and ``held``, a value that an inner loop multiplies by. What a statement touches, and in which order,
is its ``touches``; a nest's address sequence is that of its statements, and nothing else touches memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from ..problem import Problem

# Buffers begin far from each other, each on a page, so that sets are the same in every program made of a nest; weights
# last, since those of a dense layer take tens of GB.
_BASES = {
    "input": 0x1_0000_0000, "output": 0x4_0000_0000, "columns": 0x5_0000_0000, "packed": 0x6_0000_0000,
    "weight": 0x10_0000_0000,
}  # fmt: skip
_ALIKE = {
    "grad_input": "input", "grad_output": "output", "grad_weight": "weight", "workspace": "packed", "bias": "columns",
    "indices": "columns",
}  # fmt: skip


def base_of(name: str) -> int:
    """Where a tensor begins, gradients where what they are of does."""
    return _BASES[_ALIKE.get(name, name)]


@dataclass(frozen=True)
class Affine:
    """``constant`` plus integer multiples of loop indices."""

    terms: tuple[tuple[str, int], ...] = ()
    constant: int = 0

    def __add__(self, other: Affine | int) -> Affine:
        other = other if isinstance(other, Affine) else Affine(constant=other)
        sums = dict(self.terms)
        for name, factor in other.terms:
            sums[name] = sums.get(name, 0) + factor
        terms = tuple((name, factor) for name, factor in sums.items() if factor)
        return Affine(terms, self.constant + other.constant)

    def __mul__(self, factor: int) -> Affine:
        if factor == 0:
            return Affine()
        return Affine(tuple((name, value * factor) for name, value in self.terms), self.constant * factor)

    def __str__(self) -> str:
        parts = [name if factor == 1 else f"{name}*{factor}" for name, factor in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return "+".join(parts).replace("+-", "-")

    def value(self, indices: dict[str, int]) -> int:
        return self.constant + sum(factor * indices[name] for name, factor in self.terms)


def index(name: str) -> Affine:
    """A loop index as an expression."""
    return Affine(((name, 1),))


@dataclass(frozen=True)
class Buffer:
    """Elements in memory. ``name``: input, weight, output, columns or packed; ``axes`` and ``shape`` in the order in
    which they are spoken of, ``strides`` in elements; ``base``: the address of the first byte."""

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int

    @property
    def base(self) -> int:
        return base_of(self.name)

    @property
    def elements(self) -> int:
        return prod(self.shape)

    def at(self, *indices: Affine) -> Reference:
        offset = Affine()
        for one, stride in zip(indices, self.strides, strict=True):
            offset = offset + one * stride
        return Reference(self, indices, offset)


@dataclass(frozen=True)
class Reference:
    """One element of a buffer: by its indices, as people write it, and by its offset in elements."""

    buffer: Buffer
    indices: tuple[Affine, ...]
    offset: Affine

    def __str__(self) -> str:
        return f"{self.buffer.name}[{', '.join(map(str, self.indices))}]"


@dataclass(frozen=True)
class Touch:
    """A load or a store of one element, or of ``lanes`` that follow each other in memory."""

    reference: Reference
    store: bool = False
    lanes: int = 1


@dataclass(frozen=True)
class Set:
    """``sum`` becomes a constant: 0, or the lowest number, before a maximum is sought."""

    lowest: bool = False
    touches = ()


@dataclass(frozen=True)
class Load:
    """``sum`` becomes an element."""

    source: Reference

    @property
    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.source),)


@dataclass(frozen=True)
class Hold:
    """``held`` becomes an element."""

    source: Reference

    @property
    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.source),)


@dataclass(frozen=True)
class MultiplyAdd:
    """``sum`` grows by the product of two elements, or of an element and ``held`` where there is no second one."""

    first: Reference
    second: Reference | None = None

    @property
    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.first),) + ((Touch(self.second),) if self.second else ())


@dataclass(frozen=True)
class Add:
    """``sum`` grows by an element."""

    source: Reference

    @property
    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.source),)


@dataclass(frozen=True)
class Maximum:
    """``sum`` becomes the larger of itself and an element."""

    source: Reference

    @property
    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.source),)


@dataclass(frozen=True)
class Divide:
    """``sum`` is divided by a number."""

    divisor: int
    touches = ()


@dataclass(frozen=True)
class Store:
    """An element becomes ``sum``."""

    target: Reference

    @property
    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.target, store=True),)


@dataclass(frozen=True)
class Vectors:
    """What a kernel does with registers of its own, in words, and what it touches."""

    words: str
    touches: tuple[Touch, ...]


@dataclass(frozen=True)
class Let:
    """A name for an expression, used by what follows in the same body."""

    name: str
    value: Affine


@dataclass(frozen=True)
class Guard:
    """The body runs where ``low <= value < high``."""

    value: Affine
    low: int
    high: int
    body: tuple[Step, ...]


@dataclass(frozen=True)
class Loop:
    """``for name in range(start, least of stops, step)``."""

    name: str
    start: Affine
    stops: tuple[Affine, ...]
    step: int
    body: tuple[Step, ...]


Statement = Set | Load | Hold | MultiplyAdd | Add | Maximum | Divide | Store | Vectors
Step = Statement | Let | Guard | Loop


@dataclass(frozen=True)
class Nest:
    """A named way to compute a problem, its buffers in the order in which they are spoken of."""

    name: str
    problem: Problem
    buffers: tuple[Buffer, ...]
    body: tuple[Step, ...]

    def buffer(self, name: str) -> Buffer:
        return next(buffer for buffer in self.buffers if buffer.name == name)

    def addresses(self) -> Iterator[tuple[str, int, bool]]:
        """Every access in order: the buffer's name, the address of its first byte, whether it stores. Slow, and the
        judge of everything faster."""
        for buffer, offset, _, store in self.accesses():
            yield buffer.name, buffer.base + offset, store

    def accesses(self) -> Iterator[tuple[Buffer, int, int, bool]]:
        """The same as buffer, offset in bytes, size in bytes and whether it stores."""
        yield from _walk(self.body, {})


def _walk(body: tuple[Step, ...], indices: dict[str, int]) -> Iterator[tuple[Buffer, int, int, bool]]:
    for step in body:
        if isinstance(step, Loop):
            stop = min(bound.value(indices) for bound in step.stops)
            for value in range(step.start.value(indices), stop, step.step):
                yield from _walk(step.body, {**indices, step.name: value})
        elif isinstance(step, Guard):
            if step.low <= step.value.value(indices) < step.high:
                yield from _walk(step.body, indices)
        elif isinstance(step, Let):
            indices = {**indices, step.name: step.value.value(indices)}
        else:
            for touch in step.touches:
                buffer = touch.reference.buffer
                offset = touch.reference.offset.value(indices)
                yield buffer, offset * buffer.itemsize, touch.lanes * buffer.itemsize, touch.store
