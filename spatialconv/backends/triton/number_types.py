"""The types kernels compute in."""

from __future__ import annotations

import triton.language as tl

int32, int64 = tl.int32, tl.int64


def sum_type(dtype: str) -> tl.dtype:
    """What sums of a problem's numbers are kept in."""
    return tl.float64 if dtype == "f64" else tl.float32
