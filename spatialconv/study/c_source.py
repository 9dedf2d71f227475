"""A nest as a C program that stands alone, for tools that watch programs: its buffers lie at the nest's own addresses,
its loops are one function named ``nest``.

Run without arguments it computes on zeros that nothing touched before. With any argument it fills input and weight with
small whole numbers (``value``), and writes the output's memory to its standard output.
"""

from __future__ import annotations

from collections.abc import Iterator

from .lru import extent
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
    Reference,
    Set,
    Statement,
    Step,
)

TYPES = {"f32": ("float", "-__FLT_MAX__"), "f64": ("double", "-__DBL_MAX__")}


def value(number: int) -> int:
    """What the program, told to, puts into element ``number`` of input and weight."""
    return number * 7 % 11 - 5


def c_source(nest: Nest, exact: bool = True) -> str:
    """The program's text. ``exact``: every touch is one load or store, in the nest's order, whatever the compiler's
    flags (elements are volatile); without it a compiler may keep elements in registers and use vectors. Raises
    ValueError for dtypes that C has no type for."""
    if nest.problem.dtype not in TYPES:
        raise ValueError(f"study: C: expected dtype {' or '.join(TYPES)}, got {nest.problem.dtype}")
    kind, _ = TYPES[nest.problem.dtype]
    parameters = ", ".join(f"element *{buffer.name}" for buffer in nest.buffers)
    names = ", ".join(buffer.name for buffer in nest.buffers)
    maps = [f"    element *{one.name} = map({one.base:#x}, {extent(one)});" for one in nest.buffers]
    fills = [
        f"        for (long i = 0; i < {extent(nest.buffer(name))}; i++) {name}[i] = (i * 7 % 11) - 5;"
        for name in ("input", "weight")
        if any(buffer.name == name for buffer in nest.buffers)
    ]
    output = nest.buffer("output")
    lines = [
        f"/* {nest.problem}, nest {nest.name} */",
        *_HEAD.format(type=kind, volatile="volatile " if exact else "").splitlines(),
        f"OUTLINE void nest({parameters}) {{",
        "    real sum = 0, held = 0, first, second;",
        "    (void)held, (void)first, (void)second;",
        *_lines(nest.body, 1, TYPES[nest.problem.dtype][1]),
        "}",
        "",
        "int main(int count, char **words) {",
        "    (void)words;",
        *maps,
        "    if (count > 1) {",
        *fills,
        "    }",
        f"    nest({names});",
        f"    unsigned long elements = {extent(output)};",
        "    return count > 1 && fwrite((void *)output, sizeof(element), elements, stdout) != elements;",
        "}",
        "",
    ]
    return "\n".join(lines)


_HEAD = """\
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

typedef {type} real;
typedef {volatile}real element;

#if defined(__GNUC__) && !defined(__clang__)
#define OUTLINE __attribute__((noipa))
#else
#define OUTLINE __attribute__((noinline))
#endif

static element *map(unsigned long base, unsigned long elements) {{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    void *memory = mmap((void *)base, elements * sizeof(element), PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory != (void *)base) {{
        perror("mmap");
        exit(1);
    }}
    return memory;
}}
"""


def _lines(body: tuple[Step, ...], depth: int, lowest: str) -> Iterator[str]:
    indent = "    " * depth
    for step in body:
        if isinstance(step, Loop):
            ends = " && ".join(f"{step.name} < {_c(stop)}" for stop in step.stops)
            yield f"{indent}for (long {step.name} = {_c(step.start)}; {ends}; {step.name} += {step.step}) {{"
            yield from _lines(step.body, depth + 1, lowest)
            yield f"{indent}}}"
        elif isinstance(step, Guard):
            value = _c(step.value)
            yield f"{indent}if ({step.low} <= {value} && {value} < {step.high}) {{"
            yield from _lines(step.body, depth + 1, lowest)
            yield f"{indent}}}"
        elif isinstance(step, Let):
            yield f"{indent}const long {step.name} = {_c(step.value)};"
        else:
            yield from (indent + line for line in _statement(step, lowest))


def _statement(step: Statement, lowest: str) -> tuple[str, ...]:
    """One statement of C a touch: C leaves open which operand of a product is loaded first."""
    if isinstance(step, Set):
        return (f"sum = {lowest if step.lowest else 0};",)
    if isinstance(step, Load):
        return (f"sum = {_element(step.source)};",)
    if isinstance(step, Hold):
        return (f"held = {_element(step.source)};",)
    if isinstance(step, MultiplyAdd):
        if step.second is None:
            return (f"first = {_element(step.first)};", "sum += first * held;")
        return (f"first = {_element(step.first)};", f"second = {_element(step.second)};", "sum += first * second;")
    if isinstance(step, Add):
        return (f"sum += {_element(step.source)};",)
    if isinstance(step, Maximum):
        return (f"first = {_element(step.source)};", "sum = first > sum ? first : sum;")
    if isinstance(step, Divide):
        return (f"sum /= {step.divisor};",)
    return (f"{_element(step.target)} = sum;",)


def _element(reference: Reference) -> str:
    return f"{reference.buffer.name}[{_c(reference.offset)}]"


def _c(expression: Affine) -> str:
    parts = [name if factor == 1 else f"{name} * {factor}L" for name, factor in expression.terms]
    if expression.constant or not parts:
        parts.append(f"{expression.constant}L")
    return " + ".join(parts)
