"""The calculus of the ops: every op is linear in each of its tensors, so its derivatives are ops of the same few.

    T(x, w, g) = Σ g · (w ∗ x)      conv2d = ∂T/∂g,  conv2d_grad_input = ∂T/∂x,  conv2d_grad_weight = ∂T/∂w

so too where w is another filter at every output position, in the ``local_`` ops.
Average pooling's adjoint is its gradient; max pooling is a gather by indices, its gradient the scatter, and so on for
ever. ``pull[op](args, outputs, grad, needs)`` gives the gradient by each leading tensor argument (None where not
needed); ``push[op](args, outputs, tangents)`` the tangent of the (first) output.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import dispatch
from .schemas import OPS

SCATTER, GATHER = OPS["max_pool2d_scatter"], OPS["max_pool2d_gather"]
AVERAGE, AVERAGE_INPUT = OPS["avg_pool2d"], OPS["avg_pool2d_grad_input"]


def gradient_request(geometry: tuple) -> tuple:
    """An op's arguments behind its tensors, with the request that a forward one means for its gradients."""
    return (*geometry[:-1], dispatch.gradient_request(geometry[-1]))


def conj(tensor):
    """torch's gradients of holomorphic functions are conjugated."""
    return tensor.conj() if tensor.is_complex() else tensor


def bias_gradient(grad):
    """The gradient by a bias [oc]."""
    return grad.sum((0, 2, 3))


def local_bias_gradient(grad):
    """The gradient by a bias [oh, ow, oc]."""
    return grad.sum(0).movedim(0, -1)


def total(*terms):
    """The sum of the terms that are there."""
    result = None
    for term in terms:
        if term is not None:
            result = term if result is None else result + term
    return result


class Convolution:
    """The three passes of T and their derivatives, tied or untied, with what their biases' shapes ask for."""

    def __init__(self, name: str, gradient_of_bias: Callable, spread_bias: Callable) -> None:
        self.conv, self.by_input, self.by_weight = (OPS[name + part] for part in ("", "_grad_input", "_grad_weight"))
        self.gradient_of_bias, self.spread_bias = gradient_of_bias, spread_bias

    def forward_pull(self, args, outputs, grad, needs):
        input, weight, bias, *geometry = args
        geometry = gradient_request(geometry)
        return (
            self.by_input(grad, conj(weight), input.shape[2:], *geometry) if needs[0] else None,
            self.by_weight(grad, conj(input), weight.shape[-2:], *geometry) if needs[1] else None,
            self.gradient_of_bias(grad) if needs[2] else None,
        )

    def forward_push(self, args, outputs, tangents):
        input, weight, bias, *geometry = args
        by_input, by_weight, by_bias = tangents[:3]
        return total(
            None if by_input is None else self.conv(by_input, weight, None, *geometry),
            None if by_weight is None else self.conv(input, by_weight, None, *geometry),
            None if by_bias is None else self.spread_bias(by_bias).expand(outputs[0].shape).clone(),
        )

    def grad_input_pull(self, args, outputs, grad, needs):
        grad_output, weight, size, *geometry = args
        geometry = gradient_request(geometry)
        return (
            self.conv(grad, conj(weight), None, *geometry) if needs[0] else None,
            self.by_weight(conj(grad_output), grad, weight.shape[-2:], *geometry) if needs[1] else None,
        )

    def grad_input_push(self, args, outputs, tangents):
        grad_output, weight, *rest = args
        by_grad, by_weight = tangents[:2]
        return total(
            None if by_grad is None else self.by_input(by_grad, weight, *rest),
            None if by_weight is None else self.by_input(grad_output, by_weight, *rest),
        )

    def grad_weight_pull(self, args, outputs, grad, needs):
        grad_output, input, size, *geometry = args
        geometry = gradient_request(geometry)
        return (
            self.conv(conj(input), grad, None, *geometry) if needs[0] else None,
            self.by_input(conj(grad_output), grad, input.shape[2:], *geometry) if needs[1] else None,
        )

    def grad_weight_push(self, args, outputs, tangents):
        grad_output, input, *rest = args
        by_grad, by_input = tangents[:2]
        return total(
            None if by_grad is None else self.by_weight(by_grad, input, *rest),
            None if by_input is None else self.by_weight(grad_output, by_input, *rest),
        )


TIED = Convolution("conv2d", bias_gradient, lambda bias: bias.reshape(1, -1, 1, 1))
UNTIED = Convolution("local_conv2d", local_bias_gradient, lambda bias: bias.movedim(-1, -3))
conv2d_pull, conv2d_push = TIED.forward_pull, TIED.forward_push
conv2d_grad_input_pull, conv2d_grad_input_push = TIED.grad_input_pull, TIED.grad_input_push
conv2d_grad_weight_pull, conv2d_grad_weight_push = TIED.grad_weight_pull, TIED.grad_weight_push
local_conv2d_pull, local_conv2d_push = UNTIED.forward_pull, UNTIED.forward_push
local_conv2d_grad_input_pull, local_conv2d_grad_input_push = UNTIED.grad_input_pull, UNTIED.grad_input_push
local_conv2d_grad_weight_pull, local_conv2d_grad_weight_push = UNTIED.grad_weight_pull, UNTIED.grad_weight_push


def max_pool2d_pull(args, outputs, grad, needs):
    input, *geometry = args
    return (SCATTER(grad, outputs[1], input.shape[2:], *gradient_request(geometry)) if needs[0] else None,)


def max_pool2d_push(args, outputs, tangents):
    return GATHER(tangents[0], outputs[1], *gradient_request(args[1:]))


max_pool2d_offsets_pull, max_pool2d_offsets_push = max_pool2d_pull, max_pool2d_push


def max_pool2d_scatter_pull(args, outputs, grad, needs):
    grad_output, indices, size, *geometry = args
    return (GATHER(grad, indices, *gradient_request(geometry)) if needs[0] else None, None)


def max_pool2d_scatter_push(args, outputs, tangents):
    return SCATTER(tangents[0], *args[1:])


def max_pool2d_gather_pull(args, outputs, grad, needs):
    input, indices, *geometry = args
    return (SCATTER(grad, indices, input.shape[2:], *gradient_request(geometry)) if needs[0] else None, None)


def max_pool2d_gather_push(args, outputs, tangents):
    return GATHER(tangents[0], *args[1:])


def avg_pool2d_pull(args, outputs, grad, needs):
    input, *geometry = args
    return (AVERAGE_INPUT(grad, input.shape[2:], *gradient_request(geometry)) if needs[0] else None,)


def avg_pool2d_push(args, outputs, tangents):
    return AVERAGE(tangents[0], *args[1:])


def avg_pool2d_grad_input_pull(args, outputs, grad, needs):
    grad_output, size, *geometry = args
    return (AVERAGE(grad, *gradient_request(geometry)) if needs[0] else None,)


def avg_pool2d_grad_input_push(args, outputs, tangents):
    return AVERAGE_INPUT(tangents[0], *args[1:])


PULL = {name: globals()[f"{name}_pull"] for name in OPS}
PUSH = {name: globals()[f"{name}_push"] for name in OPS}
TENSORS = {
    "conv2d": 3,
    "conv2d_grad_input": 2,
    "conv2d_grad_weight": 2,
    "local_conv2d": 3,
    "local_conv2d_grad_input": 2,
    "local_conv2d_grad_weight": 2,
    "max_pool2d": 1,
    "max_pool2d_offsets": 1,
    "max_pool2d_scatter": 2,
    "max_pool2d_gather": 2,
    "avg_pool2d": 1,
    "avg_pool2d_grad_input": 1,
}
