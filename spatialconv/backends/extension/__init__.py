"""The compiled backend: C++ on CPU tensors, one build of every kernel per instruction-set level.

``direct``     the convolution's own loop nest over a register tile, vectors along channels (nhwc) or width (nchw):
               Georganas et al., "Anatomy of High-Performance Deep Learning Convolutions on SIMD Architectures", 2018.
``gemm``       a matrix product of packed blocks: Goto and van de Geijn, "Anatomy of High-Performance Matrix
               Multiplication", 2008. The im2col matrix exists only as the block being packed: Chetlur et al., "cuDNN:
               Efficient Primitives for Deep Learning", 2014.
``depthwise``  one input channel a group: nothing is summed over channels, so every tap is a multiply-add of rows.
``rows``       pooling first along each row, then over the rows of a window; overlapping windows share the first step.
``planes``     the scatter and the gather by max pooling's indices.
"""

from __future__ import annotations

from ...problem import CONV_OPS
from ..base import Backend
from . import loader
from .kernels import ConvKernel, DepthwiseKernel, GemmKernel, PoolKernel


class Extension(Backend):
    name = "extension"
    kernels = (
        DepthwiseKernel("depthwise", tuple(CONV_OPS)),
        GemmKernel("gemm", tuple(CONV_OPS)),
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
