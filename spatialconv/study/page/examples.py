"""What the page starts with: layers and nests worth a look, and what Python's simulator counts for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...problem import Conv2dProblem, Problem
from .. import nests
from ..cache import Level
from ..lru_judge import judge
from ..nest import Nest
from ..nest_data import as_data
from ..shape import read, short
from ..tally import tally
from ..trace import trace

# What the page counts of one nest; beyond it counts only the beginning, and says so.
CAP = 20_000_000
# What Python counts for the page, a few seconds' work.
_MOST = 300_000_000
# Up to here the slow simulator takes less time than compiling the fast one.
_SMALL = 100_000
WAYS = ("tied", "untied", "dense", "im2col")
TOY = (Level("L1", 4, 2, 16), Level("L2", 8, 4, 16))
_SIDE_32 = "1x16x32x32 k=32 3x3 s1 p1 d1"
_TOY = "1x2x6x6 k=2 3x3 s1 p1 d1"


@dataclass(frozen=True)
class Example:
    """A layer, in short notation without its layout, and a way to compute it. ``way``: one of ``WAYS``, tied for
    pooling; ``order``, ``tile``: as for ``nests.direct``. ``levels``: its caches; none: those that the page is made
    for."""

    title: str
    shape: str
    way: str = "tied"
    layout: str = "nchw"
    order: str | None = None
    tile: Mapping[str, int] = field(default_factory=dict)
    levels: tuple[Level, ...] = ()

    @property
    def nest(self) -> Nest:
        problem = read(self.shape).replace(layout=self.layout)
        if not isinstance(problem, Conv2dProblem):
            return nests.pool(problem, self.order)
        if self.way in nests.SHARINGS:
            return nests.direct(problem, self.order, self.tile, self.way)
        return nests.im2col(problem) if self.way == "im2col" else nests.dense(problem)


_TILED_ORDER, _TILE = nests.TILED
EXAMPLES = (
    Example("A toy to step through", _TOY, levels=TOY),
    Example("The toy, untied", _TOY, "untied", levels=TOY),
    Example("The toy, channels last", _TOY, layout="nhwc", levels=TOY),
    Example("Stride 2 steps over pixels", "1x2x7x7 k=2 1x1 s2 p0 d1", levels=TOY),
    Example("Side 32: channels fight for one set", _SIDE_32),
    Example("Side 33: one pixel more, no fight", _SIDE_32.replace("32x32", "33x33")),
    Example("Side 32, channels last", _SIDE_32, layout="nhwc"),
    Example("Side 32, tiled", _SIDE_32, order=_TILED_ORDER, tile=_TILE),
    Example("Side 32, untied", _SIDE_32, "untied"),
    Example("Side 32, im2col", _SIDE_32, "im2col"),
    Example("Groups: every channel alone", "1x16x32x32 k=16 3x3 s1 p1 d1 g16", layout="nhwc"),
    Example("Flattened and dense", "1x4x12x12 k=4 3x3 s1 p1 d1", "dense"),
    Example("Max pooling", "1x16x32x32 max 3x3 s2 p1 d1"),
)


def chosen(problems: Sequence[Problem]) -> list[Example]:
    """Examples of other layers: nchw, nhwc and untied for a convolution, both layouts for a pooling. Raises ValueError
    on what the page cannot show: other passes, element types or kinds of padding."""
    found = []
    for problem in problems:
        text = short(problem.replace(layout="nchw"))
        if text == str(problem.replace(layout="nchw")) or problem.dtype not in ("f32", "f64", "bf16", "f16"):
            raise ValueError(
                "study: page: expected a forward convolution or pooling in f32, f64, bf16 or f16 with symmetric "
                f"padding, got {problem}"
            )
        if problem.empty:
            raise ValueError(f"study: page: expected a layer with at least one output, got {problem}")
        ways = [("tied", "nchw"), ("tied", "nhwc")]
        ways += [("untied", "nchw")] if isinstance(problem, Conv2dProblem) else []
        found += [Example(f"{text}, {way}, {layout}", text, way, layout) for way, layout in ways]
    return found


def check_levels(levels: tuple[Level, ...]) -> None:
    """Raises ValueError where the page could not simulate the caches."""
    if len({level.line for level in levels}) != 1:
        sizes = ", ".join(f"{level.name} {level.line}" for level in levels)
        raise ValueError(f"study: page: expected one size of line for all levels of cache, got {sizes}")


def reference(example: Example, levels: tuple[Level, ...]) -> dict[str, object]:
    """The example as the page reads it, with its nest as data and Python's counts. ``levels``: the caches of examples
    that have none of their own. The counts are absent (None) where there are more accesses than are worth the wait."""
    nest, levels = example.nest, example.levels or levels
    check_levels(levels)
    python = None
    if (accesses := tally(nest).total) <= _MOST:
        counted = judge(nest, levels) if accesses <= _SMALL else trace(nest, levels, kinds=True)
        names = [one.name for one in nest.buffers]
        python = {
            "accesses": counted.accesses,
            "levels": [
                {
                    "name": level.name,
                    "misses": {name: counted.misses[name, level.name] for name in names},
                    **{
                        short_name: {name: counted.kinds[name, level.name, kind] for name in names}
                        for short_name, kind in (
                            ("first", "first touch"),
                            ("capacity", "capacity"),
                            ("conflict", "conflict"),
                        )
                    },
                }
                for level in levels
            ],
        }
    return {
        "title": example.title, "shape": example.shape, "way": example.way, "layout": example.layout,
        "order": example.order, "tile": dict(example.tile), "levels": [level_data(level) for level in levels],
        "nest": as_data(nest), "python": python,
    }  # fmt: skip


def level_data(level: Level) -> dict[str, object]:
    return {"name": level.name, "sets": level.sets, "ways": level.ways, "line": level.line}
