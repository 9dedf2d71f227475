"""On a GPU, which backend's kernel is asked first for a problem, where measurements contradict the table's order.

From `benchmarks/results/nvidia-h200/`, bfloat16 and float16 in channels_last, time of the CUDA kernel over Triton's:
pooling 1.5 to 6; depthwise, in bfloat16 alone, 1.1 to 2.9, strided weight gradients 0.7 to 2.3; fewer than 8 input
channels 1.1 to 4.4; fewer than 128 input or output channels, forward and grad_input, 0.8 to 5.0, of 46 rows 8 below 1.
Of more channels, and in the other weight gradients, nearly every ratio is below 1. Grouped convolutions, other dtypes
and layouts were not measured: there the table stands.
"""

from __future__ import annotations

from .problem import Conv2dProblem, Problem

_STEM = 8
_NARROW = 128


def asked_first(problem: Problem) -> tuple[str, ...]:
    """The kernels that are asked before the rest of the table."""
    if problem.device != "cuda" or problem.dtype not in ("bf16", "f16") or problem.layout != "nhwc":
        return ()
    if not isinstance(problem, Conv2dProblem):
        return ("triton:windows",)
    if problem.depthwise:
        return ("triton:depthwise",)
    if problem.g > 1:
        return ()
    inputs, outputs = problem.ic, problem.oc
    narrow = problem.op != "conv2d_grad_weight" and min(inputs, outputs) < _NARROW
    return ("triton:implicit_gemm",) if narrow or inputs < _STEM else ()
