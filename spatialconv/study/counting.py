"""How often everything is used: multiplications, bytes and reuse of a layer, exact at the borders.

Along one axis a tap meets as many outputs as its reads fall inside the input, and a pixel as many (output, tap) pairs
as read it; a layer's counts are products of the two axes' counts. Nothing is estimated: on data of ones these numbers
are the gradients of the output's sum. Four ways to compute the layer are set side by side:

- tied: one filter for all positions, the convolution itself;
- untied: a filter of its own at every output position, same window;
- dense: the picture flattened, every output connected with every input of its image;
- im2col: tied, but every window is copied into a matrix first, zeros of the padding included, and multiplied whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ..problem import Conv2dProblem, Pool2dProblem, Problem

WAYS = ("tied", "untied", "dense", "im2col")
_FORWARD = ("conv2d", "max_pool2d", "avg_pool2d")


def tap_uses(size: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> tuple[int, ...]:
    """Of every tap along an axis: at how many of the outputs it reads the input and not the padding."""
    uses = []
    for tap in range(kernel):
        offset = tap * dilation - padding
        first, last = max(0, -(offset // stride)), min(outputs - 1, (size - 1 - offset) // stride)
        uses.append(max(0, last - first + 1))
    return tuple(uses)


def window_uses(windows: Sequence[range], size: int) -> tuple[int, ...]:
    """Of every pixel along an axis: how many (output, tap) pairs read it; 0 where it is never read."""
    uses = Counter(place for window in windows for place in window)
    return tuple(uses[place] for place in range(size))


def windows(problem: Problem) -> tuple[list[range], list[range]]:
    """The input rows, and the input columns, that each output row or column reads, without the padding."""
    if isinstance(problem, Pool2dProblem):
        return problem.rows(), problem.columns()
    return (
        _windows(problem.ih, problem.oh, problem.kh, problem.sh, problem.ph, problem.dh),
        _windows(problem.iw, problem.ow, problem.kw, problem.sw, problem.pw, problem.dw),
    )


def _windows(size: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> list[range]:
    found = []
    for output in range(outputs):
        start = output * stride - padding
        first = start if start >= 0 else start + -(start // dilation) * dilation
        found.append(range(first, min(start + dilation * (kernel - 1) + 1, size), dilation))
    return found


@dataclass(frozen=True)
class Way:
    """One way to compute the layer.

    ``macs``: multiplications (of a pooling comparisons or additions) that it executes; ``operations``: twice as many,
    of a pooling as many; ``weights``: elements stored; ``weights_read``: those of them that meet a pixel at all. Bytes
    are what is moved if everything is touched once; im2col's matrix is written and read.
    """

    name: str
    macs: int
    operations: int
    weights: int
    weights_read: int
    weight_uses: tuple[int, int]
    pixel_uses: tuple[int, int]
    input_bytes: int
    weight_bytes: int
    output_bytes: int
    column_bytes: int = 0

    @property
    def bytes(self) -> int:
        return self.input_bytes + self.weight_bytes + self.output_bytes + self.column_bytes

    @property
    def intensity(self) -> float:
        """Operations for every byte moved."""
        return self.operations / self.bytes if self.bytes else 0.0


@dataclass(frozen=True)
class Counts:
    """The counts of one layer. ``rows`` and ``columns``: uses of every pixel along the axis; ``tap_rows`` and
    ``tap_columns``: of every tap, empty for an adaptive pooling, whose windows differ."""

    problem: Problem
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    tap_rows: tuple[int, ...]
    tap_columns: tuple[int, ...]

    @property
    def connections(self) -> int:
        """How many (input channel, filter) pairs a position has: filters times channels of a group."""
        p = self.problem
        return p.oc * (p.ic // p.g) if isinstance(p, Conv2dProblem) else p.ic

    @property
    def macs(self) -> int:
        """Multiplications of a pixel and a weight; of a pooling, comparisons or additions."""
        return self.problem.n * self.connections * sum(self.rows) * sum(self.columns)

    @property
    def slots(self) -> int:
        """The same with those that meet padding, as most counters of operations have it."""
        p = self.problem
        if isinstance(p, Pool2dProblem) and p.adaptive:
            return self.macs
        return p.n * self.connections * p.kh * p.kw * p.oh * p.ow

    @property
    def padding_share(self) -> float:
        """The part of the slots that meets padding, 0 to 1."""
        return 1 - self.macs / self.slots if self.slots else 0.0

    @property
    def pixel_factor(self) -> int:
        """Filters that read a pixel of a channel."""
        p = self.problem
        return p.oc // p.g if isinstance(p, Conv2dProblem) else 1

    def pixel_map(self) -> list[list[int]]:
        """Uses of every pixel of a channel, [ih, iw]."""
        return [[self.pixel_factor * row * column for column in self.columns] for row in self.rows]

    def tap_map(self) -> list[list[int]]:
        """Uses of every weight of a filter's channel, or of a pooling's tap in a channel, [kh, kw], in the batch."""
        return [[self.problem.n * row * column for column in self.tap_columns] for row in self.tap_rows]

    @property
    def read_pixels(self) -> int:
        """Pixels of a channel that anything reads."""
        return sum(map(bool, self.rows)) * sum(map(bool, self.columns))

    @property
    def live_taps(self) -> int:
        """Taps of a window that meet a pixel anywhere."""
        return sum(map(bool, self.tap_rows)) * sum(map(bool, self.tap_columns))

    @property
    def column_elements(self) -> int:
        """Elements of im2col's matrix for the whole batch."""
        p = self.problem
        return p.n * p.ic * p.kh * p.kw * p.oh * p.ow

    @property
    def column_factor(self) -> float:
        """How many times larger im2col's matrix is than the input."""
        return self.column_elements / max(prod(self.problem.input_shape), 1)


