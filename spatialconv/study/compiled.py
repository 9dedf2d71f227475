"""A nest as a function that Numba compiles, with something done at each touch.

The text of the function depends on the nest's structure alone: extents, strides, guards and addresses are numbers
handed over when it is called, so that layers of one structure, as in a sweep, share one compiled function. What is done
at a touch, such as the simulation of a cache, is text as well, with its own constants compiled in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from .nest import Affine, Guard, Let, Loop, Nest, Step, Touch
from .tally import row_loops

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Helper:
    """A function of ``state`` and so many integers, as source."""

    name: str
    integers: int
    source: str


@dataclass(frozen=True)
class Action:
    """What is done at each touch: ``helpers``, functions that Numba compiles, each able to call those before it; lines
    of text for a touch of the buffer with a number, where ``p`` is the address touched and ``state`` an array of int64;
    and lines that make counts zero. One array, since Numba hands over seven values for each."""

    helpers: tuple[Helper, ...]
    touch: Callable[[int], tuple[str, ...]]
    reset: tuple[str, ...]


@dataclass(frozen=True)
class Window:
    """Rows ``first`` to ``last`` of ``rows`` are counted, those from ``warm`` on run before them, to fill caches. A row
    is one pass through the loops that ``tally.row_loops`` names, numbered in the order of execution."""

    warm: int
    first: int
    last: int
    rows: int

    def __post_init__(self) -> None:
        if not 0 <= self.warm <= self.first < self.last <= self.rows:
            raise ValueError(f"study: rows: expected a window within 0:{self.rows}, got {self.first}:{self.last}")


def run(nest: Nest, action: Action, state: np.ndarray, window: Window | None = None) -> list[int]:
    """Run the nest with ``action`` at each touch. Returns how often each buffer was touched, in the window where there
    is one. Raises ImportError without Numba."""
    writer = _Writer(nest, action, window)
    source = writer.function()
    return list(_compile(action.helpers, source)(tuple(writer.numbers), state))


@lru_cache(maxsize=256)
def _compile(helpers: tuple[Helper, ...], source: str):
    return _njit(source, "nest", dict(_compiled_helpers(helpers)))


@lru_cache(maxsize=64)
def _compiled_helpers(helpers: tuple[Helper, ...]) -> dict[str, object]:
    """Helpers by name, compiled once for all nests. Signatures are given: Numba would compile a helper again for every
    call that mixes literals and variables in another way."""
    if not helpers:
        return {}
    namespace = dict(_compiled_helpers(helpers[:-1]))
    helper = helpers[-1]
    signature = f"void(int64[::1]{', int64' * helper.integers})"
    namespace[helper.name] = _njit(helper.source, helper.name, namespace, signature)
    return namespace


def _njit(source: str, name: str, namespace: dict[str, object], signature: str | None = None):
    try:
        import numba
    except ImportError as error:
        raise ImportError(f"study: the simulator of caches needs numba ({error})") from None
    exec(compile(source, f"<{name}>", "exec"), namespace)
    return numba.njit(signature, error_model="numpy", nogil=True, no_cfunc_wrapper=True)(namespace[name])


class _Writer:
    """Writes the function, and gathers the numbers that it is called with."""

    def __init__(self, nest: Nest, action: Action, window: Window | None) -> None:
        self.nest, self.action, self.window = nest, action, window
        self.rows = row_loops(nest) if window else set()
        self.numbers: list[int] = []
        self.lines: list[str] = []

    def function(self) -> str:
        counters = [f"n{number}" for number in range(len(self.nest.buffers))]
        result = f"return {', '.join(counters)},"
        limits = ""
        if self.window:
            limits = ", ".join(map(self.number, (self.window.warm, self.window.first, self.window.last)))
        self.body(self.nest.body, 1, inside=not self.window)
        self.write(1, result)
        head = ["def nest(c, state):"]
        head += [f"    {', '.join(f'c{number}' for number in range(len(self.numbers)))}, = c"]
        head += [f"    {name} = 0" for name in counters]
        head += [f"    warm, first, last = {limits}", "    row = -1"] if self.window else []
        return "\n".join(head + self.lines)

    def write(self, depth: int, line: str) -> None:
        self.lines.append("    " * depth + line)

    def number(self, value: int) -> str:
        self.numbers.append(value)
        return f"c{len(self.numbers) - 1}"

    def affine(self, expression: Affine, scale: int = 1, base: int = 0) -> str:
        terms = [f"{_own(name)} * {self.number(factor * scale)}" for name, factor in expression.terms]
        return " + ".join([self.number(base + expression.constant * scale), *terms])

    def body(self, body: tuple[Step, ...], depth: int, inside: bool) -> None:
        """``inside``: whether a loop of rows is around, or rows do not matter."""
        for step in body:
            if isinstance(step, Loop):
                stops = [self.affine(stop) for stop in step.stops]
                stop = stops[0] if len(stops) == 1 else f"min({', '.join(stops)})"
                pace = f", {self.number(step.step)}" if step.step != 1 else ""
                self.write(depth, f"for {_own(step.name)} in range({self.affine(step.start)}, {stop}{pace}):")
                if id(step) in self.rows:
                    self.begin_row(depth + 1)
                self.body(step.body, depth + 1, inside or id(step) in self.rows)
            elif isinstance(step, Guard):
                value = self.affine(step.value)
                self.write(depth, f"if {self.number(step.low)} <= {value} < {self.number(step.high)}:")
                self.body(step.body, depth + 1, inside)
            elif isinstance(step, Let):
                self.write(depth, f"{_own(step.name)} = {self.affine(step.value)}")
            else:
                for touch in step.touches:
                    if not inside:
                        self.write(depth, "if row + 1 >= warm:")
                    self.touch(touch, depth if inside else depth + 1)

    def begin_row(self, depth: int) -> None:
        counters = ", ".join(f"n{number}" for number in range(len(self.nest.buffers)))
        self.write(depth, "row += 1")
        self.write(depth, "if row < warm:")
        self.write(depth + 1, "continue")
        self.write(depth, "if row == first:")
        for line in (*self.action.reset, *(f"n{number} = 0" for number in range(len(self.nest.buffers)))):
            self.write(depth + 1, line)
        self.write(depth, "if row == last:")
        self.write(depth + 1, f"return {counters},")

    def touch(self, touch: Touch, depth: int) -> None:
        buffer = touch.reference.buffer
        number = self.nest.buffers.index(buffer)
        self.write(depth, f"p = {self.affine(touch.reference.offset, buffer.itemsize, buffer.base)}")
        for line in self.action.touch(number):
            self.write(depth, line)
        self.write(depth, f"n{number} += 1")


def _own(name: str) -> str:
    """An index's name, apart from all that actions use."""
    return f"{name}_"
