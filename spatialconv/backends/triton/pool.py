"""Pooling: which problems the kernels take, which kernel runs each, and how it is cut into programs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...problem import POOL_OPS, Pool2dProblem
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
)

# Loads of a strip up to which the rows of a window are unrolled.
_UNROLLED_LOADS = 64
# Columns up to which a window slides; longer ones are walked in a loop.
_SLIDING_COLUMNS = 64
_BLOCK = 1024


class WindowsKernel(TritonKernel):
    """All pooling, each element written by one program: windows slide along strips, or are walked where their sizes
    differ or one window is the whole plane."""

    name = "windows"
    ops = tuple(POOL_OPS)
    shift_exact = True

    def refuse_geometry(self, problem: Pool2dProblem) -> list[str]:
        return refuse_many_positions(problem)

    def plan(self, problem: Pool2dProblem, context: Context) -> Plan:
        return _PLANS[problem.op](as_windows(problem))


def as_windows(p: Pool2dProblem) -> Pool2dProblem:
    """Adaptive pooling whose windows lie side by side is pooling by windows of one size."""
    if not p.adaptive or p.ih % p.oh or p.iw % p.ow or max(p.ih // p.oh, p.iw // p.ow) > _SLIDING_COLUMNS:
        return p
    kh, kw = p.ih // p.oh, p.iw // p.ow
    return p.replace(adaptive=False, kh=kh, kw=kw, sh=kh, sw=kw, include_pad=False)


def number_types(p: Pool2dProblem) -> dict[str, object]:
    """What offsets inside an image and sums are computed in."""
    types = module("number_types")
    return {"INDEX": types.int64 if exceeds_int32(p, p.ic) else types.int32, "SUM": types.sum_type(p.dtype)}


def common_divisor(p: Pool2dProblem) -> int:
    """What all sums of an average are divided by, 0 where that differs."""
    if p.divisor:
        return p.divisor
    if p.op.startswith("max"):
        return 1
    lengths = []
    for outputs, windows, stride, padding, kernel, size in (
        (p.oh, p.rows(), p.sh, p.ph, p.kh, p.ih),
        (p.ow, p.columns(), p.sw, p.pw, p.kw, p.iw),
    ):
        if p.include_pad and not p.adaptive:
            lengths.append({min(kernel, size + 2 * padding - index * stride) for index in range(outputs)})
        else:
            lengths.append(set(map(len, windows)))
    heights, widths = lengths
    return max(heights.pop() * widths.pop(), 1) if len(heights) == len(widths) == 1 else 0


def strip_tile(p: Pool2dProblem, adjoint: bool, longest: int, itemsize: int = 0) -> Tile:
    """``itemsize``: of the widest tensor that is loaded, where that is not the problem's own."""
    along, across = axes(p)
    strip = strip_of(along, adjoint, longest)
    sizes = (along.input, across.input) if adjoint else (along.output, across.output)
    phases = across.stride if adjoint else 1
    return tile_for(p.layout == "nhwc", itemsize or p.itemsize, p.n * p.ic, p.ic, *sizes, strip, phases)


