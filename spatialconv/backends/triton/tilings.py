"""How an implicit GEMM is cut into programs, op by op, and the launches that follow from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import gcd, prod

from ...problem import Conv2dProblem
from . import launch
from .configs import PROCESSORS, Config
from .launch import Launch

# Rows of tiles that run together.
_RASTER = 8
# With fewer channels than this a step of the sum, or a tile of the weight's gradient, spans several taps.
_FEW_CHANNELS = 16
# A split of grad_weight's sum that is shorter does not pay its share of the second kernel.
_LEAST_STEPS = 4
_SPLITS_AT_ONCE = 8
_ELEMENTS_AT_ONCE = 256


def unit(count: int, itemsize: int) -> int:
    """The largest power of two that divides a count of neighbours, up to the elements of a 16-byte load."""
    return gcd(count, 16 // itemsize)


def blocks(extent: int, block: int) -> int:
    return -(-extent // block)


class Tiling(ABC):
    """A problem as a matrix product. ``plane``: pixels of an image that programs run over; ``sources``, ``targets``:
    channels of a group in the image that is read at several taps and in the other."""

    def __init__(self, problem: Conv2dProblem) -> None:
        p = self.problem = problem
        self.taps = p.kh * p.kw
        self.inputs, self.outputs = p.ic // p.g, p.oc // p.g
        self.sources, self.targets = self.inputs, self.outputs
        self.plane = p.oh * p.ow
        self.pointwise = self.taps == 1 and (p.sh, p.sw, p.ph, p.pw, p.oh, p.ow) == (1, 1, 0, 0, p.ih, p.iw)

    @abstractmethod
    def programs(self, config: Config) -> int:
        """How many programs there are."""

    @abstractmethod
    def depth(self, config: Config) -> int:
        """How much of the sum a program adds up, in whole steps."""

    @abstractmethod
    def launches(self, config: Config, precision: str) -> tuple[Launch, ...]:
        """What has to be launched, in order."""

    @property
    def packed(self) -> bool:
        return self.taps > 1 and self.sources < _FEW_CHANNELS

    @property
    def load_bytes(self) -> int:
        """How wide a load of the image that is read at several taps can be."""
        itemsize = self.problem.itemsize
        if self.problem.layout == "nhwc":
            return unit(self.sources, itemsize) * itemsize
        return unit(self.plane, itemsize) * itemsize if self.pointwise else itemsize

    def constants(self, config: Config, precision: str) -> dict[str, object]:
        """The constants of all three kernels."""
        p = self.problem
        largest = max(
            p.n * p.ih * p.iw, p.n * p.oh * p.ow, p.ic * p.ih * p.iw, p.oc * p.oh * p.ow, prod(p.weight_shape)
        )
        return {
            "KH": p.kh, "KW": p.kw, "POINTWISE": self.pointwise, "IN_UNIT": unit(self.inputs, p.itemsize),
            "OUT_UNIT": unit(self.outputs, p.itemsize), "PLANE_UNIT": unit(self.plane, p.itemsize),
            "NHWC": p.layout == "nhwc", "WIDE": largest >= 2**31 - 2**16, "PACKED": self.packed,
            "PRECISION": precision, "DEPTH": config.depth, "RASTER": _RASTER,
        }  # fmt: skip

    def units(self) -> tuple[int, int, int]:
        """Pixels of a plane, input and output channels of a group, in units of the constants."""
        itemsize = self.problem.itemsize
        return tuple(count // unit(count, itemsize) for count in (self.plane, self.inputs, self.outputs))


class Correlation(Tiling):
    """Rows are pixels of the result, columns its channels within a group; the sum is over taps and channels."""

    phases = 1

    @property
    def taps_met(self) -> int:
        """How many taps a pixel meets at most."""
        return self.taps

    @property
    def pixels(self) -> int:
        return self.problem.n * self.plane

    def programs(self, config: Config) -> int:
        tiles = blocks(self.pixels, config.rows) * blocks(self.targets, config.columns)
        return tiles * self.problem.g * self.phases

    def depth(self, config: Config) -> int:
        if self.packed:
            return blocks(self.taps_met * self.sources, config.depth) * config.depth
        return self.taps_met * blocks(self.sources, config.depth) * config.depth

    def constants(self, config: Config, precision: str) -> dict[str, object]:
        summed = self.taps * self.sources if self.packed else self.sources
        # Each phase of several has its own number of taps.
        even = summed % config.depth == 0 and not (self.packed and self.phases > 1)
        return super().constants(config, precision) | {
            "EVEN": even, "PIXELS": config.rows, "CHANNELS": config.columns,
        }  # fmt: skip


class Forward(Correlation):
    def launches(self, config: Config, precision: str) -> tuple[Launch, ...]:
        p = self.problem
        function = launch.module("conv_forward").conv_forward
        integers = (p.n, p.g, p.ih, p.iw, p.ow, *self.units(), p.sh, p.sw, p.ph, p.pw, p.dh, p.dw)
        constants = self.constants(config, precision) | {"ACTIVATION": "none"}
        return (Launch(function, (self.programs(config),), integers, constants, config.warps, config.stages),)


class GradInput(Correlation):
    """One phase for each residue of the input's rows and columns modulo the stride, with as many tiles each."""

    def __init__(self, problem: Conv2dProblem) -> None:
        super().__init__(problem)
        p = problem
        self.sources, self.targets = self.outputs, self.inputs
        self.phases = min(p.sh, p.ih) * min(p.sw, p.iw)
        self.plane = blocks(p.ih, p.sh) * blocks(p.iw, p.sw)

    @property
    def taps_met(self) -> int:
        """How many taps the pixels of a phase meet at most."""
        p = self.problem
        return blocks(p.kh, p.sh // gcd(p.sh, p.dh)) * blocks(p.kw, p.sw // gcd(p.sw, p.dw))

    def launches(self, config: Config, precision: str) -> tuple[Launch, ...]:
        p = self.problem
        function = launch.module("conv_grad_input").conv_grad_input
        integers = (p.n, p.g, p.ih, p.iw, p.oh, p.ow, *self.units(), p.ph, p.pw)
        constants = self.constants(config, precision) | {
            "SH": p.sh, "SW": p.sw, "DH": p.dh, "DW": p.dw,
            "STEP_H": p.sh // gcd(p.sh, p.dh), "STEP_W": p.sw // gcd(p.sw, p.dw),
        }  # fmt: skip
        return (Launch(function, (self.programs(config),), integers, constants, config.warps, config.stages),)


class GradWeight(Tiling):
    """Rows are output channels of a group, columns its input channels at a tap, or at all taps where they are few."""

    def tiles(self, config: Config) -> int:
        if self.packed:
            columns = blocks(self.taps * self.inputs, config.columns)
        else:
            columns = self.taps * blocks(self.inputs, config.columns)
        return blocks(self.outputs, config.rows) * columns * self.problem.g

    def splits(self, config: Config) -> tuple[int, int]:
        """How many splits of the pixels there are, and of how many steps each but the last."""
        steps = blocks(self.problem.n * self.plane, config.depth)
        wanted = max(1, min(2 * PROCESSORS // self.tiles(config), steps // _LEAST_STEPS))
        each = blocks(steps, wanted)
        return blocks(steps, each), each

    def programs(self, config: Config) -> int:
        return self.tiles(config) * self.splits(config)[0]

    def depth(self, config: Config) -> int:
        return self.splits(config)[1] * config.depth

    def launches(self, config: Config, precision: str) -> tuple[Launch, ...]:
        p = self.problem
        functions = launch.module("conv_grad_weight")
        splits, steps = self.splits(config)
        transposed = p.layout == "nchw" and self.taps > 1
        # One split writes the result itself; several write sums as [oc, kh, kw, ic / g].
        strides = (1, self.taps) if transposed and splits == 1 else (self.inputs, 1)
        integers = (
            p.n, p.g, p.ih, p.iw, p.ow, *self.units(), p.sh, p.sw, p.ph, p.pw, p.dh, p.dw, steps, *strides
        )  # fmt: skip
        constants = self.constants(config, precision) | {"ROWS": config.rows, "COLUMNS": config.columns}
        grid = (self.programs(config),)
        multiply = Launch(functions.conv_grad_weight, grid, integers, constants, config.warps, config.stages)
        if splits == 1:
            return (multiply,)
        size = prod(p.weight_shape)
        constants = {"TRANSPOSED": transposed, "SPLITS": _SPLITS_AT_ONCE, "BLOCK": _ELEMENTS_AT_ONCE}
        grid, integers = (blocks(size, _ELEMENTS_AT_ONCE),), (splits, size, self.taps, self.inputs)
        return multiply, Launch(functions.add_partial_sums, grid, integers, constants, 4, 1)


TILINGS = {"conv2d": Forward, "conv2d_grad_input": GradInput, "conv2d_grad_weight": GradWeight}
