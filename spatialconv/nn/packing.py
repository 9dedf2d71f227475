"""For inference: the weight of a convolution layer transformed once, and not at every call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import eager as short
from ..dispatch import Choice, choose, current_context, requested
from ..functional import conv2d
from ..problem import Conv2dProblem
from .layers import Conv2d
from .problems import conv2d_of

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
        if torch.compiler.is_compiling():
            return None
        padding = layer.padding
        if layer.padding_mode != "zeros":
            if not short.eager(input, weight, bias):
                return None
            padding = (0, 0)
            input = F.pad(input, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
        geometry = (layer.stride, padding, layer.dilation, layer.groups)
        key = short.call_key("conv2d", input, weight, bias, (*geometry, layer.activation), (), layer.backend)
        if key is None:
            return None
        state = self._state
        if state is None or state.weight is not weight:
            state = self._state = _State(weight, {}, [])
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
    weight, problem = state.weight, conv2d_of(layer, input, output, geometry)
    if problem.empty:
        return None
    choice, kept = packed_choice(problem, layer.backend, weight, state.forms, input.device.index)
    return lambda input, bias: choice.plan(input, kept, bias)


def packed_choice(
    problem: Conv2dProblem, backend: str | None, weight: Tensor, forms: list[Tensor], index: int | None = None
) -> tuple[Choice, Tensor]:
    """What runs a problem on a weight that may be transformed once, and the weight as it takes it: transformed and kept
    in ``forms``, or as it was given where the kernel takes none such. ``index``: of the GPU that the tensors are on."""
    request = requested(backend)
    context = replace(current_context(problem.device, index), prepacked=True)
    choice = choose(problem, request, context)
    packed = choice.kernel.packed_weight(problem, context, weight.detach())
    if packed is None:
        return choose(problem, request, index=index), weight
    return choice, _store(packed, forms)


def _store(packed: Tensor, forms: list[Tensor]) -> Tensor:
    """The tensor, or an equal one stored before: most problems of a layer want the same form."""
    for form in forms:
        if form.shape == packed.shape and torch.equal(form, packed):
            return form
    forms.append(packed)
    return packed
