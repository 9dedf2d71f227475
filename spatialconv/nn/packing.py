"""For inference: the weight of a convolution layer transformed once, and not at every call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dispatch import choose, current_context, requested
from ..eager import conv_surroundings, eager, exact
from ..functional import conv2d
from ..ops.arguments import conv2d_problem
from ..shapes import pair
from .layers import Conv2d

_LIMIT = 16
_Run = Callable[[Tensor, Tensor | None], Tensor]


def prepack(model: torch.nn.Module) -> torch.nn.Module:
    """Let every ``spatialconv.nn.Conv2d`` of a model keep its weight as its kernel reads it, and return the model.

    For inference: the model must be in eval mode (ValueError otherwise), and the transformed weights are used only
    where no gradient is asked for (``torch.no_grad``, ``torch.inference_mode``), in plain eager calls; results are
    bitwise the same. The first call with a new input shape or layout transforms the weight, later ones use it; a
    kernel without a transformed form goes on as before. Torch's own layers are not touched: ``convert`` the model
    first.

    The transformed copy is no part of the state_dict, of a pickle or of a deepcopy. ``model.train()`` undoes
    prepacking; ``.to()``, ``load_state_dict`` and a newly assigned ``weight`` have the weight transformed again. **An
    in-place edit of a weight in eval mode is not noticed** (``layer.weight.mul_(2)``, ``layer.weight.data = ...``):
    call ``prepack`` again.

    Equivalent: nothing in PyTorch for a plain eager model. Example::

        model = spatialconv.nn.prepack(spatialconv.nn.convert(model).eval())
        with torch.inference_mode():
            output = model(input)
    """
    layers = [module for module in model.modules() if isinstance(module, Conv2d)]
    for layer in layers:
        if layer.training:
            raise ValueError(
                "spatialconv.nn.prepack: model: expected eval mode, got training mode: call model.eval() first"
            )
    for layer in layers:
        if type(layer).forward is Conv2d.forward:
            layer._packed = PackedConv2d()
    return model


class _State(NamedTuple):
    """A weight, its runs by everything else that a plan depends on, and its transformed forms.

    One value: a call that is overtaken by a new weight in another thread goes on filling what belongs to the old one.
    """

    weight: Tensor
    runs: dict[tuple, _Run | None]
    forms: list[Tensor]


class PackedConv2d:
    """The plans of one layer on its transformed weight, by everything that a plan depends on."""

    def __init__(self) -> None:
        self._state: _State | None = None

    def clear(self) -> None:
        """Forget the transformed weights; the next call makes them anew."""
        self._state = None

    def run(self, layer: Conv2d, input: Tensor) -> Tensor | None:
        """The layer's output, or None where the layer must take its ordinary way."""
        if torch.is_grad_enabled() or layer.training:
            return None
        parameters = layer._parameters
        if "weight" not in parameters or "bias" not in parameters:
            return None
        weight, bias = parameters["weight"], parameters["bias"]
        if not eager(input, weight, bias):
            return None
        state = self._state
        if state is None or state.weight is not weight:
            state = self._state = _State(weight, {}, [])
        if layer.padding_mode == "zeros":
            padding = layer.padding
        else:
            padding = (0, 0)
            input = F.pad(input, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
        geometry = (layer.stride, padding, layer.dilation, layer.groups)
        if not exact(geometry):
            return None
        key = (
            input.shape, input.stride(), input.dtype, input.device, geometry,
            None if bias is None else (bias.shape, bias.dtype), layer.activation, layer.backend,
            conv_surroundings(input),
        )  # fmt: skip
        try:
            run = state.runs[key]
        except KeyError:
            # An ordinary call, which checks the arguments and tells the output's size; then the plan of those to come.
            output = conv2d(input, weight, bias, *geometry, activation=layer.activation, backend=layer.backend)
            if len(state.runs) >= _LIMIT:
                state.runs.clear()
                state.forms.clear()
            state.runs[key] = _plan(layer, input, bias, geometry, output, state) if input.dim() == 4 else None
            return output
        return None if run is None else run(input, bias)


def _plan(
    layer: Conv2d, input: Tensor, bias: Tensor | None, geometry: tuple, output: Tensor, state: _State
) -> _Run | None:
    """What runs such calls from now on; None where the layer must take its ordinary way."""
    weight, (stride, padding, dilation, groups) = state.weight, geometry
    stride, dilation = pair("conv2d", "stride", stride), pair("conv2d", "dilation", dilation)
    if padding == "same":
        padding = tuple(step * (size - 1) // 2 for step, size in zip(dilation, weight.shape[2:], strict=True))
    else:
        padding = (0, 0) if padding == "valid" else pair("conv2d", "padding", padding)
    problem = conv2d_problem(
        "conv2d", input.shape, weight.shape, output.shape, stride, padding, dilation, groups,
        bias is not None, input, weight, activation=layer.activation,
    )  # fmt: skip
    if problem.empty:
        return None
    context = replace(current_context(problem.device, input.device.index), prepacked=True)
    choice = choose(problem, requested(layer.backend), index=input.device.index)
    kernel, plan = choice.kernel, choice.plan
    packed = None if kernel.refusals(problem, context) else kernel.packed_weight(problem, context, weight.detach())
    if packed is None:
        return lambda input, bias: plan(input, weight, bias)
    packed, plan = _store(packed, state.forms), kernel.whole_plan(problem, context)
    return lambda input, bias: plan(input, packed, bias)


def _store(packed: Tensor, forms: list[Tensor]) -> Tensor:
    """The tensor, or an equal one stored before: most problems of a layer want the same form."""
    for form in forms:
        if form.shape == packed.shape and torch.equal(form, packed):
            return form
    forms.append(packed)
    return packed
