"""Two ways to load a vector beside the border of an image, for kernels that are made once of each: ``whole`` where all
of it lies inside, ``bordered`` where ``other`` stands for what lies outside, in the lanes that a mask leaves out."""

from __future__ import annotations

from numba import njit

from .masked import load_where
from .vectors import load


@njit(error_model="numpy")
def whole(here, shift, mask, other):
    return load(here, shift)


@njit(error_model="numpy")
def bordered(here, shift, mask, other):
    return load_where(mask, here, shift, other)
