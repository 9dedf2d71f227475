"""The Numba backend: Python functions compiled on first use, on CPU tensors and torch's own threads."""

from __future__ import annotations

from ..base import Backend
from . import compiler
from .kernels import KERNELS


class Numba(Backend):
    name = "numba"
    kernels = KERNELS

    def unavailable(self) -> str | None:
        return compiler.unavailable()


BACKEND = Numba()
