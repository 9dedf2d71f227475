"""For inference: a whole model as one list of kernel calls, worked out once for every form of its input."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.modules import module as torch_module
from torch.utils._pytree import tree_leaves

from ..eager import conv_surroundings, eager
from .conversion import ConversionReport, convert
from .dataflow import traced
from .layers import BackendLayer, Conv2d
from .program import ChangedForm, Program
from .recording import Recording
from .sums import find_sums

_LIMIT = 16


def freeze(
    model: torch.nn.Module, backend: str | None = None, *, report: Callable[[ConversionReport], object] | None = None
) -> Frozen:
    """The fastest form of a model for inference: fused, its weights transformed, and its calls worked out in advance.

    The model is copied and converted with ``convert(..., fuse=True)``, which folds batch norms and activations. The
    first call with inputs of a new shape, stride or dtype runs it once and records which kernels ran on what; later
    calls run those kernels on addresses known beforehand: no layer is called, no argument checked again, and
    intermediate results share one block of memory, kept between calls (``release()`` gives it back). What is no
    convolution or pooling of ours is called as it stands. Outputs differ from the model's by rounding, as fusing and
    the kernels do; they never share memory with later calls.

    Only plain calls on tensors under ``torch.no_grad`` or ``torch.inference_mode`` are run so; any other call
    (gradients, autocast, a profiler, torch.compile, keyword arguments) goes through the converted layers and gives the
    same result. A new or edited weight is noticed and transformed again, but for edits through ``weight.data``.

    Args:
        model: in eval mode, and such that ``torch.fx`` can execute it symbolically; its inputs are positional.
        backend: as for ``convert``.
        report: called with what was converted and fused, and what not and why.

    Raises:
        ValueError where the model is in training mode or cannot be executed symbolically (``prepack`` then serves),
        or the backend is unknown; TypeError where it is no module.

    Equivalent: ``torch.jit.freeze``, ``torch.compile`` with inductor's freezing, or an ONNX Runtime session. Example::

        frozen = spatialconv.nn.freeze(model.eval())
        with torch.inference_mode():
            output = frozen(input)
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"spatialconv.nn.freeze: model: expected a torch.nn.Module, got {type(model).__name__}")
    if any(module.training for module in model.modules()):
        raise ValueError("spatialconv.nn.freeze: model: expected eval mode, got training mode: call model.eval() first")
    model = convert(copy.deepcopy(model), backend, fuse=True, report=report)
    # A layer has no graph of its own: it is a node of one.
    return Frozen(torch.nn.Sequential(model) if isinstance(model, BackendLayer) else model)


class Frozen(torch.nn.Module):
    """What ``freeze`` returns; ``model`` is the converted model, for every call that cannot be run as recorded."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()
        self._forget()
        self._graph = _graph(model)
        self._sums = find_sums(self._graph, model)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output."""
        if kwargs or not args or torch.is_grad_enabled() or not _plain(args):
            return self.model(*args, **kwargs)
        key = tuple([(input.shape, input.stride(), input.dtype, input.device) for input in args])
        key += conv_surroundings(args[0])
        if not self._fresh():
            self._forget()
        try:
            program = self._programs[key]
        except KeyError:
            return self._record(key, args)
        if program is None:
            return self.model(*args)
        try:
            return program(args)
        except ChangedForm:
            self._programs[key] = None
            return self.model(*args)

    def release(self) -> None:
        """Give back the memory of intermediate results and what was recorded; the next call records anew."""
        self._forget()

    def _record(self, key: tuple, inputs: tuple[Tensor, ...]) -> Any:
        if len(self._programs) >= _LIMIT:
            self._forget()
        self._watched = self._watched or [_watched(layer) for layer in self.model.modules() if type(layer) is Conv2d]
        recording = Recording(self.model, self._graph, self._sums, self._forms)
        before = [_version(input) for input in inputs]
        output = recording.run(*inputs)
        # A call that changes its own input cannot be begun again by other means, should a value change its form.
        same = before == [_version(input) for input in inputs]
        only_tensors = all(leaf is None or isinstance(leaf, Tensor) for leaf in tree_leaves(output))
        self._programs[key] = Program(recording) if same and only_tensors else None
        return output

    def _fresh(self) -> bool:
        """Whether the weights are those that were transformed."""
        for parameters, weight, version, bias, bias_version in self._watched:
            if parameters["weight"] is not weight or _version(weight) != version or parameters["bias"] is not bias:
                return False
            if bias is not None and _version(bias) != bias_version:
                return False
        return True

    def _forget(self) -> None:
        self._programs: dict[tuple, Program | None] = {}
        self._forms: dict[torch.nn.Module, list[Tensor]] = {}
        self._watched: list[tuple] = []

    def train(self, mode: bool = True) -> Frozen:
        if mode:
            raise ValueError("spatialconv.nn.freeze: a frozen model is for inference: train the model it was made of")
        return super().train(False)

    def _apply(self, fn, recurse=True):
        self._forget()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _UNSAVED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()
        self._graph = _graph(self.model)
        self._sums = find_sums(self._graph, self.model)


_UNSAVED = ("_programs", "_forms", "_watched", "_graph", "_sums")


def _graph(model: torch.nn.Module) -> fx.Graph:
    try:
        return traced(model)
    # The model's own code runs here, on values that are no tensors: it may raise anything.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"spatialconv.nn.freeze: model: expected one that torch.fx can execute symbolically, got {reason}; "
            "spatialconv.nn.convert and prepack take any model"
        ) from error


def _plain(args: tuple) -> bool:
    """Whether a call is observed by nothing and on ordinary tensors alone."""
    for input in args:
        if not isinstance(input, Tensor) or not eager(input):
            return False
    return not torch_module._has_any_global_hook()


def _version(tensor: Tensor) -> int:
    """How often it was edited in place; 0 where torch does not count."""
    return 0 if tensor.is_inference() else tensor._version


def _watched(layer: Conv2d) -> tuple:
    weight, bias = layer.weight, layer.bias
    return layer._parameters, weight, _version(weight), bias, None if bias is None else _version(bias)
