"""Suites: the layers of real networks, one problem a line, and the passes that a layer's training runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..problem import Conv2dProblem, Pool2dProblem, Problem, parse

FOLDER = Path(__file__).parent / "suites"
PASSES = ("forward", "grad_input", "grad_weight")
# A layer of more work an image than this runs as one image of half the side on a CPU.
CPU_FLOPS = 4e9


@dataclass(frozen=True)
class Layer:
    """A layer of a suite: ``problem`` is its forward pass; a transposed convolution's is a ``conv2d_grad_input``.
    ``halved``: it runs as one image of half the side."""

    suite: str
    problem: Problem
    count: int = 1
    transposed: bool = False
    halved: bool = False


def names() -> list[str]:
    """The suites that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def parse_line(line: str, suite: str = "") -> Layer | None:
    """The layer on one line of a suite, None for a comment or an empty line; ValueError says what cannot be read."""
    text = line.partition("#")[0].strip()
    if not text:
        return None
    counted = re.search(r"\s\*(\d+)$", text)
    count = int(counted.group(1)) if counted else 1
    text = text[: counted.start()] if counted else text
    problem = parse(text)
    transposed = text.startswith("conv_transpose2d")
    if not transposed and problem.pass_name != "forward":
        raise ValueError(f"suite {suite}: expected a layer's forward pass, got {text!r}")
    if isinstance(problem, Conv2dProblem) and (problem.oh, problem.ow) != _symmetric_sizes(problem):
        raise ValueError(f"suite {suite}: expected a convolution with symmetric padding, got {text!r}")
    return Layer(suite, problem, count, transposed)


def _symmetric_sizes(problem: Conv2dProblem) -> tuple[int, int]:
    plain = problem.replace(oh=0, ow=0)
    return plain.oh, plain.ow


def load(name: str) -> list[Layer]:
    """The layers of a suite of the package, or of a file in the same notation."""
    path = FOLDER / f"{name}.txt"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        raise ValueError(f"suite: expected a file or one of {', '.join(names())}, got {name!r}")
    layers = [parse_line(line, path.stem) for line in path.read_text().splitlines()]
    return [layer for layer in layers if layer is not None]


def fit(layer: Layer, batch: int | None, dtype: str, layout: str, device: str) -> Layer:
    """The layer as it is run: with this batch (None: the suite's), element type, layout and device."""
    problem = layer.problem
    changes: dict[str, object] = {"dtype": dtype, "layout": layout, "device": device}
    if batch is not None:
        changes["n"] = batch
    halved = device == "cpu" and problem.flops() > CPU_FLOPS * max(problem.n, 1)
    if halved:
        changes.update(n=1, ih=problem.ih // 2, iw=problem.iw // 2, oh=0, ow=0)
    if isinstance(problem, Pool2dProblem) and problem.adaptive:
        changes.pop("oh", None)
        changes.pop("ow", None)
    return Layer(layer.suite, problem.replace(**changes), layer.count, layer.transposed, halved)


@dataclass(frozen=True)
class Cell:
    """One pass of a layer as a problem; ``layer`` is the forward problem it belongs to."""

    layer: Problem
    problem: Problem
    pass_name: str
    transposed: bool = False

    @property
    def kind(self) -> str:
        return kind(self.layer, self.transposed)


def pass_names(words: Iterable[str]) -> list[str]:
    """Passes meant by words such as 'backward' or 'all'; ValueError lists the known ones."""
    meaning = {name: (name,) for name in PASSES} | {"backward": PASSES[1:], "all": PASSES}
    chosen: list[str] = []
    for word in words:
        if word not in meaning:
            raise ValueError(f"pass: expected one of {', '.join(meaning)}, got {word!r}")
        chosen += [name for name in meaning[word] if name not in chosen]
    return chosen


def cells(layer: Layer, passes: Iterable[str], indices: bool = False) -> list[Cell]:
    """The problems of a layer's passes; with ``indices`` max pooling also returns indices, as training needs them."""
    found = []
    for name in passes:
        problem = _pass_problem(layer, name, indices)
        if problem is not None:
            found.append(Cell(layer.problem, problem, name, layer.transposed))
    return found


def _pass_problem(layer: Layer, name: str, indices: bool) -> Problem | None:
    problem = layer.problem
    if isinstance(problem, Conv2dProblem):
        if layer.transposed:
            op = {"forward": "conv2d_grad_input", "grad_input": "conv2d"}.get(name, "conv2d_grad_weight")
        else:
            op = problem.op if name == "forward" else f"{problem.op}_{name}"
        forward = name == "forward" and not layer.transposed
        return problem.replace(op=op, bias=problem.bias and forward, activation=problem.activation if forward else None)
    if name == "grad_weight":
        return None
    if name == "forward":
        return problem.replace(indices=indices) if problem.op == "max_pool2d" else problem
    op = {"max_pool2d": "max_pool2d_scatter", "avg_pool2d": "avg_pool2d_grad_input"}[problem.op]
    return problem.replace(op=op, indices=False)


def kind(problem: Problem, transposed: bool = False) -> str:
    """The class that a layer is averaged with, of those in ``goals.txt``: '3x3 s1', 'stem', 'depthwise 7', ..."""
    if isinstance(problem, Pool2dProblem):
        name = f"{problem.op[:3]} pool"
        if (problem.oh, problem.ow) == (1, 1):
            return f"global {name}"
        return f"adaptive {name}" if problem.adaptive else name
    if transposed:
        return "transposed"
    if problem.untied:
        return "untied"
    side = max(problem.kh, problem.kw)
    if problem.depthwise:
        return f"depthwise {side}" if side < 13 else "depthwise 13-31"
    if problem.g > 1:
        return "grouped" if 4 <= problem.ic // problem.g <= 32 else "grouped, few or many channels"
    if problem.ic <= 4:
        return "stem"
    if (problem.kh, problem.kw) == (problem.sh, problem.sw) != (1, 1):
        return "patches"
    if max(problem.dh, problem.dw) > 1:
        return f"{problem.kh}x{problem.kw} dilated"
    return f"{problem.kh}x{problem.kw} s{problem.sh}"
