"""One execution of a model's graph on real tensors: which calls are kernels of ours on raw memory, and who reads what.

A convolution, pooling or linear layer whose kernel has a ``launch`` becomes a ``Native`` step that writes into a
``Buffer``, a reshaping that moves nothing a ``View``; whatever else stands in the graph becomes a ``Generic`` step and
is called as it is. Views are followed by the memory that they lie in, so that a buffer lives until its last view was
read, and one that the model returns is told apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from ..backends.base import Launch
from ..dispatch import choose, requested
from ..eager import plain
from ..problem import Problem
from ..shapes import memory_format
from .dataflow import hooked
from .layers import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, Conv2d, MaxPool2d
from .memory_plan import Buffer
from .packing import packed_choice
from .problems import linear_of, problem_of
from .sums import Sum, does_nothing

_LAYERS = (Conv2d, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, AdaptiveMaxPool2d, torch.nn.Linear)
_RESHAPING = ("flatten", "reshape", "view")


@dataclass(frozen=True)
class Form:
    """Of a tensor: what is the same at every call."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> Form:
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype)

    def fits(self, value: object) -> bool:
        return (
            isinstance(value, Tensor)
            and value.shape == self.shape
            and value.stride() == self.stride
            and value.dtype == self.dtype
        )


@dataclass(frozen=True)
class Native:
    """A kernel's call: it reads the value of ``source`` and writes that of ``node`` into a buffer, or adds to what is
    there: the value of ``onto``, which nobody reads afterwards."""

    node: fx.Node
    source: fx.Node
    source_form: Form
    form: Form
    launch: Launch
    bias: Tensor | None
    buffer: Buffer
    workspace: Buffer | None
    onto: fx.Node | None

    @property
    def reads(self) -> tuple[fx.Node, ...]:
        return (self.source,) if self.onto is None else (self.source, self.onto)


@dataclass(frozen=True)
class Generic:
    """A node of the graph, called as it is."""

    node: fx.Node

    @property
    def reads(self) -> tuple[fx.Node, ...]:
        return tuple(self.node.all_input_nodes)


@dataclass(frozen=True)
class View(Generic):
    """A node whose value is all of that of ``source``, under another shape."""

    source: fx.Node
    form: Form


Step = Native | Generic


