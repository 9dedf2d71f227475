"""Ways to compute a layer as loop nests: direct in any order of loops and with tiles, through im2col, with a filter of
its own at every position, flattened and fully connected; and pooling.

Loops are named as in problems: ``n g oc oh ow ic kh kw``, where ``oc`` and ``ic`` count within a group; ``oh0`` is the
loop over tiles of ``oh``. A sum stays in the register as long as only loops of the reduction (``ic kh kw``) are inside;
otherwise partial sums go to the output's memory and come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate

from ..problem import Conv2dProblem, Pool2dProblem, Problem
from .nest import (
    Add,
    Affine,
    Buffer,
    Divide,
    Guard,
    Hold,
    Let,
    Load,
    Loop,
    Maximum,
    MultiplyAdd,
    Nest,
    Set,
    Step,
    Store,
    index,
)

ORDERS = {"nchw": "n g oc oh ow ic kh kw", "nhwc": "n oh ow g oc kh kw ic"}
POOL_ORDERS = {"nchw": "n ic oh ow kh kw", "nhwc": "n oh ow ic kh kw"}
TILED = ("n g oh0 oc0 ic oc oh ow kh kw", {"oh": 4, "oc": 8})
SHARINGS = ("tied", "untied")
NAMES = ("nchw", "nhwc", "tiled", "im2col", "untied", "dense", "pool")
_REDUCED = ("ic", "kh", "kw")
_ZERO = Affine()


def named(problem: Problem, name: str, order: str | None = None, tile: Mapping[str, int] | None = None) -> Nest:
    """The nest of one of ``NAMES``; ``nchw`` and ``nhwc`` also choose the layout. Raises ValueError on another name, or
    where the nest does not compute such a problem."""
    if name not in NAMES:
        raise ValueError(f"study: nest: expected one of {', '.join(NAMES)}, got {name!r}")
    if isinstance(problem, Pool2dProblem):
        if name not in ("pool", "nchw", "nhwc"):
            raise ValueError(f"study: nest: expected pool, nchw or nhwc for pooling, got {name!r}")
        return pool(problem if name == "pool" else problem.replace(layout=name), order, name)
    if name in ("nchw", "nhwc"):
        return direct(problem.replace(layout=name), order, tile)
    if name == "tiled":
        sizes = tile or TILED[1]
        kept = [loop for loop in TILED[0].split() if not loop.endswith("0") or loop[:-1] in sizes]
        return direct(problem, order or " ".join(kept), sizes, name="tiled")
    if name == "untied":
        return direct(problem, order, tile, "untied")
    if name == "pool":
        raise ValueError(f"study: nest: expected a pooling problem for {name!r}, got {problem}")
    return im2col(problem) if name == "im2col" else dense(problem)


def direct(
    problem: Conv2dProblem,
    order: str | None = None,
    tile: Mapping[str, int] | None = None,
    sharing: str = "tied",
    name: str | None = None,
) -> Nest:
    """The convolution as it is defined, its loops in any order.

    ``order``: the loops from the outermost to the innermost, all of ``n g oc oh ow ic kh kw``, and ``oc0`` and the like
    for the tiles that ``tile`` gives the size of; tile loops that the order does not name are outermost. ``sharing``
    'untied' gives every output position a filter of its own.
    """
    _check_forward(problem)
    if sharing not in SHARINGS:
        raise ValueError(f"study: sharing: expected one of {', '.join(SHARINGS)}, got {sharing!r}")
    loops, tiles = _ordered(order or ORDERS[problem.layout], tile or {}, "n g oc oh ow ic kh kw")
    x, w, y = laid_operands(problem, sharing)
    inputs, outputs = problem.ic // problem.g, problem.oc // problem.g
    extents = {
        "n": problem.n, "g": problem.g, "oc": outputs, "oh": problem.oh, "ow": problem.ow, "ic": inputs,
        "kh": problem.kh, "kw": problem.kw,
    }  # fmt: skip
    build = _Builder(problem, extents, tiles)
    n, g, oc, oh, ow, ic, kh, kw = map(build.index, "n g oc oh ow ic kh kw".split())
    filters = g * outputs + oc
    sample = x.at(n, g * inputs + ic, index("ih"), index("iw"))
    weight = w.at(*((oh, ow) if sharing == "untied" else ()), filters, ic, kh, kw)
    result = y.at(n, filters, oh, ow)
    kept = build.register_suffix(loops, _REDUCED)
    outside = [name for name in loops[: len(loops) - kept] if name.rstrip("0") in _REDUCED and build.repeats(name)]
    skipping = any(build.guarded(tap) and tap in loops[: len(loops) - kept] for tap in ("kh", "kw"))
    before: tuple[Step, ...] = ()
    start: tuple[Step, ...] = (Load(result),) if outside else (Set(),)
    if outside and not skipping and all(name in ("ic", "ic0") for name in outside):
        start = (Set(), Guard(index(min(outside)), 1, inputs, (Load(result),)))
    elif outside or skipping:
        over = [name for name in ORDERS[problem.layout].split() if name not in _REDUCED]
        before = build.untiled().loops(over, (Set(), Store(result)))
    body = build.nest(loops, (MultiplyAdd(sample, weight),), kept, start, (Store(result),))
    default = "untied" if sharing == "untied" else problem.layout
    return Nest(name or default, problem, (x, w, y), before + body)


def im2col(problem: Conv2dProblem) -> Nest:
    """Every window copied into a matrix of columns, image by image and group by group, then a matrix product.

    NCHW: columns stand as (ic kh kw, oh ow), and the product adds one row of them after another onto a row of the
    output. NHWC: as (oh ow, kh kw ic), and each output is a dot product of two rows.
    """
    _check_forward(problem)
    x, w, y = laid_operands(problem, "tied")
    inputs, outputs = problem.ic // problem.g, problem.oc // problem.g
    axes = ("ic", "kh", "kw", "oh", "ow") if problem.layout == "nchw" else ("oh", "ow", "kh", "kw", "ic")
    sizes = {"ic": inputs, "kh": problem.kh, "kw": problem.kw, "oh": problem.oh, "ow": problem.ow}
    build = _Builder(problem, {**sizes, "n": problem.n, "g": problem.g, "oc": outputs})
    n, g, oc, oh, ow, ic, kh, kw = map(build.index, "n g oc oh ow ic kh kw".split())
    shape = tuple(sizes[axis] for axis in axes)
    columns = Buffer("columns", axes, shape, _dense(shape), problem.itemsize)
    column = columns.at(*map(build.index, axes))
    sample = x.at(n, g * inputs + ic, index("ih"), index("iw"))
    copy = build.loops(axes, (Set(), *build.located((Load(sample),)), Store(column)))
    filters = g * outputs + oc
    weight, result = w.at(filters, ic, kh, kw), y.at(n, filters, oh, ow)
    if problem.layout == "nchw":
        clear = build.loops(("oh", "ow"), (Set(), Store(result)))
        add = build.loops(("oh", "ow"), (Load(result), MultiplyAdd(column), Store(result)))
        product = build.loops(("oc",), clear + build.loops(("ic", "kh", "kw"), (Hold(weight), *add)))
    else:
        dot = build.loops(("kh", "kw", "ic"), (MultiplyAdd(column, weight),))
        product = build.loops(("oh", "ow", "oc"), (Set(), *dot, Store(result)))
    return Nest("im2col", problem, (x, w, y, columns), build.loops(("n", "g"), copy + product))


def dense(problem: Conv2dProblem) -> Nest:
    """The picture flattened and every output connected with every input of its image, as by a Linear layer."""
    _check_forward(problem)
    x, _, y = laid_operands(problem, "tied")
    pixels, outputs = problem.ic * problem.ih * problem.iw, problem.oc * problem.oh * problem.ow
    flat_x = Buffer("input", ("n", "i"), (problem.n, pixels), (pixels, 1), x.itemsize)
    flat_y = Buffer("output", ("n", "o"), (problem.n, outputs), (outputs, 1), y.itemsize)
    w = Buffer("weight", ("o", "i"), (outputs, pixels), (pixels, 1), x.itemsize)
    build = _Builder(problem, {"n": problem.n, "o": outputs, "i": pixels})
    n, o, i = map(build.index, "noi")
    product = build.loops(("i",), (MultiplyAdd(flat_x.at(n, i), w.at(o, i)),))
    body = build.loops(("n", "o"), (Set(), *product, Store(flat_y.at(n, o))))
    return Nest("dense", problem, (flat_x, w, flat_y), body)


def pool(problem: Pool2dProblem, order: str | None = None, name: str = "pool") -> Nest:
    """Max or average pooling, window by window. An average is divided by the window's size without clipping; maxima
    without indices."""
    if problem.op not in ("max_pool2d", "avg_pool2d") or problem.adaptive or problem.indices:
        raise ValueError(f"study: nest: expected max or average pooling with windows of one size, got {problem}")
    _check_filled(problem)
    loops, _ = _ordered(order or POOL_ORDERS[problem.layout], {}, "n ic oh ow kh kw")
    extents = {
        "n": problem.n, "ic": problem.ic, "oh": problem.oh, "ow": problem.ow, "kh": problem.kh, "kw": problem.kw,
    }  # fmt: skip
    build = _Builder(problem, extents)
    kept = build.register_suffix(loops, ("kh", "kw"))
    if not {"kh", "kw"} <= set(loops[len(loops) - kept :]):
        raise ValueError(f"study: order: expected kh and kw innermost in pooling, got {' '.join(loops)}")
    x, y = laid_pool_operands(problem)
    n, ic, oh, ow = map(build.index, ("n", "ic", "oh", "ow"))
    sample, result = x.at(n, ic, index("ih"), index("iw")), y.at(n, ic, oh, ow)
    largest = problem.op == "max_pool2d"
    inner = (Maximum(sample),) if largest else (Add(sample),)
    divisor = problem.divisor or problem.kh * problem.kw
    end = (Store(result),) if largest else (Divide(divisor), Store(result))
    body = build.nest(loops, inner, kept, (Set(lowest=largest),), end)
    return Nest(name, problem, (x, y), body)


class _Builder:
    """Wraps steps in loops, and names the input row and column as soon as the loops around decide them. What would run
    once is no loop, and its index is 0."""

    def __init__(self, problem: Problem, extents: Mapping[str, int], tiles: Mapping[str, int] | None = None) -> None:
        self.problem, self.extents, self.tiles = problem, extents, tiles or {}

    def untiled(self) -> _Builder:
        return _Builder(self.problem, self.extents)

    def repeats(self, name: str) -> bool:
        """Whether the loop runs more than once; a tile's own loop may run less often at the border."""
        axis = name.rstrip("0")
        return self.extents[axis] > (self.tiles[axis] if name != axis else 1)

    def index(self, name: str) -> Affine:
        return index(name) if self.repeats(name) else _ZERO

    def register_suffix(self, loops: list[str], reduced: tuple[str, ...]) -> int:
        """How many of the innermost loops only sum, so that the sum can stay in a register."""
        summing = (name.rstrip("0") in reduced or not self.repeats(name) for name in reversed(loops))
        return sum(accumulate(summing, lambda before, now: before and now))

    def loops(self, names: Iterable[str], body: tuple[Step, ...]) -> tuple[Step, ...]:
        for name in reversed(tuple(names)):
            body = self._loop(name, body)
        return body

    def _loop(self, name: str, body: tuple[Step, ...]) -> tuple[Step, ...]:
        if not self.repeats(name):
            return body
        axis = name.rstrip("0")
        extent = self.extents[axis]
        end = Affine(constant=extent)
        if name != axis:
            return (Loop(name, _ZERO, (end,), self.tiles[axis], body),)
        if axis not in self.tiles or not self.repeats(axis + "0"):
            return (Loop(name, _ZERO, (end,), 1, body),)
        start, size = index(axis + "0"), self.tiles[axis]
        stops = (start + size,) if extent % size == 0 else (start + size, end)
        return (Loop(name, start, stops, 1, body),)

    def nest(
        self, order: list[str], inner: tuple[Step, ...], kept: int, start: tuple[Step, ...], end: tuple[Step, ...]
    ) -> tuple[Step, ...]:
        """All loops of the order around ``inner``; ``start`` and ``end`` stand around the last ``kept`` of them."""
        body, around = inner, set(order)
        for number, name in enumerate(reversed(order)):
            if number == kept:
                body = start + body + end
            body = self._loop(name, self._decided(body, around, name))
            around.discard(name)
        return body if kept < len(order) else start + body + end

    def _decided(self, body: tuple[Step, ...], around: set[str], name: str) -> tuple[Step, ...]:
        """The body of the loop ``name``, with the input row (column) named and guarded where that loop is the second of
        the two that decide it."""
        for out, tap, down in (("ow", "kw", False), ("oh", "kh", True)):
            if name in (out, tap) and {out, tap} <= around:
                body = self._located_axis(body, down)
        return body

    def located(self, body: tuple[Step, ...]) -> tuple[Step, ...]:
        """The body where the input row and column are inside the input, both named just before."""
        return self._located_axis(self._located_axis(body, down=False), down=True)

    def guarded(self, tap: str) -> bool:
        """Whether a window reaches beyond the input along the tap's axis."""
        problem = self.problem
        if tap == "kh":
            last = (problem.oh - 1) * problem.sh + (problem.kh - 1) * problem.dh - problem.ph
            return problem.ph > 0 or last >= problem.ih
        last = (problem.ow - 1) * problem.sw + (problem.kw - 1) * problem.dw - problem.pw
        return problem.pw > 0 or last >= problem.iw

    def _located_axis(self, body: tuple[Step, ...], down: bool) -> tuple[Step, ...]:
        problem = self.problem
        out, tap, place, size, stride, dilation, padding = (
            ("oh", "kh", "ih", problem.ih, problem.sh, problem.dh, problem.ph)
            if down
            else ("ow", "kw", "iw", problem.iw, problem.sw, problem.dw, problem.pw)
        )
        if self.guarded(tap):
            body = (Guard(index(place), 0, size, body),)
        return (Let(place, self.index(out) * stride + self.index(tap) * dilation + -padding), *body)


