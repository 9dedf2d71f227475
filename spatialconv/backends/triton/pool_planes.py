"""Pooling with one window, the whole plane, of contiguous tensors: neighbouring threads read neighbouring elements of a
plane, which sliding windows would give to one thread. The order of a sum follows from the plane's size alone."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def whole_planes(
    source, result, places, planes, elements, by,
    MAXIMUM: tl.constexpr, PLANES: tl.constexpr, BLOCK: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """One program: PLANES planes, BLOCK elements of each at a time. ``by``: what sums are divided by."""
    plane = tl.program_id(0).to(tl.int64) * PLANES + tl.arange(0, PLANES)[:, None]
    lane = tl.arange(0, BLOCK)[None, :]
    nothing: tl.constexpr = float("-inf") if MAXIMUM else 0.0
    total = tl.full([PLANES, BLOCK], nothing, SUM)
    where = lane + tl.zeros([PLANES, BLOCK], tl.int64)
    for begin in range(0, elements, BLOCK):
        element = begin + lane
        inside = (plane < planes) & (element < elements)
        value = tl.load(source + plane * elements + element, mask=inside, other=nothing).to(SUM)
        if MAXIMUM:
            better = (value > total) | (value != value)
            total = tl.where(better, value, total)
            where = tl.where(better, element, where)
        else:
            total += value
    plane = tl.reshape(plane, [PLANES])
    if MAXIMUM:
        # The last NaN, else the first of the largest; lanes beyond the plane hold -inf and the largest places.
        is_nan = total != total
        last_nan = tl.max(tl.where(is_nan, where, -1), axis=1)
        largest = tl.max(tl.where(is_nan, float("-inf"), total), axis=1)
        first = tl.min(tl.where(total == largest[:, None], where, elements), axis=1)
        # The element itself, since a maximum may return the other of two zeros.
        chosen = tl.max(tl.where((total == largest[:, None]) & (where == first[:, None]), total, float("-inf")), axis=1)
        combined = tl.where(last_nan >= 0, float("nan"), chosen)
        if places is not None:
            tl.store(places + plane, tl.where(last_nan >= 0, last_nan, first), mask=plane < planes)
    else:
        combined = tl.sum(total, axis=1) / by
    tl.store(result + plane, combined.to(result.dtype.element_ty), mask=plane < planes)
