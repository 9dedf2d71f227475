"""The compiled backend: C++ on CPU tensors, one build of every kernel per instruction-set level."""

from __future__ import annotations

from ...problem import CONV_OPS
from ..base import Backend
from . import loader
from .kernels import ConvKernel, DepthwiseKernel, PoolKernel


class Extension(Backend):
    name = "extension"
    kernels = (
        DepthwiseKernel("depthwise", tuple(CONV_OPS)),
        ConvKernel("gemm", tuple(CONV_OPS)),
        ConvKernel("direct", tuple(CONV_OPS)),
        PoolKernel("rows", ("max_pool2d", "avg_pool2d", "avg_pool2d_grad_input")),
        PoolKernel("planes", ("max_pool2d_scatter", "max_pool2d_gather")),
    )

    def unavailable(self) -> str | None:
        return loader.unavailable()

    def level(self) -> str:
        """The instruction-set level in use."""
        return loader.level()


BACKEND = Extension()
