"""Autograd, forward-mode AD and ``torch.func`` for the ops, on the ops' own Autograd key.

``torch.library.register_autograd`` breaks ``torch.func.grad`` and gives a silent zero tangent in forward mode, so the
key's kernel is ours: it applies a single-level autograd function, as functorch's own machinery does. This file alone
uses torch's private names for that; ``missing_names`` says which of them this torch lacks.
"""

from __future__ import annotations

import torch
import torch.autograd.forward_ad as forward_ad
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch.autograd.function import _SingleLevelFunction

from ..activations import FUNCTIONS
from .derivatives import PULL, PUSH, TENSORS
from .schemas import LIBRARY, OPS

_C = torch._C
# Values, and where each stands: no derivative.
TWO_RESULTS = ("max_pool2d", "max_pool2d_offsets")


def missing_names() -> list[str]:
    """The private names used here that this torch lacks; empty on every supported one."""
    wanted = {
        _C: (
            "_are_functorch_transforms_active",
            "_AutoDispatchBelowAutograd",
            "_after_autograd_keyset",
            "_any_requires_grad",
        ),
        forward_ad: ("_current_level", "_set_fwd_grad_enabled"),
    }
    return [
        f"{module.__name__}.{name}" for module, names in wanted.items() for name in names if not hasattr(module, name)
    ]


def _below_autograd(op, keyset, args):
    with _C._AutoDispatchBelowAutograd():
        return op.redispatch(keyset & _C._after_autograd_keyset, *args)


def _function(name: str) -> type:
    op, tensors, pull, push = OPS[name], TENSORS[name], PULL[name], PUSH[name]

    def forward(ctx, keyset, *args):
        if _C._are_functorch_transforms_active():
            # An inner level still has to be recorded, and forward() runs with recording off.
            with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                result = _below_autograd(op, keyset, args)
        else:
            result = _below_autograd(op, keyset, args)
        outputs = result if isinstance(result, tuple) else (result,)
        if name in TWO_RESULTS:
            ctx.mark_non_differentiable(outputs[1])
        ctx.set_materialize_grads(False)
        ctx.rest = args[tensors:]
        ctx.count = tensors
        ctx.save_for_backward(*args[:tensors], *outputs[1:])
        if forward_ad._current_level >= 0:
            ctx.primal = args, outputs
        return result

    def backward(ctx, grad, *unused):
        if grad is None:
            return (None,) * (1 + tensors + len(ctx.rest))
        saved = ctx.saved_tensors
        args = (*saved[:tensors], *ctx.rest)
        grads = pull(args, (None, *saved[tensors:]), grad, ctx.needs_input_grad[1:])
        return (None, *grads, *(None for _ in ctx.rest))

    def jvp(ctx, keyset, *tangents):
        args, outputs = ctx.primal
        del ctx.primal
        tangent = push(args, outputs, tangents)
        return (tangent, None) if name in TWO_RESULTS else tangent

    body = {"forward": staticmethod(forward), "backward": staticmethod(backward), "jvp": staticmethod(jvp)}
    return type(f"Autograd_{name}", (_SingleLevelFunction,), body)


def _register(name: str) -> None:
    op, function = OPS[name], _function(name)
    activation = [argument.name for argument in op._schema.arguments].index("activation") if name == "conv2d" else None

    def autograd(keyset, *args):
        if (torch.is_grad_enabled() and _C._any_requires_grad(*args)) or forward_ad._current_level >= 0:
            if activation is not None and len(args) > activation and args[activation] is not None:
                # Two steps, each of which records itself: no derivative of a fused call is written anywhere.
                return FUNCTIONS[args[activation]](op(*args[:activation]))
            with enable_single_level_autograd_function():
                return function.apply(keyset, *args)
        return _below_autograd(op, keyset, args)

    LIBRARY.impl(name, autograd, "Autograd", with_keyset=True)


for _name in OPS:
    _register(_name)