class Recording(fx.Interpreter):
    """The steps of one call. ``forms``: transformed weights by layer, kept for further recordings; ``any_kernel``:
    whether no backend was asked for, and kernels of ours may stand for linear layers too."""

    def __init__(
        self,
        model: torch.nn.Module,
        graph: fx.Graph,
        sums: dict[fx.Node, Sum],
        forms: dict[torch.nn.Module, list[Tensor]],
        any_kernel: bool,
    ) -> None:
        super().__init__(model, graph=graph)
        self.extra_traceback = False
        self.forms = forms
        self.any_kernel = any_kernel
        self.steps: list[Step] = []
        self.same: dict[fx.Node, fx.Node] = {}  # a node that does nothing, and the one whose value it has
        self.buffers: list[Buffer] = []
        self.escaping: set[Buffer] = set()
        self.repeatable = True
        self.others_code = False  # hooks and such were called, which may count their calls
        self.layers: list[Conv2d | torch.nn.Linear] = []  # whose weights are read where they lie, or were transformed
        self._sums = sums
        self._place = {node: index for index, node in enumerate(graph.nodes)}
        self._added: dict[fx.Node, Buffer | None] = {}  # nodes of a sum that a kernel adds up
        self._written: dict[fx.Node, Native] = {}
        self._within: dict[fx.Node, set[Buffer]] = {}
        self._owners: dict[StorageWeakRef, Buffer] = {}

    def run_node(self, node: fx.Node) -> object:
        before = [(value, Form.of(value)) for used in node.all_input_nodes for value in _tensors(self.env[used])]
        result = super().run_node(node)
        # What a step does to the form of a tensor itself, it would do to a tensor that is kept for the next call.
        self.repeatable &= all(form.fits(value) for value, form in before)
        read = set().union(*(self._within[used] for used in node.all_input_nodes))
        if node.op == "output":
            self.escaping |= read
            return result
        module = self.fetch_attr(node.target) if node.op == "call_module" else None
        if node in self._added:
            if (buffer := self._added[node]) is not None:
                self._owners[StorageWeakRef(result.untyped_storage())] = buffer
        elif node.op == "placeholder":
            pass
        elif does_nothing(module, node):
            self.same[node] = self.origin(node.args[0])
        elif (step := self._native(node, module, result)) is not None:
            self._append(step, read)
            if step.onto is None:
                self._owners[StorageWeakRef(result.untyped_storage())] = step.buffer
        elif (view := self._view(node, module, result)) is not None:
            self._append(view, read)
        else:
            self._append(Generic(node), read)
        self._within[node] = {owner for tensor in _tensors(result) if (owner := self._owner(tensor)) is not None}
        if _may_keep(node, module):
            self.others_code = True
            self.escaping |= read | self._within[node]
        return result

    def origin(self, node: fx.Node) -> fx.Node:
        """The node that made the value of a node."""
        return self.same.get(node, node)

    def _append(self, step: Step, read: set[Buffer]) -> None:
        for buffer in read:
            buffer.last = len(self.steps)
        if isinstance(step, Native):
            step.buffer.last = len(self.steps)
            self._written[step.node] = step
        self.steps.append(step)

    def _owner(self, tensor: Tensor) -> Buffer | None:
        return self._owners.get(StorageWeakRef(tensor.untyped_storage()))

    def _view(self, node: fx.Node, module: torch.nn.Module | None, result: object) -> View | None:
        """Of a reshaping to a size that no value of the call decides."""
        reshapes = type(module) is torch.nn.Flatten and not hooked(module)
        reshapes |= node.op == "call_method" and node.target in _RESHAPING or node.target is torch.flatten
        if not reshapes or not isinstance(result, Tensor) or len(node.all_input_nodes) != 1 or not node.args:
            return None
        source = self.env[node.args[0]]
        same = (result.data_ptr(), result.numel(), result.dtype) == (source.data_ptr(), source.numel(), source.dtype)
        return View(node, self.origin(node.args[0]), Form.of(result)) if same else None

    def _native(self, node: fx.Node, layer: object, result: object) -> Native | None:
        alone = len(node.args) == 1 and isinstance(node.args[0], fx.Node) and not node.kwargs
        if type(layer) not in _LAYERS or not alone or hooked(layer) or not isinstance(result, Tensor):
            return None
        input = self.env[node.args[0]]
        if isinstance(layer, torch.nn.Linear):
            if not self.any_kernel or not _plain_weights(layer) or not _rows(input):
                return None
            problem = linear_of(layer, input)
            return None if problem.empty else self._step(node, layer, problem, input, result, None)
        if input.dim() != 4 or input.device.type != "cpu" or getattr(layer, "padding_mode", "zeros") != "zeros":
            return None
        problem = problem_of(layer, input, result)
        if problem.empty or not input.is_contiguous(memory_format=memory_format(problem.layout)):
            return None
        if (total := self._sums.get(node)) is not None and self._can_add(node, total, Form.of(result)):
            added = problem.replace(activation=total.activation)
            if (step := self._step(node, layer, added, input, result, total)) is not None:
                self._added |= {covered: None for covered in total.covered} | {total.last: step.buffer}
                return step
        return self._step(node, layer, problem, input, result, None)

    def _can_add(self, node: fx.Node, total: Sum, form: Form) -> bool:
        """Whether the other summand lies in a buffer of the same form that nobody reads from now on."""
        written = self._written.get(self.origin(total.other))
        if written is None or written.form != form or written.buffer in self._within[node.args[0]]:
            return False
        now = self._place[node]
        return not any(
            self._place[user] > now and user not in total.covered
            for holder, buffers in self._within.items()
            if written.buffer in buffers
            for user in holder.users
        )

    def _step(
        self, node: fx.Node, layer: torch.nn.Module, problem: Problem, input: Tensor, result: Tensor, total: Sum | None
    ) -> Native | None:
        weight = bias = None
        if weighted := isinstance(layer, (Conv2d, torch.nn.Linear)):
            forms, backend = self.forms.setdefault(layer, []), getattr(layer, "backend", None)
            filters = layer.weight.detach().view(problem.weight_shape)
            choice, weight = packed_choice(problem, backend, filters, forms)
            bias = None if layer.bias is None else layer.bias.detach().contiguous()
        else:
            choice = choose(problem, requested(layer.backend))
        launch = choice.kernel.launch(problem, choice.context, weight, accumulate=total is not None)
        if launch is None:
            return None
        if weighted:
            self.layers.append(layer)
        onto = None if total is None else self.origin(total.other)
        buffer = self._buffer(result.nbytes) if onto is None else self._written[onto].buffer
        workspace = self._buffer(launch.workspace_bytes) if launch.workspace_bytes else None
        last = node if total is None else total.last
        source = self.origin(node.args[0])
        return Native(last, source, Form.of(input), Form.of(result), launch, bias, buffer, workspace, onto)

    def _buffer(self, size: int) -> Buffer:
        """New memory, in use by the next step."""
        buffer = Buffer(size, len(self.steps), len(self.steps))
        self.buffers.append(buffer)
        return buffer


def _rows(input: Tensor) -> bool:
    return input.dim() == 2 and input.device.type == "cpu" and input.is_contiguous()


def _plain_weights(layer: torch.nn.Linear) -> bool:
    """Whether a layer's weight and bias are its parameters, and ordinary ones."""
    weight, bias = layer._parameters.get("weight"), layer._parameters.get("bias", layer)
    return weight is not None and plain(weight) and (bias is None or (bias is not layer and plain(bias)))


def _may_keep(node: fx.Node, module: torch.nn.Module | None) -> bool:
    """Whether a call may hold on to the tensors that it is given, or give them back by their values: anybody's code but
    torch's and ours, and hooks."""
    if node.op == "call_module":
        return hooked(module) or not type(module).__module__.startswith(("torch.nn.modules.", __package__))
    if node.op != "call_function" or node.target is getattr:
        return False
    home = f"{node.target.__module__ or 'torch'}."
    return not home.startswith(("torch.", "_operator.")) or (
        home.startswith("torch._ops.") and not home.startswith(("torch._ops.aten.", "torch._ops.prims."))
    )


def _tensors(value: object) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.layout is torch.strided)
