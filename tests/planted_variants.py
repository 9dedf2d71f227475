"""A matrix product compiled as it should be, and in ways that ``ahead.problems`` has to report."""

from __future__ import annotations

import triton
import triton.language as tl

from spatialconv.backends.triton.ahead import Variant


@triton.jit
def multiply(a, b, out, rows, columns, depth, TILE: tl.constexpr, STEP: tl.constexpr):
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    step = tl.arange(0, STEP)
    acc = tl.zeros((TILE, TILE), tl.float32)
    for start in range(0, depth, STEP):
        left = tl.load(a + row[:, None] * depth + (start + step)[None, :], mask=row[:, None] < rows, other=0.0)
        right = tl.load(
            b + column[None, :] * depth + (start + step)[:, None], mask=column[None, :] < columns, other=0.0
        )
        acc = tl.dot(left, right, acc, input_precision="ieee")
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    tl.store(out + row[:, None] * columns + column[None, :], acc.to(out.dtype.element_ty), mask=inside)


def variant(
    name: str, pointer: str = "*bf16", tile: int = 64, step: int = 64, aligned: bool = True, **options
) -> Variant:
    sizes = ("rows", "columns", "depth")
    return Variant(
        name=name,
        function=multiply,
        signature={**dict.fromkeys(("a", "b", "out"), pointer), **dict.fromkeys(sizes, "i32")},
        constexprs={"TILE": tile, "STEP": step},
        aligned=("a", "b", "out", *sizes) if aligned else (),
        expects=("tensor_core", "warpgroup", "async_copy", "vector16"),
        **options,
    )


@triton.jit
def misspelt(out):
    tl.store(out, nothing_of_that_name)  # noqa: F821


def shipped() -> list[Variant]:
    return [
        variant("good"),
        variant("unaligned", aligned=False),
        variant("too few warps", tile=128, step=32, num_warps=1),
        variant("too many stages", step=128, num_stages=9),
        variant("ieee float32", pointer="*fp32", tile=32, step=32),
        Variant("undefined name", misspelt, {"out": "*fp32"}, {}),
    ]
