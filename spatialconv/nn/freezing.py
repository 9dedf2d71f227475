"""For inference: a whole model as one list of kernel calls, worked out once for every form of its input."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.modules import module as torch_module
from torch.utils._pytree import tree_leaves

from ..dispatch import requested
from ..eager import conv_surroundings, eager
from . import channels_last
from .conversion import ConversionReport, convert
from .dataflow import attribute, hooked, traced
from .layers import BackendLayer, Conv2d
from .program import ChangedForm, Program
from .recording import Recording
from .sums import find_sums
from .watch import Watch, edits, marks

_LIMIT = 16
_WEIGHTED = (Conv2d, torch.nn.Linear)


def freeze(
    model: torch.nn.Module, backend: str | None = None, *, report: Callable[[ConversionReport], object] | None = None
) -> Frozen:
    """The fastest form of a model for inference: fused, its weights transformed, and its calls worked out in advance.

    The model is copied and converted with ``convert(..., fuse=True)``, which folds batch norms and activations. The
    first call with inputs of a new shape, stride or dtype runs it once and records which kernels ran on what; later
    calls run those kernels on addresses known beforehand: no layer is called, no argument checked again, and
    intermediate results share one block of memory, kept between calls (``release()`` gives it back). A
    ``torch.nn.Linear`` on rows runs as the 1x1 convolution that it is, unless a backend is named or asked for. What
    else is no convolution or pooling of ours is called as it stands. Outputs differ from the model's by rounding, as
    fusing and the kernels do; they never share memory with later calls.

    Images in nchw are transposed and go through the model in ``channels_last``, where its kernels are faster, unless a
    backend is named or asked for, hooks or other foreign code would be called, random numbers are drawn, or the model's
    results are not the same so; results have the strides that they would have had. The first call of a form then runs
    the model twice.

    Only plain calls on tensors under ``torch.no_grad`` or ``torch.inference_mode`` are run so; any other call
    (gradients, autocast, a profiler, torch.compile, keyword arguments) goes through the converted layers and gives the
    same result. A new or edited weight of a convolution or linear layer is noticed and transformed again, but for edits
    in place of ``weight.data``. All else counts as it was when the model was frozen: hooks, attributes such as
    ``stride``, the branches of its code. Of lists, tuples and dicts that it returns, subclasses come back as plain
    ones.

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
    # Of tensors that are made in inference mode no edit is counted.
    with torch.inference_mode(False):
        model = convert(copy.deepcopy(model), backend, fuse=True, report=report)
        # A layer has no graph of its own, and a model's own hooks are no part of its: they are a node of one.
        whole = torch.nn.Sequential(model) if isinstance(model, BackendLayer) or hooked(model) else model
        return Frozen(whole, own_choice=backend is None)


class Frozen(torch.nn.Module):
    """What ``freeze`` returns; ``model`` is the converted model, for every call that cannot be run as recorded."""

    def __init__(self, model: torch.nn.Module, own_choice: bool = True) -> None:
        super().__init__()
        self.model, self._own_choice = model, own_choice
        self.eval()
        self._forget()
        self._trace()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output."""
        if kwargs or len(args) != self._inputs or torch.is_grad_enabled() or not _plain(args):
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

    def _trace(self) -> None:
        self._graph = _graph(self.model)
        self._inputs = len(self._graph.find_nodes(op="placeholder"))
        self._sums = find_sums(self._graph, self.model)

    def _record(self, key: tuple, inputs: tuple[Tensor, ...]) -> Any:
        if len(self._programs) >= _LIMIT:
            self._forget()
        weights = {layer: marks(layer) for layer in self.model.modules() if type(layer) in _WEIGHTED}
        touched = (*inputs, *self._held())
        before, drawn = list(map(edits, touched)), torch.get_rng_state()
        recording, output = self._recorded(inputs)
        # A call that changes its input or the model cannot be begun again by other means, should a value change its
        # form.
        same = before == list(map(edits, touched))
        only_tensors = all(leaf is None or isinstance(leaf, Tensor) for leaf in tree_leaves(output))
        if same and only_tensors and recording.repeatable:
            draws = not torch.equal(drawn, torch.get_rng_state())
            other = None if draws or not recording.any_kernel else self._in_channels_last(recording, inputs, output)
            self._programs[key] = Program(recording) if other is None else Program(other, output)
            recording = other or recording
        else:
            self._programs[key] = None
        self._forms = recording.forms
        known = {id(mark.holder) for watch in self._watches for mark in watch.marks}
        new = [layer for layer in dict.fromkeys(recording.layers) if id(layer._parameters) not in known]
        if new:
            self._watches = (*self._watches, Watch(mark for layer in new for mark in weights[layer]))
        return output

    def _held(self) -> list[Tensor]:
        """The model's buffers, and the parameters and other tensors that its forward reads itself."""
        read = [attribute(self.model, node.target, None) for node in self._graph.find_nodes(op="get_attr")]
        return [*self.model.buffers(), *(value for value in read if isinstance(value, Tensor))]

    def _recorded(self, inputs: tuple[Tensor, ...]) -> tuple[Recording, Any]:
        forms = {layer: [*kept] for layer, kept in self._forms.items()}
        own_choice = self._own_choice and requested(None) == "auto"
        recording = Recording(self.model, self._graph, self._sums, forms, own_choice)
        return recording, _ordinary(recording.run(*inputs))

    def _in_channels_last(self, plain: Recording, inputs: tuple[Tensor, ...], output: Any) -> Recording | None:
        """The same call on inputs in channels_last, where the model does the same with them."""
        if not channels_last.may_gain(plain, inputs, output):
            return None
        # Copies that are edited in place would be edits of the caller's input.
        with torch.inference_mode(False):
            copies = tuple(map(channels_last.pixels, inputs))
        before = list(map(edits, copies))
        try:
            recording, result = self._recorded(copies)
            same = recording.repeatable and channels_last.agree(output, result, inputs)
        # The model's own code runs here, on tensors of strides that it may not expect.
        except Exception:
            return None
        return recording if same and before == list(map(edits, copies)) else None

    def _fresh(self) -> bool:
        """Whether the weights are those that were transformed."""
        return all(watch.unchanged() for watch in self._watches)

    def _forget(self) -> None:
        self._programs: dict[tuple, Program | None] = {}
        self._forms: dict[torch.nn.Module, list[Tensor]] = {}
        self._watches: tuple[Watch, ...] = ()

    def train(self, mode: bool = True) -> Frozen:
        """It stays in eval mode, also within a model that is trained."""
        return super().train(False)

    def _apply(self, fn, recurse=True):
        self._forget()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _UNSAVED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()
        self._trace()


_UNSAVED = ("_programs", "_forms", "_watches", "_graph", "_inputs", "_sums")


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


def _ordinary(value: object) -> object:
    """The value with fx's immutable lists and dicts as Python's own."""
    if isinstance(value, dict):
        return {key: _ordinary(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [_ordinary(part) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    return value
