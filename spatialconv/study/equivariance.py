"""Whether a network's maps follow their picture: f(g x) against g f(x), where they differ, and which layer began it.

Every layer is judged by what the network has made of the picture up to it, from the same few runs. A map that has no
places any more, a vector or 1 x 1, has to stay as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import field
from .model_counts import evaluating
from .transforms import Shift, actions, elements

# What sums of another order may differ by, relative to the map's root mean square.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
VERDICTS = ("exact", "exact inside", "exact at multiples of the stride", "broken")
# On fewer places along an axis a border cannot be told from an error.
_TELLING = 6


@dataclass(frozen=True)
class Error:
    """f(g x) - g f(x) for one g. ``map``: the largest over images and channels, relative to the map's root mean square,
    [oh, ow], for a shift without the places that wrapped around; ``whole``: the largest of all places, wrapped ones
    included; ``relative``: the norm of the difference by that of the map, where not wrapped; ``aligned``: whether the
    shift is a multiple of the stride, or any other element; ``channels``: what the channels do."""

    element: str
    map: Tensor
    whole: float
    relative: float
    aligned: bool
    channels: str = "planes"

    def border(self, allowed: float) -> int:
        """The width of the frame that holds all errors above ``allowed``; -1 where nothing is left inside of it."""
        wrong = torch.nonzero(self.map > allowed)
        if not len(wrong):
            return 0
        rows, columns = self.map.shape
        last = torch.tensor([rows - 1, columns - 1])
        width = int(torch.minimum(wrong, last - wrong).amin(dim=1).max()) + 1
        return width if 2 * width < min(rows, columns) else -1


@dataclass(frozen=True)
class Judged:
    """A layer's verdict, one of VERDICTS. ``width``: of the border, in places of its map; ``stride``: pixels between
    neighbouring places, (1, 1) for what has none; ``bitwise``: whether what is exact is so to the last bit."""

    name: str
    kind: str
    verdict: str
    width: int
    stride: tuple[int, int]
    bitwise: bool
    errors: tuple[Error, ...]

    @property
    def rank(self) -> int:
        return VERDICTS.index(self.verdict)

    def text(self) -> str:
        """The verdict in words."""
        words = self.verdict
        if self.verdict == VERDICTS[2]:
            steps = self.stride[0] if self.stride[0] == self.stride[1] else self.stride
            words = f"exact at multiples of {steps} pixels" + (" inside" if self.width else "")
        if self.width > 0:
            words += f" (border {self.width} wide)"
        elif self.verdict == VERDICTS[1]:
            words += " (of what the shift did not bring around)"
        sides = [min(error.map.shape) for error in self.errors if error.aligned]
        if self.verdict == VERDICTS[3] and sides and min(sides) < _TELLING:
            return f"{words}, or the picture is too small to tell: a shift leaves {min(sides)} places of this map"
        return words + ("" if self.verdict == VERDICTS[3] or self.bitwise else ", to rounding")


def judge(model: nn.Module, input: Tensor, group: str) -> list[Judged]:
    """The verdicts on the model's layers in the order in which they run, and last on its output.

    ``input`` [n, c, h, w] decides the precision that the model is run in; it is left as it is. Raises ValueError for
    an unknown group, a picture that is not square where it is turned, and whatever the model raises.
    """
    if group == "rot90" and input.shape[2] != input.shape[3]:
        raise ValueError(f"study: equivariance: rot90: expected a square picture, got {tuple(input.shape[2:])}")
    run = _runner(model)
    first = run(input)
    strides = _strides(model, input, first) if group == "shift" else {name: (1, 1) for name, _, _ in first}
    steps = {step for pair in strides.values() for step in pair}
    tried = elements(group, max(steps)) if group == "shift" else elements(group)
    errors: dict[str, list[Error]] = {name: [] for name, _, _ in first}
    for element in tried:
        moved = run(element.moved(input).contiguous())
        if [name for name, _, _ in moved] != [name for name, _, _ in first]:
            raise ValueError(f"study: equivariance: the model runs other layers after {element}")
        for (name, _, before), (_, _, after) in zip(first, moved, strict=True):
            errors[name].append(_compared(element, before, after, strides[name]))
    allowed = ROUNDING.get(input.dtype, 1e-2)
    return [_judged(name, kind, tuple(errors[name]), strides[name], allowed) for name, kind, _ in first]


Run = Callable[[Tensor], list[tuple[str, str, Tensor]]]


def _runner(model: nn.Module) -> Run:
    """A function that runs the model and gives every leaf's output, with its name and kind, and the model's own."""

    def run(input: Tensor) -> list[tuple[str, str, Tensor]]:
        found: list[tuple[str, str, Tensor]] = []
        calls: dict[str, int] = {}

        def watch(name: str) -> Callable:
            def hook(module: nn.Module, inputs: tuple, output: object) -> None:
                if isinstance(output, Tensor) and output.dim() >= 2:
                    calls[name] = calls.get(name, 0) + 1
                    # A following layer may work in place.
                    found.append((_label(name, calls[name]), type(module).__name__, output.detach().clone()))

            return hook

        leaves = [(name, one) for name, one in model.named_modules() if name and next(one.children(), None) is None]
        hooks = [one.register_forward_hook(watch(name)) for name, one in leaves]
        try:
            with torch.no_grad(), evaluating(model):
                output = model(input)
        except Exception as error:  # the user's own model may raise anything
            shown = "x".join(map(str, input.shape))
            raise ValueError(f"study: equivariance: the model fails on {shown} {input.dtype}: {error}") from error
        finally:
            for hook in hooks:
                hook.remove()
        if not isinstance(output, Tensor) or output.dim() < 2:
            raise ValueError(f"study: equivariance: expected a tensor as output, got {type(output).__name__}")
        return [*found, ("output", type(model).__name__, output)]

    return run


def _label(name: str, call: int) -> str:
    return name if call == 1 else f"{name} (call {call})"


def placeless(value: Tensor) -> bool:
    """Whether a map has no places: a vector, or one place."""
    return value.dim() != 4 or tuple(value.shape[2:]) == (1, 1)


def _strides(model: nn.Module, input: Tensor, first: list[tuple[str, str, Tensor]]) -> dict[str, tuple[int, int]]:
    """Pixels between neighbouring places of every map: from the layers where their windows are known, else from the
    sizes, which windows and padding change by less than one place in two unless the map is tiny. ValueError where maps
    grow again, of which a shift cannot be told from their sizes."""
    known: dict[str, tuple[int, int]] = {}
    try:
        with evaluating(model):
            calls: dict[str, int] = {}
            for name, one in field.of_model(model):
                calls[name] = calls.get(name, 0) + 1
                known[_label(name, calls[name])] = one.jump
    except ValueError:
        known = {}
    strides = {}
    coarsest = [1, 1]
    for name, kind, value in first:
        sizes = zip(input.shape[2:], value.shape[2:], strict=False)
        by_size = tuple(max(round(size / places), 1) for size, places in sizes)
        grows = any(round(places / size) > 1 for size, places in zip(input.shape[2:], value.shape[2:], strict=False))
        if not placeless(value) and name not in known:
            if grows or any(step < before for step, before in zip(by_size, coarsest, strict=True)):
                raise ValueError(
                    f"study: equivariance: shift: expected maps that do not grow, {name} ({kind}) "
                    f"makes {tuple(value.shape)}"
                )
            coarsest = list(by_size)
        strides[name] = (1, 1) if placeless(value) else known.get(name, by_size)
    return strides


def _compared(element: object, before: Tensor, after: Tensor, stride: tuple[int, int]) -> Error:
    if placeless(before):
        return _error(str(element), before.flatten(1)[..., None, None], after.flatten(1)[..., None, None], True)
    if isinstance(element, Shift):
        return _shifted(element, before, after, stride)
    found = [
        _error(str(element), act(before, element), after, True, name)
        for name, act in actions(before.shape[1], element).items()
        if act(before, element).shape == after.shape
    ]
    if not found:
        raise ValueError(f"study: equivariance: {element} changes a map's size, {tuple(before.shape)}")
    # The plainest of those that differ by no more than rounding does.
    least = min(one.relative for one in found)
    return next(one for one in found if one.relative <= 2 * least + 1e-14)


def _shifted(shift: Shift, before: Tensor, after: Tensor, stride: tuple[int, int]) -> Error:
    moves = [amount / step for amount, step in zip((shift.rows, shift.columns), stride, strict=True)]
    aligned = all(move == int(move) for move in moves)
    rows, columns = (int(move) for move in moves)
    expected = torch.roll(before, (rows, columns), (2, 3))
    whole = _error(str(shift), expected, after, aligned)
    kept = (..., _kept(rows, before.shape[2]), _kept(columns, before.shape[3]))
    if not after[kept].numel():
        return whole
    inside = _error(str(shift), expected[kept], after[kept], aligned)
    return Error(inside.element, inside.map, whole.whole, inside.relative, aligned)


def _kept(move: int, size: int) -> slice:
    """The places that a move did not bring around."""
    return slice(move, size) if move >= 0 else slice(0, size + move)


def _error(element: str, expected: Tensor, got: Tensor, aligned: bool, channels: str = "planes") -> Error:
    difference = (got.double() - expected.double()).abs()
    scale = float(expected.double().square().mean().sqrt()) or 1.0
    norm = float(expected.double().norm()) or 1.0
    worst = difference.amax(dim=(0, 1)) / scale
    return Error(element, worst, float(worst.max()), float(difference.norm()) / norm, aligned, channels)


def _judged(name: str, kind: str, errors: tuple[Error, ...], stride: tuple[int, int], allowed: float) -> Judged:
    aligned = [error for error in errors if error.aligned]
    others = [error for error in errors if not error.aligned]
    if not aligned:
        return Judged(name, kind, VERDICTS[3], 0, stride, False, errors)
    width = 0
    if any(error.whole > allowed for error in aligned):
        widths = [error.border(allowed) for error in aligned]
        # A frame of its own error for every shift, of which the seam of a cyclic one is left out.
        width = -1 if -1 in widths else max(widths)
        if width == -1 or (width == 0 and not _framed(aligned)):
            return Judged(name, kind, VERDICTS[3], 0, stride, False, errors)
    strided = any(error.whole > allowed for error in others)
    verdict = VERDICTS[2] if strided else VERDICTS[1] if any(e.whole > allowed for e in aligned) else VERDICTS[0]
    return Judged(name, kind, verdict, width, stride, _bitwise(aligned, width), errors)


def _framed(errors: list[Error]) -> bool:
    """Whether errors can be those of the seam alone: only shifts have places that are left out."""
    return any(error.element.startswith("shift") for error in errors)


def _bitwise(errors: list[Error], width: int) -> bool:
    """Whether nothing at all differs inside of the border."""
    return all(float(_interior(error.map, width).max()) == 0.0 for error in errors)


def _interior(values: Tensor, width: int) -> Tensor:
    return values[width : values.shape[0] - width, width : values.shape[1] - width] if width > 0 else values


def first_worse(layers: list[Judged]) -> Judged | None:
    """The layer at which the final verdict is first as bad, None where all is exact."""
    final = layers[-1].rank
    if final == 0:
        return None
    return next(layer for layer in layers if layer.rank >= final)
