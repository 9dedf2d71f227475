"""What tensor-core kernels can address: coordinates of 32 bits, and on Hopper what its copy engine reaches by im2col.

An im2col copy walks the pixels between two corners of an image with a step, and takes each at the offset of a tap
(CUDA driver API, ``cuTensorMapEncodeIm2col``; PTX ISA, "Tensors, im2col mode").
"""

from __future__ import annotations

from math import gcd

from ...problem import Conv2dProblem

__all__ = ["refuse_coordinates", "refuse_reach"]

# Corners of a two-dimensional image are signed bytes and offsets of taps unsigned ones, coordinates are of 32 bits.
_CORNERS = range(-128, 128)
_MOST_OFFSET = 255
_MOST_STEP = 8
_MOST_COORDINATES = 2**31 - 1024
# Kernels without the copy engine add two coordinates in 32 bits, and launch a row of blocks for each phase or group.
_MOST_TO_ADD = 2**30 - 1
_MOST_ROWS_OF_BLOCKS = 65535


def refuse_coordinates(problem: Conv2dProblem) -> list[str]:
    """Every reason of a kernel that counts pixels in 32 bits, in words."""
    counted = (
        problem.n * problem.ih * problem.iw,
        problem.n * problem.oh * problem.ow,
        problem.kh * problem.kw * (max(problem.ic, problem.oc) // problem.g + 8),
        max(problem.ic, problem.oc),
        problem.oh * problem.sh + problem.kh * problem.dh + problem.ph,
        problem.ow * problem.sw + problem.kw * problem.dw + problem.pw,
    )
    reasons = []
    if max(counted) > _MOST_TO_ADD:
        reasons.append("counts pixels, and weights of a channel, in 30 bits: there are more")
    phases = min(problem.sh, problem.ih) * min(problem.sw, problem.iw)
    if max(phases, problem.g) > _MOST_ROWS_OF_BLOCKS:
        reasons.append(f"takes at most {_MOST_ROWS_OF_BLOCKS} groups and as many phases of a stride")
    return reasons


def refuse_reach(problem: Conv2dProblem) -> list[str]:
    """Every reason, in words."""
    reasons = []
    by_input = problem.op == "conv2d_grad_input"
    if not by_input and max(problem.sh, problem.sw) > _MOST_STEP:
        reasons.append(f"copies at most every {_MOST_STEP}th pixel, the stride is {problem.sh}x{problem.sw}")
    fits = _phases_fit if by_input else _axis_fits
    rows = fits(problem.ih, problem.oh, problem.kh, problem.sh, problem.ph, problem.dh)
    columns = fits(problem.iw, problem.ow, problem.kw, problem.sw, problem.pw, problem.dw)
    if not (rows and columns):
        reasons.append(
            "copies reach at most 128 pixels outside of an image: kernel, dilation and padding reach further"
        )
    pixels = problem.n * max(problem.oh * problem.ow, problem.ih * problem.iw)
    products = problem.kh * problem.kw * max(problem.ic, problem.oc)
    if max(pixels, products) >= _MOST_COORDINATES:
        reasons.append("counts pixels, and weights of an output channel, in 32 bits: there are more")
    return reasons


def _axis_fits(size: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> bool:
    upper = -padding + (outputs - 1) * stride - (size - 1)
    return -padding in _CORNERS and upper in _CORNERS and (kernel - 1) * dilation <= _MOST_OFFSET


def _phases_fit(size: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> bool:
    """Input positions of one residue by the stride meet the same taps; each residue is a correlation of its own."""
    for residue in range(min(stride, size)):
        taps = [tap for tap in range(kernel) if (residue + padding - tap * dilation) % stride == 0]
        if not taps:
            continue
        lower = (residue + padding - taps[-1] * dilation) // stride
        upper = lower + -(-(size - residue) // stride) - 1 - (outputs - 1)
        offset = (len(taps) - 1) * (dilation // gcd(stride, dilation))
        if lower not in _CORNERS or upper not in _CORNERS or offset > _MOST_OFFSET:
            return False
    return True
