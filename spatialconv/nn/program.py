"""A recorded call, run again on other values: its steps in order, its intermediate results in one block of memory.

The block belongs to one call at a time and is kept for the next, so that a kernel's call is a few integers worked out
before. What the model returns has memory of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_map

from .. import threads
from ..backends import allocation
from .channels_last import in_form, pixels
from .dataflow import attribute
from .memory_plan import offsets
from .recording import Form, Generic, Native, Recording, View

_Values = list[object]  # by place: what the nodes of the graph have as values, None before and after their use
_Run = Callable[[_Values], None]
_PAGE = 4096


def _form_of(tensor: Tensor | None) -> Form | None:
    return None if tensor is None else Form.of(tensor)


class ChangedForm(Exception):
    """A value has another shape, stride or dtype than when the call was recorded, on inputs of the same forms."""


class Program:
    """The steps of a recording; called with the values of the placeholders. Any number of threads may call it."""

    def __init__(self, recording: Recording, like: object = None) -> None:
        """``like``: of a model called in nchw, recorded in channels_last: a result as the caller expects it."""
        self._planes = None if like is None else tree_map(_form_of, like)
        self.module, self.steps, self.escaping = recording.module, recording.steps, recording.escaping
        graph = recording.graph
        self.place = {node: index for index, node in enumerate(graph.nodes)}
        self.place |= {node: self.place[origin] for node, origin in recording.same.items()}
        self.inputs = [self.place[node] for node in graph.find_nodes(op="placeholder")]
        (output,) = graph.find_nodes(op="output")
        self.result = self.fetch(output.args[0])
        self.offsets, self.size = offsets([buffer for buffer in recording.buffers if buffer not in self.escaping])
        self.dead = self._last_uses(output)
        self._idle: list[_Memory] = []

    def __call__(self, inputs: Sequence[Tensor]) -> object:
        """The model's output. Raises ChangedForm before anything is computed from such a value."""
        try:
            memory = self._idle.pop()
        except IndexError:
            memory = _Memory(self)
        values = memory.values.copy()
        for place, input in zip(self.inputs, inputs, strict=True):
            values[place] = input if self._planes is None else pixels(input)
        try:
            for run in memory.runs:
                run(values)
            result = self.result(values)
            return result if self._planes is None else tree_map(in_form, result, self._planes)
        finally:
            self._idle.append(memory)

    def fetch(self, argument: object) -> Callable[[_Values], object]:
        """What an argument of a node is, once the values are known."""
        if isinstance(argument, fx.Node):
            return lambda values, place=self.place[argument]: values[place]
        if isinstance(argument, (list, tuple)):
            parts, kind = [self.fetch(part) for part in argument], list if isinstance(argument, list) else tuple
            return lambda values: kind([part(values) for part in parts])
        if isinstance(argument, dict):
            items = {key: self.fetch(part) for key, part in argument.items()}
            return lambda values: {key: part(values) for key, part in items.items()}
        if isinstance(argument, slice):
            bounds = self.fetch((argument.start, argument.stop, argument.step))
            return lambda values: slice(*bounds(values))
        return lambda values: argument

    def _last_uses(self, output: fx.Node) -> list[list[int]]:
        """By step the places whose values nobody reads afterwards."""
        last = {}
        for index, step in enumerate(self.steps):
            for node in (step.node, *step.reads):
                last[self.place[node]] = index
        for node in output.all_input_nodes:
            last.pop(self.place[node], None)
        dead: list[list[int]] = [[] for _ in self.steps]
        for place, index in last.items():
            dead[index].append(place)
        return dead


