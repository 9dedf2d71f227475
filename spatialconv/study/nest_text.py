"""A loop nest as text: pseudo-code in Python's words."""

from __future__ import annotations

from collections.abc import Iterator

from .nest import (
    Add,
    Affine,
    Divide,
    Guard,
    Hold,
    Let,
    Load,
    Loop,
    Maximum,
    MultiplyAdd,
    Nest,
    Set,
    Statement,
    Step,
    Vectors,
)


def text(step: Statement) -> str:
    """A statement as a line of pseudo-code."""
    if isinstance(step, Vectors):
        return step.words
    if isinstance(step, Set):
        return "sum = lowest" if step.lowest else "sum = 0"
    if isinstance(step, Load):
        return f"sum = {step.source}"
    if isinstance(step, Hold):
        return f"held = {step.source}"
    if isinstance(step, MultiplyAdd):
        return f"sum += {step.first} * {step.second or 'held'}"
    if isinstance(step, Add):
        return f"sum += {step.source}"
    if isinstance(step, Maximum):
        return f"sum = max(sum, {step.source})"
    if isinstance(step, Divide):
        return f"sum /= {step.divisor}"
    return f"{step.target} = sum"


def pseudocode(nest: Nest) -> str:
    """The nest as indented text in Python's words."""
    return "\n".join(_lines(nest.body, 0))


def _lines(body: tuple[Step, ...], depth: int) -> Iterator[str]:
    indent = "    " * depth
    for step in body:
        if isinstance(step, Loop):
            stop = str(step.stops[0]) if len(step.stops) == 1 else f"min({', '.join(map(str, step.stops))})"
            first = "" if step.start == Affine() and step.step == 1 else f"{step.start}, "
            last = "" if step.step == 1 else f", {step.step}"
            yield f"{indent}for {step.name} in range({first}{stop}{last}):"
            yield from _lines(step.body, depth + 1)
        elif isinstance(step, Guard):
            yield f"{indent}if {step.low} <= {step.value} < {step.high}:"
            yield from _lines(step.body, depth + 1)
        elif isinstance(step, Let):
            yield f"{indent}{step.name} = {step.value}"
        else:
            yield indent + text(step)
