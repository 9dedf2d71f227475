"""Depthwise convolution: which problems the kernels take, how tensors reach them and how they are cut into programs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...problem import CONV_OPS, Conv2dProblem
from ...shapes import dense
from ..base import Context, Plan
from .kernel import TritonKernel, new_result
from .launch import Launch, module
from .strip_tiles import (
    Axis,
    Tile,
    axes,
    ceil_div,
    exceeds_int32,
    power_of_two,
    refuse_many_positions,
    strip_of,
    tile_for,
    tile_of_one_channel,
)

# Filters of at most so many taps are unrolled whole.
_UNROLLED_TAPS = 9
# Sums of grad_weight that one thread keeps; filters with more taps go row by row.
_KEPT_SUMS = 9
_PROGRAMS = 1024
# The first that divides the row, since a tail costs a selection a product.
_GRAD_WEIGHT_STRIPS = (4, 5, 6, 7, 8, 3)


class DepthwiseKernel(TritonKernel):
    """Convolution with one input channel a group."""

    name = "depthwise"
    ops = tuple(CONV_OPS)
    shift_exact = True

    def refuse_geometry(self, problem: Conv2dProblem) -> list[str]:
        if problem.depthwise:
            return refuse_many_positions(problem)
        return [f"needs one input channel a group and several groups, the problem has ic{problem.ic} g{problem.g}"]

    def plan(self, problem: Conv2dProblem, context: Context) -> Plan:
        return grad_weight_plan(problem) if problem.op == "conv2d_grad_weight" else correlate_plan(problem)


def longest_strip(p: Conv2dProblem, along: Axis, adjoint: bool) -> int:
    """As long as sums and the columns under way fit into registers, with 16 bytes of channels a thread."""
    strided = along.stride > 1 and not adjoint
    return 4 if p.dtype == "f64" or (p.layout == "nhwc" and p.itemsize == 2 and strided) else 8


def correlate_tile(p: Conv2dProblem, along: Axis, across: Axis, adjoint: bool) -> Tile:
    channels = p.ic if adjoint else p.oc
    u_size, v_size = (along.input, across.input) if adjoint else (along.output, across.output)
    strip = strip_of(along, adjoint, longest_strip(p, along, adjoint))
    phases = across.stride if adjoint else 1
    return tile_for(p.layout == "nhwc", p.itemsize, p.n * channels, channels, u_size, v_size, strip, phases)


def correlate_constants(p: Conv2dProblem, along: Axis, across: Axis, adjoint: bool, tile: Tile) -> dict[str, object]:
    unrolled = p.kh * p.kw <= _UNROLLED_TAPS and not (adjoint and across.stride > 1)
    return {
        "MULTIPLIER": p.oc // p.ic, **along.constants("U"), **across.constants("V"),
        "V_PERIOD": across.period if adjoint else 1, "V_PHASES": across.stride if adjoint else 1, "ADJOINT": adjoint,
        "CHANNELS_LAST": p.layout == "nhwc", **tile.constants(), "UNROLL": unrolled, **number_types(p),
    }  # fmt: skip


def number_types(p: Conv2dProblem) -> dict[str, object]:
    """What offsets inside an image and sums are computed in."""
    types = module("number_types")
    return {"INDEX": types.int64 if exceeds_int32(p, p.ic, p.oc) else types.int32, "SUM": types.sum_type(p.dtype)}


def taps_first(weight: Tensor) -> Tensor:
    """[taps, oc]: a vector of channels for every tap."""
    return weight.reshape(weight.shape[0], -1).t().contiguous()


def correlate_launch(p: Conv2dProblem) -> Launch:
    adjoint, channels_last = p.op == "conv2d_grad_input", p.layout == "nhwc"
    along, across = axes(p)
    tile = correlate_tile(p, along, across, adjoint)
    channels = p.ic if adjoint else p.oc
    before, after = (along.output, across.output), (along.input, across.input)
    sizes = (*before, *after) if adjoint else (*after, *before)
    phases = across.stride if adjoint else 1
    return Launch(
        module("depthwise_correlate").correlate,
        (tile.programs(p.n, channels, *sizes[2:], phases, channels_last),),
        (p.n, channels // tile.vector, *sizes),
        correlate_constants(p, along, across, adjoint, tile),
        tile.num_warps,
        num_stages=1,
    )


def correlate_plan(p: Conv2dProblem) -> Plan:
    launch, layout = correlate_launch(p), p.layout
    arranged: Callable[[Tensor], Tensor] = taps_first if layout == "nhwc" else Tensor.contiguous

    def run(source: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        result = new_result(source, p)
        bias = bias if bias is None else bias.contiguous()
        launch(dense(source, layout), arranged(weight), bias, result)
        return result

    return run


def grad_weight_tile(p: Conv2dProblem, along: Axis, across: Axis) -> Tile:
    strip = next((length for length in _GRAD_WEIGHT_STRIPS if along.output % length == 0), min(along.output, 4))
    sizes = along.output, across.output
    return tile_of_one_channel(
        p.layout == "nhwc", p.itemsize, p.n, p.oc, *sizes, strip, kept_rows(p, across) * along.kernel
    )


def kept_rows(p: Conv2dProblem, across: Axis) -> int:
    """Rows of taps that one program of grad_weight sums."""
    return across.kernel if p.kh * p.kw <= _KEPT_SUMS else 1


def grad_weight_constants(p: Conv2dProblem, along: Axis, across: Axis, tile: Tile) -> dict[str, object]:
    constants = {
        "MULTIPLIER": p.oc // p.ic, **along.constants("U"), **across.constants("V"),
        "ROWS": kept_rows(p, across), "CHANNELS_LAST": p.layout == "nhwc",
        **tile.constants(), "SLOTS": tile.slots_u * tile.slots_v, "TAIL": along.output % tile.strip > 0,
        **number_types(p),
    }  # fmt: skip
    del constants["SLOTS_U"], constants["SLOTS_V"]
    return constants


def grad_weight_launches(p: Conv2dProblem) -> tuple[Launch, Launch, int]:
    """The sums of every split, the sum of the splits, and how many there are."""
    channels_last, taps = p.layout == "nhwc", p.kh * p.kw
    along, across = axes(p)
    tile = grad_weight_tile(p, along, across)
    constants = grad_weight_constants(p, along, across, tile)
    strips = p.n * ceil_div(along.output, tile.strip)
    strips *= across.output if channels_last else ceil_div(across.output, tile.lanes)
    blocks = ceil_div(p.oc, tile.lanes) if channels_last else p.oc
    blocks *= ceil_div(across.kernel, constants["ROWS"])
    needed = ceil_div(strips, constants["SLOTS"])
    steps = ceil_div(needed, max(1, min(needed, _PROGRAMS // blocks)))
    splits = ceil_div(needed, steps)
    code = module("depthwise_grad_weight")
    partial = Launch(
        code.partial_sums,
        (blocks * splits,),
        (p.n, p.oc // tile.vector, along.input, across.input, along.output, across.output, steps),
        constants,
        tile.num_warps,
        num_stages=1,
    )
    together = {"TAPS": taps, "TOGETHER": min(power_of_two(splits), 32), "BLOCK": 64, "SUM": constants["SUM"]}
    reduce = Launch(code.add_splits, (ceil_div(p.oc * taps, 64),), (splits, p.oc), together, 4, num_stages=1)
    return partial, reduce, splits


def grad_weight_plan(p: Conv2dProblem) -> Plan:
    layout, sum_type = p.layout, torch.float64 if p.dtype == "f64" else torch.float32
    partial, reduce, splits = grad_weight_launches(p)

    def run(grad_output: Tensor, input: Tensor) -> Tensor:
        workspace = torch.empty(splits * p.kh * p.kw * p.oc, dtype=sum_type, device=input.device)
        grad_weight = new_result(input, p)
        partial(dense(grad_output, layout), dense(input, layout), workspace)
        reduce(workspace, grad_weight)
        return grad_weight

    return run


KERNELS = (DepthwiseKernel(),)