def _ordered(order: str, tile: Mapping[str, int], known: str) -> tuple[list[str], dict[str, int]]:
    """The order with its tile loops, checked, and the sizes of tiles."""
    axes = known.split()
    for axis, size in tile.items():
        if axis not in axes or size < 1:
            raise ValueError(f"study: tile: expected a size of at least 1 for one of {known}, got {axis}={size}")
    loops = order.split()
    loops = [f"{axis}0" for axis in tile if f"{axis}0" not in loops] + loops
    wanted = sorted(axes + [f"{axis}0" for axis in tile])
    if sorted(loops) != wanted:
        raise ValueError(f"study: order: expected each of {' '.join(wanted)} once, got {order!r}")
    for axis in tile:
        if loops.index(f"{axis}0") > loops.index(axis):
            raise ValueError(f"study: order: expected {axis}0 outside of {axis}, got {order!r}")
    return loops, dict(tile)


def _check_forward(problem: Problem) -> None:
    if problem.op != "conv2d":
        raise ValueError(f"study: nest: expected a forward convolution, got {problem}")
    _check_filled(problem)


def _check_filled(problem: Problem) -> None:
    if problem.empty:
        raise ValueError(f"study: nest: expected a layer with pixels and outputs, got {problem}")


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of elements that lie one behind the other."""
    return tuple(accumulate((1, *reversed(shape[1:])), lambda size, extent: size * extent))[::-1]


def _laid(name: str, axes: tuple[str, ...], shape: tuple[int, ...], layout: str, itemsize: int) -> Buffer:
    """A buffer whose last three axes are channels, rows and columns, in that order (nchw) or channels last (nhwc)."""
    if layout == "nchw":
        return Buffer(name, axes, shape, _dense(shape), itemsize)
    *lead, channels, rows, columns = range(len(shape))
    lying = [*lead, rows, columns, channels]
    strides = dict(zip(lying, _dense(tuple(shape[axis] for axis in lying)), strict=True))
    return Buffer(name, axes, shape, tuple(strides[axis] for axis in range(len(shape))), itemsize)


def laid_operands(problem: Conv2dProblem, sharing: str = "tied") -> tuple[Buffer, Buffer, Buffer]:
    layout, itemsize = problem.layout, problem.itemsize
    place = ("oh", "ow") if sharing == "untied" else ()
    copies = (problem.oh, problem.ow) if sharing == "untied" else ()
    return (
        _laid("input", ("n", "ic", "ih", "iw"), problem.input_shape, layout, itemsize),
        _laid("weight", (*place, "oc", "ic", "kh", "kw"), (*copies, *problem.weight_shape), layout, itemsize),
        _laid("output", ("n", "oc", "oh", "ow"), problem.output_shape, layout, itemsize),
    )


def laid_pool_operands(problem: Pool2dProblem) -> tuple[Buffer, Buffer]:
    layout, itemsize = problem.layout, problem.itemsize
    return (
        _laid("input", ("n", "ic", "ih", "iw"), problem.input_shape, layout, itemsize),
        _laid("output", ("n", "ic", "oh", "ow"), problem.output_shape, layout, itemsize),
    )