class _Memory:
    """One block of memory, the tensors that lie in it, and the steps on their addresses."""

    def __init__(self, program: Program) -> None:
        self._program = program
        # An ordinary tensor also where the first call is in inference mode: later ones need not be.
        with torch.inference_mode(False):
            block = torch.empty(program.size + _PAGE, dtype=torch.uint8)
            self._block = block[-block.data_ptr() % _PAGE :]
        if allocation.large(block.nbytes):
            allocation.on_large_pages(block)
        self._fixed: set[int] = set()
        self.values: _Values = [None] * len(program.place)
        self.runs: list[_Run] = []
        calls: list[tuple[Callable[..., int], tuple[int, ...]]] = []
        for step, dead in zip(program.steps, program.dead, strict=True):
            if isinstance(step, Native) and (call := self._fixed_call(step)) is not None:
                calls.append(call)
                continue
            if isinstance(step, View) and self._fixed_view(step):
                continue
            if calls:
                self.runs.append(_joined(calls))
                calls = []
            self.runs.append(self._moving_call(step) if isinstance(step, Native) else self._generic(step))
            if moving := [place for place in dead if place not in self._fixed]:
                self.runs.append(_forgetting(moving))
        if calls:
            self.runs.append(_joined(calls))

    def _address(self, buffer) -> int:
        return 0 if buffer is None else self._block.data_ptr() + self._program.offsets[buffer]

    def _fixed_call(self, step: Native) -> tuple[Callable[..., int], tuple[int, ...]] | None:
        """A kernel and its arguments, where it reads and writes the block alone. Its result is a fixed tensor."""
        place = self._program.place[step.node]
        if step.buffer in self._program.escaping:
            return None
        begin = self._program.offsets[step.buffer]
        with torch.inference_mode(False):
            self._fix(place, self._block[begin : begin + step.buffer.size].view(step.form.dtype), step.form)
        source = self._program.place[step.source]
        if source not in self._fixed:
            return None
        return step.launch.call, self._arguments(step)(self.values[source], self.values[place])

    def _fixed_view(self, step: View) -> bool:
        """Makes the view once, where what it views is fixed."""
        source = self._program.place[step.source]
        if source in self._fixed:
            self._fix(self._program.place[step.node], self.values[source], step.form)
        return source in self._fixed

    def _fix(self, place: int, lying: Tensor, form: Form) -> None:
        with torch.inference_mode(False):
            self.values[place] = lying.as_strided(form.shape, form.stride)
        self._fixed.add(place)

    def _arguments(self, step: Native) -> Callable[[Tensor, Tensor], tuple[int, ...]]:
        """A launch's arguments, given its input and its output."""
        launch = step.launch
        weight = 0 if launch.weight is None else launch.weight.data_ptr()
        bias, workspace = 0 if step.bias is None else step.bias.data_ptr(), self._address(step.workspace)

        def arguments(input: Tensor, output: Tensor) -> tuple[int, ...]:
            return (
                *launch.before, input.data_ptr(), weight, output.data_ptr(), bias, workspace, *launch.after,
            )  # fmt: skip

        return arguments

    def _moving_call(self, step: Native) -> _Run:
        """A kernel that reads a value from outside the block, or writes what the model returns."""
        source, place = self._program.place[step.source], self._program.place[step.node]
        call, arguments, read, form = step.launch.call, self._arguments(step), step.source_form, step.form
        fixed, onto = place in self._fixed, None if step.onto is None else self._program.place[step.onto]

        def run(values: _Values) -> None:
            input = values[source]
            if not read.fits(input):
                raise ChangedForm
            if fixed:
                output = values[place]
            elif onto is not None:
                output = values[place] = values[onto]
            else:
                output = values[place] = input.new_empty_strided(form.shape, form.stride)
            if code := call(*arguments(input, output)):
                threads.check(code)

        return run

    def _generic(self, step: Generic) -> _Run:
        program, node = self._program, step.node
        place, fetch_args, fetch_kwargs = program.place[node], program.fetch(node.args), program.fetch(node.kwargs)
        if node.op == "get_attr":

            def run(values: _Values) -> None:
                values[place] = attribute(program.module, node.target)

            return run
        if node.op == "call_method":

            def run_method(values: _Values) -> None:
                first, *others = fetch_args(values)
                values[place] = getattr(first, node.target)(*others, **fetch_kwargs(values))

            return run_method
        function = program.module.get_submodule(node.target) if node.op == "call_module" else node.target

        def run_function(values: _Values) -> None:
            values[place] = function(*fetch_args(values), **fetch_kwargs(values))

        return run_function


def _joined(calls: list[tuple[Callable[..., int], tuple[int, ...]]]) -> _Run:
    """Kernels that follow each other."""

    def run(_: _Values) -> None:
        for call, arguments in calls:
            if code := call(*arguments):
                threads.check(code)

    return run


def _forgetting(places: list[int]) -> _Run:
    def run(values: _Values) -> None:
        for place in places:
            values[place] = None

    return run
