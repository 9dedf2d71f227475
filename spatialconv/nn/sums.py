"""Sums of two branches, one of them a convolution's output: a residual block's end, which the kernel can add itself.

The convolution is moved behind the other branch, so that its kernel finds the other summand in memory and adds onto it:
what oneDNN calls the post-operation sum.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx

from .dataflow import hooked
from .folding import activation_word
from .layers import LAYERS, Conv2d

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_METHODS = ("add", "add_")


@dataclass(frozen=True)
class Sum:
    """``last`` is activation(convolution + other); nobody else sees the values of the nodes on the way to it."""

    other: fx.Node
    covered: frozenset[fx.Node]
    last: fx.Node
    activation: str | None


def find_sums(graph: fx.Graph, model: torch.nn.Module) -> dict[fx.Node, Sum]:
    """The sums of a graph by their convolution, which is moved to just before the rest of its sum."""
    found: dict[fx.Node, Sum] = {}
    for addition in list(graph.nodes):
        if not _adds(addition) or addition.args[0] is addition.args[1]:
            continue
        for branch, other in (addition.args, addition.args[::-1]):
            way = _way_back(branch, model)
            if way is None or not _can_wait(way, addition, model):
                continue
            last, behind, activation = _way_on(addition, model)
            for node in way:
                addition.prepend(node)
            found[way[0]] = Sum(other, frozenset((*way[1:], addition, *behind)), last, activation)
            break
    return found


def _adds(node: fx.Node) -> bool:
    known = (node.op == "call_function" and node.target in _ADDITIONS) or (
        node.op == "call_method" and node.target in _METHODS
    )
    return known and len(node.args) == 2 and not node.kwargs and all(isinstance(arg, fx.Node) for arg in node.args)


def _way_back(node: fx.Node, model: torch.nn.Module) -> list[fx.Node] | None:
    """From a convolution to the node, if nothing lies between and nobody else reads on the way."""
    way: list[fx.Node] = []
    while node.op == "call_module" and len(node.users) == 1:
        way.insert(0, node)
        module = model.get_submodule(node.target)
        if type(module) is Conv2d:
            return way if module.activation is None else None
        if not does_nothing(module, node):
            return None
        node = node.args[0]
    return None


def _way_on(node: fx.Node, model: torch.nn.Module) -> tuple[fx.Node, list[fx.Node], str | None]:
    """The end of the nodes behind a sum that only an activation or nothing follows, these nodes, and the activation."""
    behind: list[fx.Node] = []
    while len(node.users) == 1:
        (user,) = node.users
        if user.op != "call_module" or user.args != (node,) or user.kwargs:
            break
        module = model.get_submodule(user.target)
        if not does_nothing(module, user):
            word = activation_word(module)
            return (node, behind, None) if word is None else (user, [*behind, user], word)
        behind.append(user)
        node = user
    return node, behind, None


def _can_wait(way: list[fx.Node], until: fx.Node, model: torch.nn.Module) -> bool:
    """Whether only layers that write nothing of others stand between a convolution and the node."""
    return all(
        node.op == "call_module" and (type(module := model.get_submodule(node.target)) in _PURE) and not hooked(module)
        for node in _between(way[0], until)
    )


def _between(node: fx.Node, end: fx.Node) -> Iterator[fx.Node]:
    while (node := node.next) is not end:
        yield node


def does_nothing(module: torch.nn.Module | None, node: fx.Node) -> bool:
    """Whether a call of a module gives back its only argument."""
    if module is None:
        return False
    alone = len(node.args) == 1 and isinstance(node.args[0], fx.Node) and not node.kwargs
    return type(module) in _NOTHING and not module.training and alone and not hooked(module)


_NOTHING = (torch.nn.Identity, torch.nn.Dropout, torch.nn.Dropout2d)
_PURE = (*LAYERS.values(), *_NOTHING)
