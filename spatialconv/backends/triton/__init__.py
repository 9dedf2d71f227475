"""The Triton backend: kernels in Python, compiled for the GPU on first use, or interpreted on CPU tensors."""

from __future__ import annotations

from ..base import Backend
from . import depthwise, implicit_gemm, launch, pool


class Triton(Backend):
    name = "triton"
    kernels = (*depthwise.KERNELS, *implicit_gemm.KERNELS, *pool.KERNELS)

    def unavailable(self) -> str | None:
        return launch.unavailable()


BACKEND = Triton()
