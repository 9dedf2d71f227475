"""Which module's output goes to which module, read from a symbolic execution of a model (``torch.fx``)."""

from __future__ import annotations

import inspect
import operator
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import fx

_DICTS = ("_parameters", "_buffers", "_modules")


class Dataflow:
    """What is known of the modules of a model by the ways they are called.

    ``calls``: how often each is called; ``after``: the module that alone gets its output, as its only argument;
    ``users``: how often its output is used; ``read``: ids of tensors that a ``forward`` reads from another module;
    ``failed``: the modules whose own ``forward`` cannot be executed symbolically, and why. What a failed module
    contains is known as far as its parts, each executed alone, show it.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.calls: Counter[torch.nn.Module] = Counter()
        self.after: dict[torch.nn.Module, torch.nn.Module] = {}
        self.users: Counter[torch.nn.Module] = Counter()
        self.read: set[int] = set()
        self.failed: dict[torch.nn.Module, str] = {}
        self._graphs: dict[torch.nn.Module, fx.Graph] = {}
        with _undisturbed(model):
            self._visit(model)
        for root, graph in self._graphs.items():
            self._collect(root, graph)

    def _visit(self, module: torch.nn.Module) -> bool:
        """Execute a module; where that fails its children alone, then itself with what failed among them closed."""
        if self._execute(module):
            return True
        children = [child for child in module.children() if next(child.children(), None) is not None]
        executed = {child: self._visit(child) for child in dict.fromkeys(children) if child not in self.failed}
        if all(executed.values()) or not self._execute(module):
            return False
        for child in executed:
            self._graphs.pop(child, None)
        return True

    def _execute(self, module: torch.nn.Module) -> bool:
        try:
            self._graphs[module] = _Tracer(self.failed).trace(module)
        # A model's own code runs here, on values that are no tensors: it may raise anything.
        except Exception as error:
            self.failed[module] = (str(error).splitlines() or [type(error).__name__])[0]
            return False
        self.failed.pop(module, None)
        return True

    def _collect(self, root: torch.nn.Module, graph: fx.Graph) -> None:
        for node in graph.nodes:
            if node.op == "get_attr":
                # What a forward makes as it runs is gone by now.
                self.read.add(id(attribute(root, node.target, None)))
            if node.op != "call_module":
                continue
            module = root.get_submodule(node.target)
            self.calls[module] += 1
            self.users[module] += len(node.users)
            if len(node.users) == 1:
                (user,) = node.users
                if user.op == "call_module" and user.args == (node,) and not user.kwargs:
                    self.after[module] = root.get_submodule(user.target)


def _in_place(name: str):
    function = getattr(operator, name)

    def call(self: fx.Proxy, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return call


class _Value(fx.Proxy):
    """A symbolic value that keeps ``a += b`` apart from ``a = a + b``, for others may hold ``a``."""

    for _name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor", "imatmul"):
        vars()[f"__{_name}__"] = _in_place(_name)


class _Tracer(fx.Tracer):
    """Goes into modules but for torch's own, layers, and those known to fail."""

    def __init__(self, closed: dict[torch.nn.Module, str]) -> None:
        super().__init__()
        self.closed = closed

    def trace(self, root, concrete_args=None):
        for parameter in inspect.signature(root.forward).parameters.values():
            # A symbolic value is never None: an optional argument would look as if it were always given.
            if parameter.default is not parameter.empty or parameter.kind in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            ):
                raise ValueError(f"its forward has an optional argument, {parameter.name}")
        return super().trace(root, concrete_args)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)

    def is_leaf_module(self, module: torch.nn.Module, path: str) -> bool:
        return next(module.children(), None) is None or module in self.closed or super().is_leaf_module(module, path)


def attribute(root: torch.nn.Module, target: str, *default: object) -> object:
    """What a ``get_attr`` node reads."""
    path, _, name = target.rpartition(".")
    return getattr(root.get_submodule(path), name, *default)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def hooked(module: torch.nn.Module) -> bool:
    """Whether something else happens when the module is called than its class's ``forward``."""
    return "forward" in vars(module) or any(getattr(module, hooks, None) for hooks in _HOOKS)


def traced(model: torch.nn.Module) -> fx.Graph:
    """The whole model as one graph, whose modules are torch's own, layers, and what has hooks. Raises whatever the
    model's code raises on symbolic values. Tensors that the model makes as it runs become buffers of it that no
    state_dict holds."""
    with _undisturbed(model):
        hooked_modules = {module: "has hooks" for module in model.modules() if module is not model and hooked(module)}
        graph = _Tracer(hooked_modules).trace(model)
        made = {node.target: attribute(model, node.target) for node in graph.find_nodes(op="get_attr")}
    for name, value in made.items():
        if "." not in name and not hasattr(model, name):
            model.register_buffer(name, value, persistent=False)
    return graph


@contextmanager
def _undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Whatever a ``forward`` assigns to its module meanwhile is undone."""
    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    before = [(dict(vars(module)), [dict(vars(module)[name]) for name in _DICTS]) for module in modules]
    try:
        yield
    finally:
        for module, (attributes, dicts) in zip(modules, before, strict=True):
            vars(module).clear()
            vars(module).update(attributes)
            for name, content in zip(_DICTS, dicts, strict=True):
                vars(module)[name].clear()
                vars(module)[name].update(content)