def count(problem: Problem) -> Counts:
    """The counts of a forward convolution or pooling. Raises ValueError for another pass."""
    if problem.op not in _FORWARD:
        raise ValueError(f"study: count: expected a forward pass, one of {', '.join(_FORWARD)}, got {problem}")
    rows, columns = windows(problem)
    taps: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    if not getattr(problem, "adaptive", False):
        p = problem
        taps = (
            tap_uses(p.ih, p.oh, p.kh, p.sh, p.ph, p.dh),
            tap_uses(p.iw, p.ow, p.kw, p.sw, p.pw, p.dw),
        )
    return Counts(problem, window_uses(rows, problem.ih), window_uses(columns, problem.iw), *taps)


def ways(counts: Counts) -> list[Way]:
    """The ways to compute a convolution, in the order of WAYS; of a pooling the one there is."""
    p, size = counts.problem, counts.problem.itemsize
    read, outputs = p.n * p.ic * counts.read_pixels * size, prod(p.output_shape) * size
    uses = [row * column for row in counts.rows for column in counts.columns]
    pixel = _extent(counts.pixel_factor * value for value in uses)
    if isinstance(p, Pool2dProblem):
        return [Way("window", counts.macs, counts.macs, 0, 0, (0, 0), pixel, read, 0, outputs)]
    tap = _extent(value for row in counts.tap_map() for value in row)
    filters, live = prod(p.weight_shape), counts.connections * counts.live_taps
    places = p.oh * p.ow
    untied, met = filters * places, counts.macs // max(p.n, 1)
    untied_uses = (p.n if met == untied else 0, p.n if met else 0)
    pixels, all_outputs = p.ic * p.ih * p.iw, p.oc * places
    dense, dense_macs = pixels * all_outputs, p.n * pixels * all_outputs
    slot_uses, columns = p.n * places, 2 * counts.column_elements * size
    macs, slots, all_read = counts.macs, counts.slots, p.n * pixels * size
    return [
        Way("tied", macs, 2 * macs, filters, live, tap, pixel, read, live * size, outputs),
        Way("untied", macs, 2 * macs, untied, met, untied_uses, pixel, read, met * size, outputs),
        Way(
            "dense", dense_macs, 2 * dense_macs, dense, dense, (p.n, p.n), (all_outputs, all_outputs), all_read,
            dense * size, outputs,
        ),
        Way(
            "im2col", slots, 2 * slots, filters, filters, (slot_uses, slot_uses), pixel, read, filters * size, outputs,
            columns,
        ),
    ]  # fmt: skip


def stored_intensity(way: Way, itemsize: int) -> float:
    """Operations a byte if every stored weight is moved, also those that only ever meet padding."""
    moved = way.bytes - way.weight_bytes + way.weights * itemsize
    return way.operations / moved if moved else 0.0


def _extent(values) -> tuple[int, int]:
    values = list(values)
    return (min(values), max(values)) if values else (0, 0)
