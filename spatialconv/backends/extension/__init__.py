"""The compiled backend: C++ on CPU tensors, one build of every kernel per instruction-set level, and CUDA.

``direct``     the convolution's own loop nest over a register tile, vectors along channels (nhwc) or width (nchw):
               Georganas et al., "Anatomy of High-Performance Deep Learning Convolutions on SIMD Architectures", 2018.
``gemm``       a matrix product of packed blocks: Goto and van de Geijn, "Anatomy of High-Performance Matrix
               Multiplication", 2008. The im2col matrix exists only as the block being packed: Chetlur et al., "cuDNN:
               Efficient Primitives for Deep Learning", 2014.
``dots``       as ``gemm``, on the instructions of AMX or AVX-512 that multiply pairs of bfloat16 and add in float:
               Georganas et al., "Tensor Processing Primitives", 2021 (arXiv 2104.05755). None of them has run yet.
``inner``      1x1 filters on few pixels: inner products with the channels where they lie, nothing packed.
``winograd``   3x3 filters in 4/9 of the multiplications, F(2x2, 3x3): Lavin and Gray, "Fast Algorithms for
               Convolutional Neural Networks", 2015 (arXiv 1509.09308), after Winograd, 1980.
               ``winograd4``, F(4x4, 3x3), takes 1/4 and is as exact as operands rounded to tf32. Dilated filters are
               the same among the pixels that a dilation brings together.
``depthwise``  one input channel a group: nothing is summed over channels, so every tap is a multiply-add of rows.
``local``      a filter of its own at every output position, read once for all images, against windows gathered there.
``rows``       pooling first along each row, then over the rows of a window; overlapping windows share the first step.
``planes``     the scatter and the gather by max pooling's indices.

``cuda_wgmma``      implicit GEMM on Hopper's warpgroup instructions: one warp drives its copy engine, two warpgroups
                    multiply.
``cuda_mma``        implicit GEMM on tensor cores, fed by asynchronous copies through swizzled shared memory; in
                    ``cuda_mma_tf32`` float32 operands are rounded to tf32.
``cuda_simt``       implicit GEMM on the ordinary arithmetic units, for every problem.
``cuda_depthwise``  as ``depthwise``, a strip of outputs and a vector of channels or pixels a thread.
``cuda_windows``    pooling, its scatter and its gather, each output by one thread: nothing is added atomically.
"""

from __future__ import annotations

from ...problem import CONV_OPS
from ..base import Backend
from . import cuda_kernels, loader
from .dots import DotsKernel
from .inner import InnerKernel
from .kernels import DepthwiseKernel, DirectKernel, GemmKernel
from .local import LocalKernel
from .pooling import PoolKernel
from .winograd import Winograd4Kernel, WinogradKernel


class Extension(Backend):
    name = "extension"
    kernels = (
        DepthwiseKernel("depthwise", tuple(CONV_OPS)),
        InnerKernel("inner", ("conv2d",)),
        Winograd4Kernel("winograd4", ("conv2d", "conv2d_grad_input")),
        WinogradKernel("winograd", ("conv2d", "conv2d_grad_input")),
        DotsKernel("dots", ("conv2d", "conv2d_grad_input")),
        GemmKernel("gemm", tuple(CONV_OPS)),
        DirectKernel("direct", tuple(CONV_OPS)),
        LocalKernel(),
        PoolKernel("rows", ("max_pool2d", "avg_pool2d", "avg_pool2d_grad_input")),
        PoolKernel("planes", ("max_pool2d_scatter", "max_pool2d_gather")),
        *cuda_kernels.KERNELS,
    )

    def unavailable(self) -> str | None:
        return loader.unavailable()

    def level(self) -> str:
        """The instruction-set level in use."""
        return loader.level()


BACKEND = Extension()
