"""Functions that are made several times from one source."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType

from numba import njit


def variant(name: str, **options: bool) -> Callable[[FunctionType], Callable]:
    """``njit`` for a function inside a function. The name tells its variants apart: two pieces of cached machine code
    may both be loaded, and what has one name in both is taken for one function."""

    def compiled(function: FunctionType) -> Callable:
        function.__qualname__ = f"{function.__qualname__}.{name}"
        return njit(error_model="numpy", **options)(function)

    return compiled
