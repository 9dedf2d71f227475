"""The Numba backend: Python functions compiled on first use, on CPU tensors and torch's own threads."""

from __future__ import annotations

from ...problem import LOCAL_OPS
from ..base import Backend
from . import compiler
from .kernels import KERNELS
from .untied import LocalKernel


class Numba(Backend):
    name = "numba"
    kernels = (*KERNELS, LocalKernel("local", tuple(LOCAL_OPS)))

    def unavailable(self) -> str | None:
        return compiler.unavailable()


BACKEND = Numba()
