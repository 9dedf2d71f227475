"""How the matrix products are cut into blocks, panels and slabs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor

from ...problem import Conv2dProblem
from ...shapes import dense, dense_strides
from ..allocation import allocator
from ..base import DTYPES, Context, Plan
from . import gemm_fields as f
from .compiler import compiled
from .correlation import Correlation, forward_correlation, gradient_correlations
from .staging import staging_of

# Bytes of packed source values that share the second-level cache with a panel of filters.
_SOURCE_BYTES = 256 << 10
_LINE = 64
# Filters, along each axis, whose sums stay in the second-level cache; bytes of sums that slabs may cost.
_FILTER_BLOCK = 256
_SLAB_BYTES = 16 << 20


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def round_up(a: int, unit: int) -> int:
    return ceil_div(a, unit) * unit


def pitch_of(length: int, itemsize: int) -> int:
    """Elements between packed rows: an odd number of cache lines, so that columns spread over the cache's sets."""
    per_line = _LINE // itemsize
    return (ceil_div(length, per_line) | 1) * per_line


class Tiles:
    """The tile sizes for an element size, as compiled."""

    def __init__(self, itemsize: int) -> None:
        tiles = import_module(".tiles", __package__)
        self.lanes = lanes = import_module(".vectors", __package__).VECTOR_BYTES // itemsize
        self.tall_rows, self.tall_columns = tiles.TALL_ROWS, tiles.TALL_VECTORS * lanes
        self.wide_rows, self.wide_columns = tiles.WIDE_ROWS, tiles.WIDE_VECTORS * lanes
        self.sums = tiles.TALL_ROWS * tiles.WIDE_VECTORS * lanes


