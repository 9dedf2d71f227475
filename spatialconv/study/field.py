"""The receptive field of a network by formula: which pixels an output can see at all, read from its layers.

Along a chain, output o of a layer with stride s, padding p and dilation d reads inputs o*s - p + r*d for its taps r;
put together, output o of a network reads the pixels jump*o + start + offset (Araujo, Norris and Sim, "Computing
receptive fields of convolutional neural networks", Distill 2019; the start moves with dilation only through the
offsets, so that a dilated layer is no special case). The offsets are kept as a mask, in which the holes of dilation
show, and where branches meet they are united. At the border a path may lead through padding, of which there is no map:
``seen`` follows the paths of one output backwards and leaves those out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn

from .steps import EVERYTHING_STEP, SAME, Window, graph_of, name_of, step_of


@dataclass(frozen=True)
class Field:
    """Output (y, x) sees pixel (jump_y*y + start_y + i, jump_x*x + start_x + j) where ``mask[i, j]``. ``everything``:
    every output sees the whole picture, and the rest means nothing."""

    jump: tuple[int, int]
    start: tuple[int, int]
    mask: np.ndarray
    everything: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the box around all that is seen."""
        return self.mask.shape

    @property
    def holes(self) -> int:
        """Pixels of the box that are not seen."""
        return int(self.mask.size - self.mask.sum())

    def centre(self, output: tuple[int, int] = (0, 0)) -> tuple[float, float]:
        """The middle of the box of an output, in pixels."""
        y, x = (
            jump * place + start + (extent - 1) / 2
            for jump, place, start, extent in zip(self.jump, output, self.start, self.size, strict=True)
        )
        return y, x


PIXEL = Field((1, 1), (0, 0), np.ones((1, 1), bool))
EVERYTHING = Field((0, 0), (0, 0), np.ones((1, 1), bool), everything=True)


def windowed(before: Field, window: Window) -> Field:
    """What an output sees through a window over maps whose places see ``before``."""
    if before.everything:
        return before
    steps = [jump * width for jump, width in zip(before.jump, window.dilation, strict=True)]
    extents = [(taps - 1) * step for taps, step in zip(window.kernel, steps, strict=True)]
    rows, columns = before.size
    mask = np.zeros((rows + extents[0], columns + extents[1]), bool)
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            top, left = row * steps[0], column * steps[1]
            mask[top : top + rows, left : left + columns] |= before.mask
    (jump_y, jump_x), (pad_y, pad_x) = before.jump, window.padding
    jump = jump_y * window.stride[0], jump_x * window.stride[1]
    return Field(jump, (before.start[0] - pad_y * jump_y, before.start[1] - pad_x * jump_x), mask)


def united(fields: list[Field]) -> Field:
    """What is seen where maps meet. Raises ValueError where their places lie differently far apart."""
    if any(field.everything for field in fields):
        return EVERYTHING
    if len({field.jump for field in fields}) > 1:
        jumps = ", ".join(str(field.jump) for field in fields)
        raise ValueError(f"maps meet whose places lie {jumps} pixels apart")
    start = tuple(min(field.start[axis] for field in fields) for axis in (0, 1))
    end = tuple(max(field.start[axis] + field.size[axis] for field in fields) for axis in (0, 1))
    mask = np.zeros((end[0] - start[0], end[1] - start[1]), bool)
    for field in fields:
        top, left = field.start[0] - start[0], field.start[1] - start[1]
        mask[top : top + field.size[0], left : left + field.size[1]] |= field.mask
    return Field(fields[0].jump, start, mask)


def of_model(model: nn.Module) -> list[tuple[str, Field]]:
    """What a place of every map sees, from the first layer to the output, whose name is 'output'.

    The model is executed symbolically (``torch.fx``) and must be in eval mode. Raises ValueError, naming the layer,
    where one is met whose window is not known, and where the model cannot be executed so.
    """
    model, graph = graph_of(model)
    fields: dict[fx.Node, Field] = {}
    found: list[tuple[str, Field]] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            fields[node] = PIXEL
        if node.op in ("placeholder", "get_attr"):
            continue
        inputs = [fields[one] for one in node.all_input_nodes if one in fields]
        step = step_of(model, node)
        try:
            if step is EVERYTHING_STEP:
                fields[node] = EVERYTHING
            else:
                fields[node] = windowed(inputs[0], step) if isinstance(step, Window) else united(inputs)
        except ValueError as error:
            raise ValueError(f"study: field: {name_of(node)}: {error}") from None
        if step is not SAME or node.op in ("call_module", "output") or len(inputs) > 1:
            found.append((name_of(node), fields[node]))
    return found


class _Sizes(fx.Interpreter):
    """Runs a graph and keeps the sizes [h, w] of every map; (1, 1) of what has none."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.sizes: dict[fx.Node, tuple[int, int]] = {}

    def run_node(self, node: fx.Node) -> object:
        value = super().run_node(node)
        maps = isinstance(value, Tensor) and value.dim() == 4
        self.sizes[node] = tuple(value.shape[2:]) if maps else (1, 1)
        return value


def seen(model: nn.Module, input: Tensor, place: tuple[int, int]) -> np.ndarray:
    """Which pixels [h, w] of an input an output place sees, paths through padding left out. ValueError as of_model."""
    model, graph = graph_of(model)
    runner = _Sizes(fx.GraphModule(model, graph))
    with torch.no_grad():
        runner.run(input)
    # The interpreter ran a copy of the graph; the nodes stand in the same order.
    sizes = dict(zip(graph.nodes, runner.sizes.values(), strict=True))
    needed = {node: np.zeros(sizes[node], bool) for node in graph.nodes}
    for node in reversed(list(graph.nodes)):
        if node.op == "output":
            needed[node] = np.zeros(sizes[node], bool)
            needed[node][place if sizes[node] != (1, 1) else (0, 0)] = True
        if node.op in ("placeholder", "get_attr") or not needed[node].any():
            continue
        step = step_of(model, node)
        for one in node.all_input_nodes:
            if isinstance(step, Window):
                needed[one] |= _read(needed[node], step, sizes[one])
            elif step is EVERYTHING_STEP or sizes[one] != sizes[node]:
                needed[one][...] = True
            else:
                needed[one] |= needed[node]
    return needed[next(iter(graph.nodes))]


def _read(places: np.ndarray, window: Window, size: tuple[int, int]) -> np.ndarray:
    """Which places of a map [h, w] of that size the windows of some outputs read."""
    found = np.zeros(size, bool)
    rows, columns = np.nonzero(places)
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            y = rows * window.stride[0] - window.padding[0] + row * window.dilation[0]
            x = columns * window.stride[1] - window.padding[1] + column * window.dilation[1]
            inside = (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1])
            found[y[inside], x[inside]] = True
    return found
