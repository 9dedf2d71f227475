"""Forward and input-gradient convolutions as one thing: a correlation of a source image with a list of taps, written to
a regular grid of destination pixels.

Along an axis, grid position b of ``count`` lies at destination coordinate origin + b * spacing, and its tap j reads
source coordinate b * stride + offset + j * shift with filter coordinate first + j * step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...problem import Conv2dProblem
from ...shapes import dense_strides
from . import gemm_fields as f


@dataclass(frozen=True)
class Axis:
    taps: int
    first: int
    step: int
    offset: int
    shift: int
    stride: int
    source: int
    origin: int
    spacing: int
    count: int
    dest: int

    @property
    def identity(self) -> bool:
        """Whether every grid position meets one tap and keeps its place."""
        return self.dense and (self.taps, self.offset, self.stride) == (1, 0, 1) and self.count == self.source

    @property
    def dense(self) -> bool:
        """Whether grid positions in order are destination positions in order."""
        return self.spacing == 1 and self.origin == 0 and self.count == self.dest

    @property
    def fields(self) -> list[int]:
        return [
            self.taps, self.first, self.step, self.offset, self.shift, self.stride, self.source, self.origin,
            self.spacing, self.count,
        ]  # fmt: skip


def gradient_axis(k: int, stride: int, pad: int, dilation: int, size: int, outputs: int, residue: int) -> Axis:
    """The taps that meet input coordinates residue, residue + stride, ...: those k with
    stride | residue + pad - k * dilation."""
    met = [tap for tap in range(k) if (residue + pad - tap * dilation) % stride == 0]
    first = met[0] if met else 0
    step = met[1] - met[0] if len(met) > 1 else 1
    return Axis(
        len(met), first, step, (residue + pad - first * dilation) // stride, -(step * dilation // stride), 1, outputs,
        residue, stride, (size - residue - 1) // stride + 1, size,
    )  # fmt: skip


@dataclass(frozen=True)
class Correlation:
    """``weight`` are the strides of the filters: group, destination channel, source channel, row, column."""

    nhwc: bool
    images: int
    groups: int
    source_channels: int
    dest_channels: int
    h: Axis
    w: Axis
    source: tuple[int, ...]
    dest: tuple[int, ...]
    weight: tuple[int, ...]

    @property
    def depth(self) -> int:
        """How many products make one destination value, in the order (tap, source channel)."""
        return self.h.taps * self.w.taps * self.source_channels

    @property
    def pixels(self) -> int:
        return self.images * self.h.count * self.w.count

    @property
    def identity(self) -> bool:
        return self.h.identity and self.w.identity

    def flattened(self) -> Correlation:
        """Where every pixel keeps its place, an image is one long row."""
        if not self.identity:
            return self
        length = self.h.count * self.w.count
        row = replace(self.w, source=length, count=length, dest=length)
        return replace(self, h=replace(self.h, source=1, count=1, dest=1), w=row)

    def fields(self) -> list[int]:
        """The context of the kernels but for plan and addresses."""
        values = [0] * f.COUNT
        shape = [int(self.nhwc), self.groups, self.images, self.source_channels, self.dest_channels]
        dense = int(self.h.dense and self.w.dense)
        known = [*shape, *self.h.fields, *self.w.fields, *self.source, *self.dest, *self.weight, dense]
        values[: len(known)] = known
        values[f.CHUNK] = self.source_channels
        return values


def forward_correlation(p: Conv2dProblem) -> Correlation:
    weight = dense_strides(p.weight_shape, p.layout)
    return Correlation(
        p.layout == "nhwc", p.n, p.g, p.ic // p.g, p.oc // p.g,
        Axis(p.kh, 0, 1, -p.ph, p.dh, p.sh, p.ih, 0, 1, p.oh, p.oh),
        Axis(p.kw, 0, 1, -p.pw, p.dw, p.sw, p.iw, 0, 1, p.ow, p.ow),
        dense_strides(p.input_shape, p.layout), dense_strides(p.output_shape, p.layout),
        (p.oc // p.g * weight[0], weight[0], weight[1], weight[2], weight[3]),
    ).flattened()  # fmt: skip


def gradient_correlations(p: Conv2dProblem) -> list[Correlation]:
    """One correlation for each residue of the input coordinates modulo the stride."""
    weight = dense_strides(p.weight_shape, p.layout)
    return [
        Correlation(
            p.layout == "nhwc",
            p.n,
            p.g,
            p.oc // p.g,
            p.ic // p.g,
            gradient_axis(p.kh, p.sh, p.ph, p.dh, p.ih, p.oh, row),
            gradient_axis(p.kw, p.sw, p.pw, p.dw, p.iw, p.ow, column),
            dense_strides(p.output_shape, p.layout),
            dense_strides(p.input_shape, p.layout),
            (p.oc // p.g * weight[0], weight[1], weight[0], weight[2], weight[3]),
        ).flattened()  # fmt: skip
        for row in range(min(p.sh, p.ih))
        for column in range(min(p.sw, p.iw))
    ]