def correlating(c: Correlation, dtype: str, threads: int) -> Callable[[int, int, int, int], None]:
    """``run(source, dest, filters, bias)`` on addresses, bias 0 for none."""
    size, tiles = DTYPES[dtype].itemsize, Tiles(DTYPES[dtype].itemsize)
    staging = staging_of(c, size, tiles.lanes, tiles.tall_rows, tiles.wide_columns // tiles.lanes)
    if staging is None:
        return _packing_taps(c, dtype, threads, tiles)
    fields = c.fields()
    for name, value in staging.fields.items():
        fields[getattr(f, name)] = value
    slab = round_up(tiles.sums + staging.size, 16)
    blocks, pixels = c.images * staging.bands, staging.band * c.w.count
    return _launching(c, dtype, threads, tiles, "gemm_staged", [*fields, *staging.offsets], blocks, pixels, slab)


def _packing_taps(c: Correlation, dtype: str, threads: int, tiles: Tiles) -> Callable[[int, int, int, int], None]:
    size, depth, pixels = DTYPES[dtype].itemsize, c.depth, c.pixels
    unit = tiles.tall_rows if c.nhwc else tiles.wide_columns
    in_place = c.nhwc and c.identity and c.source[3] * size % 2048 != 0
    limit = min(max(1, _SOURCE_BYTES // (size * max(depth, 1) * unit)) * unit, round_up(1024, unit))
    # Every thread gets as many blocks as the next, of like size.
    blocks = round_up(ceil_div(pixels, limit), min(threads, max(1, ceil_div(pixels, 2 * unit))))
    block = round_up(ceil_div(pixels, blocks), unit)
    blocks = ceil_div(pixels, block)
    pitch = pitch_of(depth, size) if c.nhwc else block
    held = tiles.tall_rows if in_place else block
    slab = round_up(tiles.sums + (held if c.nhwc else depth) * pitch, 16)
    fields = c.fields()
    fields[f.IDENTITY] = int(c.identity)
    fields[f.IN_PLACE], fields[f.BLOCK], fields[f.PITCH], fields[f.BLOCKS] = int(in_place), block, pitch, blocks
    return _launching(c, dtype, threads, tiles, "gemm", fields, blocks, block, slab)


def _launching(
    c: Correlation, dtype: str, threads: int, tiles: Tiles, module: str, fields: list[int], blocks: int, work: int,
    slab: int,
) -> Callable[[int, int, int, int], None]:  # fmt: skip
    """Filters are packed, then ``correlate`` of a module runs ``blocks`` of ``work`` pixels for every group and panel
    of filters, on ``slab`` elements of memory for a thread."""
    element, depth = DTYPES[dtype], c.depth
    pack, correlate = compiled("gemm", "pack_weights", dtype), compiled(module, "correlate", dtype)
    width = tiles.tall_columns if c.nhwc else tiles.wide_rows
    panels = c.groups * ceil_div(c.dest_channels, width)
    filters_size = round_up(panels * depth * width, 16)
    tasks = blocks * panels
    slabs = max(1, min(threads, tasks, tasks * work * width * max(depth, 1) // 65536))
    fields[f.TASKS], fields[f.SLABS], fields[f.SLAB_SIZE] = tasks, slabs, slab
    template = (ctypes.c_int64 * len(fields))(*fields)
    grain = 1 if slabs > 1 else panels

    def run(source: int, dest: int, filters: int, bias: int) -> None:
        workspace = torch.empty(filters_size + slabs * slab, dtype=element)
        values = type(template).from_buffer_copy(template)
        address, packed = ctypes.addressof(values), workspace.data_ptr()
        values[f.FILTERS], values[f.WORK] = filters, packed
        pack.run(panels, grain, address)
        values[f.SOURCE], values[f.DEST], values[f.FILTERS], values[f.BIAS] = source, dest, packed, bias
        values[f.WORK] = packed + filters_size * element.itemsize
        correlate.run(slabs, 1, address)

    return run


def forward_plan(problem: Conv2dProblem, context: Context) -> Plan:
    run = correlating(forward_correlation(problem), problem.dtype, context.threads)
    layout = problem.layout
    allocate = allocator(problem.output_shape, layout, DTYPES[problem.dtype])

    def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        input, weight = dense(input, layout), dense(weight, layout)
        bias = bias if bias is None else bias.contiguous()
        output = allocate(input)
        run(input.data_ptr(), output.data_ptr(), weight.data_ptr(), 0 if bias is None else bias.data_ptr())
        return output

    return conv2d


def grad_input_plan(problem: Conv2dProblem, context: Context) -> Plan:
    phases = [correlating(c, problem.dtype, context.threads) for c in gradient_correlations(problem)]
    layout = problem.layout
    allocate = allocator(problem.input_shape, layout, DTYPES[problem.dtype])

    def conv2d_grad_input(grad_output: Tensor, weight: Tensor) -> Tensor:
        grad_output, weight = dense(grad_output, layout), dense(weight, layout)
        grad_input = allocate(weight)
        for run in phases:
            run(grad_output.data_ptr(), grad_input.data_ptr(), weight.data_ptr(), 0)
        return grad_input

    return conv2d_grad_input


def grad_weight_plan(problem: Conv2dProblem, context: Context) -> Plan:
    c, dtype, threads = forward_correlation(problem), problem.dtype, context.threads
    element = DTYPES[dtype]
    size, tiles = element.itemsize, Tiles(element.itemsize)
    accumulate, finish = (
        compiled("gemm_grad_weight", "accumulate", dtype),
        compiled("gemm_grad_weight", "finish", dtype),
    )
    depth, pixels = c.depth, c.pixels
    depth_unit = tiles.wide_columns if c.nhwc else tiles.tall_rows
    channel_unit = tiles.wide_rows if c.nhwc else tiles.tall_columns
    wanted = ceil_div(threads, c.groups)
    channel_blocks = ceil_div(c.dest_channels, _FILTER_BLOCK)
    channel_block = round_up(ceil_div(c.dest_channels, channel_blocks), channel_unit)
    channel_blocks = ceil_div(c.dest_channels, channel_block)
    filter_bytes = depth * c.dest_channels * size
    # Slabs of pixels only where there are many of them for few filters.
    slabs = min(wanted, max(1, _SLAB_BYTES // filter_bytes)) if pixels >= 1024 * wanted else 1
    depth_blocks = round_up(ceil_div(depth, _FILTER_BLOCK), ceil_div(wanted, slabs))
    depth_block = round_up(max(ceil_div(depth, depth_blocks), depth_unit), depth_unit)
    depth_blocks = ceil_div(depth, depth_block)
    if slabs == 1 and channel_blocks * depth_blocks < wanted:
        slabs = min(ceil_div(wanted, channel_blocks * depth_blocks), ceil_div(pixels, 256))
    slab_pixels = ceil_div(pixels, slabs)
    slabs = ceil_div(pixels, slab_pixels)
    blocks = c.groups * channel_blocks * depth_blocks
    fitting = _SOURCE_BYTES // ((depth_block + channel_block) * size)
    block = min(slab_pixels, min(max(fitting // 32 * 32, 64), 512))
    pitch = pitch_of(depth_block if c.nhwc else block, size)
    sums_pitch = pitch_of(depth_block if c.nhwc else channel_block, size)
    sums_size = round_up((channel_block if c.nhwc else depth_block) * sums_pitch, 16)
    grads_at = round_up((block if c.nhwc else depth_block) * pitch, 16)
    share_size = grads_at + round_up(block * (tiles.wide_rows if c.nhwc else tiles.tall_columns), 16)
    tasks = blocks * slabs
    shares = max(1, min(threads, tasks, tasks * slab_pixels * depth_block * channel_block // 65536))

    fields = c.fields()
    for name, value in {
        "BLOCK": block, "BLOCKS": blocks, "PITCH": pitch, "CHANNEL_BLOCK": channel_block, "TASKS": tasks,
        "CHANNEL_BLOCKS": channel_blocks, "DEPTH_BLOCK": depth_block, "DEPTH_BLOCKS": depth_blocks, "SLABS": slabs,
        "SLAB_PIXELS": slab_pixels, "SUMS_PITCH": sums_pitch, "SUMS_SIZE": sums_size, "SLAB_SIZE": share_size,
        "GRADS_AT": grads_at, "SHARES": shares,
    }.items():  # fmt: skip
        fields[getattr(f, name)] = value
    kind = ctypes.c_int64 * f.COUNT
    shape, layout = problem.weight_shape, problem.layout
    steps = dense_strides(shape, layout)
    finish_grain = 1 if shares > 1 else blocks

    def conv2d_grad_weight(grad_output: Tensor, input: Tensor) -> Tensor:
        grad_output, input = dense(grad_output, layout), dense(input, layout)
        grad_weight = torch.empty(depth * problem.oc, dtype=element)
        workspace = torch.empty(tasks * sums_size + shares * share_size, dtype=element)
        values = kind(*fields)
        values[f.SOURCE], values[f.DEST] = input.data_ptr(), grad_output.data_ptr()
        values[f.FILTERS], values[f.WORK] = grad_weight.data_ptr(), workspace.data_ptr()
        address = ctypes.addressof(values)
        accumulate.run(shares, 1, address)
        finish.run(blocks, finish_grain, address)
        return grad_weight.as_strided(shape, steps)

    return conv2d_grad_weight
