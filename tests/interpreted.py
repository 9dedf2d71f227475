"""Small kernels that show the traps of Triton's interpreter: ``python interpreted.py mended|upstream TRAP...``.

Prints a JSON object: for each trap named, "" where the kernel computes what a GPU would, else what went wrong.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch
import triton
import triton.language as tl

N = 16
NAN = float("nan")
ARANGE = tl.core.arange


@triton.jit
def add_multiply(a, b, c, out, N: tl.constexpr):
    lanes = tl.arange(0, N)
    product = tl.load(a + lanes) * tl.load(b + lanes)
    tl.store(out + lanes, tl.maximum(product - tl.load(c + lanes), tl.load(a + lanes)))


@triton.jit
def multiply_matrices(a, b, out, PRECISION: tl.constexpr, N: tl.constexpr):
    lanes = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    acc = tl.zeros((N, N), tl.float32)
    tl.store(out + lanes, tl.dot(tl.load(a + lanes), tl.load(b + lanes), acc, input_precision=PRECISION))


@triton.jit
def copy(source, out, N: tl.constexpr):
    lanes = tl.arange(0, N)
    tl.store(out + lanes, tl.load(source + lanes).to(out.dtype.element_ty))


@triton.jit
def select_smaller(a, b, out, N: tl.constexpr):
    lanes = tl.arange(0, N)
    left, right = tl.load(a + lanes), tl.load(b + lanes)
    tl.store(out + lanes, tl.where(left < right, left, right))


@triton.jit
def reduce_rows(source, sums, maxima, N: tl.constexpr):
    rows = tl.arange(0, N)
    tile = tl.load(source + rows[:, None] * N + rows[None, :])
    tl.store(sums + rows, tl.sum(tile, axis=1))
    tl.store(maxima + rows, tl.max(tile, axis=1))


@triton.jit
def fill_with_constant(out, N: tl.constexpr):
    tl.store(out + tl.arange(0, N), tl.full((N,), 1.5, tl.bfloat16))


@triton.jit
def copy_under_mixed_mask(source, out, N: tl.constexpr):
    lanes = tl.arange(0, N)
    mask = (lanes < N) & (tl.program_id(0) >= 0)
    tl.store(out + lanes, tl.load(source + lanes, mask=mask, other=0.0), mask=mask)


@triton.jit
def count(out, times, N: tl.constexpr):
    total = tl.zeros((N,), tl.float32)
    for _ in range(0, times):
        total += 1.0
    tl.store(out + tl.arange(0, N), total)


@triton.jit
def larger_and_clamped(a, b, larger, clamped, N: tl.constexpr):
    lanes = tl.arange(0, N)
    left, right = tl.load(a + lanes), tl.load(b + lanes)
    tl.store(larger + lanes, tl.maximum(left, right))
    tl.store(clamped + lanes, tl.clamp(left, 0.0, 6.0))


@triton.jit
def first_half(source, out, N: tl.constexpr):
    lanes = tl.arange(0, N)
    tl.store(out + lanes, tl.load(source + lanes, mask=lanes < N // 2))


@triton.jit
def copy_from_program(source, out, N: tl.constexpr):
    lanes = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out + lanes, tl.load(source + lanes))


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float32).to(dtype)


def expect(got: torch.Tensor, want: torch.Tensor) -> None:
    if not torch.equal(got.nan_to_num(nan=-77.0), want.nan_to_num(nan=-77.0)):
        raise ValueError(f"expected {want.flatten()[:4].tolist()}, got {got.flatten()[:4].tolist()}")


def expect_index_error(kernel, grid: tuple[int], *args: torch.Tensor) -> None:
    try:
        kernel[grid](*args, N=N)
    except IndexError as error:
        if f"program ({grid[0] - 1}, 0, 0)" not in str(error):
            raise ValueError(f"the program is not named: {error}") from error
        return
    raise ValueError("no error")


def bfloat16_arithmetic() -> None:
    a, b, c = random(3, N, dtype=torch.bfloat16)
    out = torch.empty_like(a)
    add_multiply[(1,)](a, b, c, out, N=N)
    expect(out, torch.maximum(a * b - c, a))


def bfloat16_dot() -> None:
    a, b = random(2, N, N, dtype=torch.bfloat16)
    out = torch.empty(N, N)
    multiply_matrices[(1,)](a, b, out, PRECISION="ieee", N=N)
    if (out - a.float() @ b.float()).abs().max() > 1e-4:
        raise ValueError(f"error {(out - a.float() @ b.float()).abs().max():.2g}")


def float32_to_bfloat16_and_back() -> None:
    source = random(N) * torch.logspace(-39, 38, N)
    source[:4] = torch.tensor([NAN, float("inf"), -float("inf"), 1.00390625])
    narrow, wide = torch.empty(N, dtype=torch.bfloat16), torch.empty(N)
    copy[(1,)](source, narrow, N=N)
    expect(narrow, source.bfloat16())
    copy[(1,)](narrow, wide, N=N)
    expect(wide, narrow.float())


def float64_to_bfloat16() -> None:
    source, out = random(N).double(), torch.empty(N, dtype=torch.bfloat16)
    copy[(1,)](source, out, N=N)
    expect(out, source.bfloat16())


def integer_to_bfloat16() -> None:
    source, out = torch.arange(N), torch.empty(N, dtype=torch.bfloat16)
    copy[(1,)](source, out, N=N)
    expect(out, source.bfloat16())


def bfloat16_comparison() -> None:
    a, b = random(2, N, dtype=torch.bfloat16)
    out = torch.empty_like(a)
    select_smaller[(1,)](a, b, out, N=N)
    expect(out, torch.minimum(a, b))


def bfloat16_reduction() -> None:
    source = random(N, N, dtype=torch.bfloat16)
    sums, maxima = torch.empty(2, N, dtype=torch.bfloat16)
    reduce_rows[(1,)](source, sums, maxima, N=N)
    expect(maxima, source.amax(1))
    if (sums.float() - source.float().sum(1)).abs().max() > 0.05:
        raise ValueError(f"error {(sums.float() - source.float().sum(1)).abs().max():.2g}")


def bfloat16_constant() -> None:
    out = torch.empty(N, dtype=torch.bfloat16)
    fill_with_constant[(1,)](out, N=N)
    expect(out, torch.full_like(out, 1.5))


def mask_of_block_and_scalar() -> None:
    source, out = random(N), torch.empty(N)
    copy_under_mixed_mask[(1,)](source, out, N=N)
    expect(out, source)


def range_of_runtime_value() -> None:
    out = torch.empty(N)
    count[(1,)](out, 3, N=N)
    expect(out, torch.full_like(out, 3))


def dot_in_tf32() -> None:
    a, b = random(2, N, N)
    exact, cut = torch.empty(2, N, N)
    multiply_matrices[(1,)](a, b, exact, PRECISION="ieee", N=N)
    multiply_matrices[(1,)](a, b, cut, PRECISION="tf32", N=N)
    error, limit = (cut - exact).abs().max().item(), 2.0**-9 * (a.abs() @ b.abs()).max().item()
    if not 1e-5 < error < limit:
        raise ValueError(f"error {error:.2g}")


def maximum_of_number_and_nan() -> None:
    a, b = random(2, N)
    a[0] = b[1] = NAN
    larger, clamped = torch.empty(2, N)
    larger_and_clamped[(1,)](a, b, larger, clamped, N=N)
    expect(larger, torch.fmax(a, b))
    expect(clamped, torch.fmin(torch.fmax(a, torch.zeros(N)), torch.full((N,), 6.0)))


def masked_lane_without_other() -> None:
    source, out = torch.zeros(N), torch.empty(N)
    first_half[(1,)](source, out, N=N)
    expect(out, torch.cat([torch.zeros(N // 2), torch.full((N // 2,), NAN)]))


def load_out_of_bounds() -> None:
    """The source is a view: what lies behind it is allocated, and unmended the load goes unnoticed."""
    expect_index_error(copy_from_program, (2,), torch.zeros(3 * N)[: N + 1], torch.empty(2 * N))


def load_from_another_tensor() -> None:
    """What lies behind the source is the output."""
    both = torch.zeros(3 * N)
    expect_index_error(copy_from_program, (2,), both[:N], both[N:])


def store_out_of_bounds() -> None:
    expect_index_error(copy_from_program, (2,), torch.zeros(2 * N), torch.empty(3 * N)[: N + 1])


def language_after_a_launch() -> None:
    """tl.sum is a device function, whose call patches triton.language.core."""
    reduce_rows[(1,)](random(N, N), *torch.empty(2, N), N=N)
    if tl.core.arange is not ARANGE:
        raise ValueError("triton.language.core stays patched")


def outcome(name: str) -> str:
    try:
        globals()[name]()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    if sys.argv[1] == "mended":
        from spatialconv.backends.triton import interpreter

        interpreter.mend()
    print(json.dumps({name: outcome(name) for name in sys.argv[2:]}))