def launch_strips(p: Pool2dProblem, function: Callable, adjoint: bool, tile: Tile, constants: dict) -> Launch:
    along, across = axes(p)
    inputs, outputs = (along.input, across.input), (along.output, across.output)
    source, result = (outputs, inputs) if adjoint else (inputs, outputs)
    channels_last = p.layout == "nhwc"
    programs = tile.programs(p.n, p.ic, *result, across.stride if adjoint else 1, channels_last)
    constants = {
        **along.constants("U"), **across.constants("V"), **constants,
        "CHANNELS_LAST": channels_last, **tile.constants(), **number_types(p),
    }  # fmt: skip
    integers = (p.n, p.ic // tile.vector, *source, *result)
    return Launch(function, (programs,), integers, used(function, constants), tile.num_warps, num_stages=1)


def used(function: Callable, constants: dict[str, object]) -> dict[str, object]:
    """Those of the constants that the kernel has."""
    return {name: constants[name] for name in function.arg_names if name in constants}


def windows_constants(p: Pool2dProblem, along: Axis, across: Axis, tile: Tile) -> dict[str, object]:
    columns = (tile.strip - 1) * along.stride + (along.kernel - 1) * along.dilation + 1
    return {
        "MAXIMUM": p.op == "max_pool2d", "DIVISOR": common_divisor(p), "INCLUDE_PAD": p.include_pad,
        "UNROLL": columns * across.kernel <= _UNROLLED_LOADS,
    }  # fmt: skip


def forward_launch(p: Pool2dProblem) -> Launch:
    if one_plane(p):
        return launch_planes(p)
    if p.adaptive:
        return launch_adaptive(p, module("pool_adaptive").adaptive_windows, False)
    if p.indices or p.offsets:
        # A place beside each maximum takes registers that a longer strip would need.
        tile = strip_tile(p, False, 4)
        return launch_strips(p, module("max_pool_indexed").indexed_windows, False, tile, {"OFFSETS": p.offsets})
    tile = strip_tile(p, False, longest_strip(p))
    return launch_strips(p, module("pool_windows").windows, False, tile, windows_constants(p, *axes(p), tile))


def longest_strip(p: Pool2dProblem) -> int:
    """The longest strip that registers hold: loads of windows that share no column are all under way together, and so
    are those of columns that are walked in a loop."""
    along, across = axes(p)
    apart = along.stride >= along.kernel * along.dilation
    walked = across.kernel * along.kernel > _UNROLLED_LOADS
    if p.dtype == "f64" or apart or (walked and p.layout == "nchw"):
        return 4
    return 5 if walked else 8


def forward_plan(p: Pool2dProblem) -> Plan:
    """The largest or the average, and where the largest stood when the problem asks for it."""
    launch, layout, maximum, placed = forward_launch(p), p.layout, p.op == "max_pool2d", p.indices or p.offsets
    takes_places = "places" in launch.function.arg_names
    kind = torch.uint8 if p.offsets else torch.int64

    def run(input: Tensor) -> object:
        result = new_result(input, p)
        places = new_result(input, p, kind) if placed else None
        launch(dense(input, layout), result, *((places,) if takes_places else ()))
        return (result, places) if maximum else result

    return run


def one_plane(p: Pool2dProblem) -> bool:
    """Whether the one window is the whole plane, in memory without a gap."""
    whole = p.rows() == [range(p.ih)] and p.columns() == [range(p.iw)]
    return p.layout == "nchw" and not p.offsets and whole and p.ih * p.iw > 1


def launch_planes(p: Pool2dProblem) -> Launch:
    elements, planes = p.ih * p.iw, p.n * p.ic
    block = min(power_of_two(elements), _BLOCK)
    together = min(power_of_two(planes), max(1, _BLOCK // block))
    constants = {
        "MAXIMUM": p.op == "max_pool2d", "PLANES": together, "BLOCK": block, "SUM": number_types(p)["SUM"],
    }  # fmt: skip
    integers = (planes, elements, common_divisor(p))
    return Launch(module("pool_planes").whole_planes, (ceil_div(planes, together),), integers, constants, 4, 1)


def adaptive_tile(p: Pool2dProblem, adjoint: bool) -> Tile:
    along, across = axes(p)
    sizes = (along.input, across.input) if adjoint else (along.output, across.output)
    return tile_for(p.layout == "nhwc", p.itemsize, p.n * p.ic, p.ic, *sizes, 1, 1)


def launch_adaptive(p: Pool2dProblem, function: Callable, adjoint: bool) -> Launch:
    tile, channels_last = adaptive_tile(p, adjoint), p.layout == "nhwc"
    inputs, outputs = (p.ih, p.iw), (p.oh, p.ow)
    source, result = (outputs, inputs) if adjoint else (inputs, outputs)
    swapped = p.replace(ih=p.oh, iw=p.ow, oh=p.ih, ow=p.iw) if adjoint else p
    taps = max(map(len, swapped.rows())), max(map(len, swapped.columns()))
    constants = {
        "MAXIMUM": p.op.startswith("max"), "CHANNELS_LAST": channels_last, **tile.constants(),
        # Two loads at a time make ptxas spill, and hide little.
        "TOGETHER": min(power_of_two(taps[1]), 8) if taps[1] > 2 else 1, **number_types(p),
    }  # fmt: skip
    along, across = reversed(result) if channels_last else result
    programs = tile.programs(p.n, p.ic, along, across, 1, channels_last)
    integers = (p.n, p.ic // tile.vector, *source, *result, *taps)
    return Launch(function, (programs,), integers, constants, tile.num_warps, num_stages=1)


def average_gradient_launch(p: Pool2dProblem) -> Launch:
    if p.adaptive:
        return launch_adaptive(p, module("pool_adaptive").adaptive_adjoint, True)
    constants = {"DIVISOR": common_divisor(p), "INCLUDE_PAD": p.include_pad, "V_PERIOD": axes(p)[1].period}
    tile = strip_tile(p, True, longest_strip(p))
    return launch_strips(p, module("avg_pool_adjoint").spread_averages, True, tile, constants)


def average_gradient_plan(p: Pool2dProblem) -> Plan:
    launch, layout = average_gradient_launch(p), p.layout

    def run(grad_output: Tensor) -> Tensor:
        grad_input = new_result(grad_output, p)
        if p.adaptive:
            launch(dense(grad_output, layout), None, grad_input, None)
        else:
            launch(dense(grad_output, layout), grad_input)
        return grad_input

    return run


def scatter_launches(p: Pool2dProblem) -> tuple[Launch, Launch | None]:
    """The gathering of maxima, and where indices may be of any kind the sums anew."""
    along, across = axes(p)
    if p.adaptive:
        tile, phases = adaptive_tile(p, True), 1
        gather = launch_adaptive(p, module("pool_adaptive").adaptive_adjoint, True)
    else:
        # A vector of int64 indices for 16 bytes of 16-bit gradients would fill the registers.
        tile = strip_tile(p, True, longest_strip(p), 0 if p.offsets else 8)
        phases, constants = across.stride, {"OFFSETS": p.offsets, "V_PERIOD": across.period}
        gather = launch_strips(p, module("max_pool_adjoint").gather_maxima, True, tile, constants)
    programs = tile.programs(p.n, p.ic, along.input, across.input, phases, p.layout == "nhwc")
    return gather, None if p.offsets else launch_anew(p, tile, programs)


def scatter_plan(p: Pool2dProblem) -> Plan:
    layout, (gather, anew) = p.layout, scatter_launches(p)
    programs = gather.grid[0]

    def run(grad_output: Tensor, indices: Tensor) -> Tensor:
        grad_input = new_result(grad_output, p)
        tensors = dense(grad_output, layout), dense(indices, layout), grad_input
        if anew is None:
            gather(*tensors, None)
            return grad_input
        found = torch.empty(programs, dtype=torch.int32, device=grad_output.device)
        gather(*tensors, found)
        anew(*tensors, found)
        return grad_input

    return run


def launch_anew(p: Pool2dProblem, tile: Tile, programs: int) -> Launch:
    """The kernel that sums planes anew where an index was not found in its own window."""
    channels_last = p.layout == "nhwc"
    planes = tile.lanes if channels_last else tile.slots_v
    groups = p.n * ceil_div(p.ic, planes) if channels_last else ceil_div(p.n * p.ic, planes)
    height, width = axes(p) if not channels_last else reversed(axes(p))
    windows = sum(map(bool, p.rows())) * sum(map(bool, p.columns()))
    constants = {
        **height.constants("H"), **width.constants("W"), "ADAPTIVE": p.adaptive, "CHANNELS_LAST": channels_last,
        "PLANES": planes, "TOGETHER": 64, "BLOCK": max(1, _BLOCK // planes), "SUM": number_types(p)["SUM"],
    }  # fmt: skip
    integers = (p.n, p.ic, p.oh, p.ow, p.ih, p.iw, programs // groups, windows)
    return Launch(module("max_pool_adjoint").sum_anew, (groups,), integers, constants, 4, num_stages=1)


def gather_launch(p: Pool2dProblem) -> Launch:
    channels_last = p.layout == "nhwc"
    height, width = axes(p) if not channels_last else reversed(axes(p))
    constants = {
        **height.constants("H"), **width.constants("W"), "OFFSETS": p.offsets, "ADAPTIVE": p.adaptive,
        "CHANNELS_LAST": channels_last, "BLOCK": _BLOCK, "INDEX": number_types(p)["INDEX"],
    }  # fmt: skip
    programs = p.n * ceil_div(p.ic * p.oh * p.ow, _BLOCK)
    integers = (p.n, p.ic, p.ih, p.iw, p.oh, p.ow)
    return Launch(module("max_pool_gather").gather, (programs,), integers, constants, 4, num_stages=1)


def gather_plan(p: Pool2dProblem) -> Plan:
    launch, layout = gather_launch(p), p.layout

    def run(input: Tensor, indices: Tensor) -> Tensor:
        result = new_result(input, p)
        launch(dense(input, layout), dense(indices, layout), result)
        return result

    return run


_PLANS: dict[str, Callable[[Pool2dProblem], Plan]] = {
    "max_pool2d": forward_plan,
    "avg_pool2d": forward_plan,
    "max_pool2d_scatter": scatter_plan,
    "max_pool2d_gather": gather_plan,
    "avg_pool2d_grad_input": average_gradient_plan,
}
KERNELS = (WindowsKernel(),)
