"""The calculus of the ops: every op is linear in each of its tensors, so its derivatives are ops of the same few.

    T(x, w, g) = Σ g · (w ∗ x)      conv2d = ∂T/∂g,  conv2d_grad_input = ∂T/∂x,  conv2d_grad_weight = ∂T/∂w

Average pooling's adjoint is its gradient; max pooling is a gather by indices, its gradient the scatter, and so on for
ever. ``pull[op](args, outputs, grad, needs)`` gives the gradient by each leading tensor argument (None where not
needed); ``push[op](args, outputs, tangents)`` the tangent of the (first) output.
"""

from __future__ import annotations

from .. import dispatch
from .schemas import OPS

CONV, CONV_INPUT, CONV_WEIGHT = OPS["conv2d"], OPS["conv2d_grad_input"], OPS["conv2d_grad_weight"]
SCATTER, GATHER = OPS["max_pool2d_scatter"], OPS["max_pool2d_gather"]
AVERAGE, AVERAGE_INPUT = OPS["avg_pool2d"], OPS["avg_pool2d_grad_input"]


def gradient_request(geometry: tuple) -> tuple:
    """An op's arguments behind its tensors, with the request that a forward one means for its gradients."""
    return (*geometry[:-1], dispatch.gradient_request(geometry[-1]))


def conj(tensor):
    """torch's gradients of holomorphic functions are conjugated."""
    return tensor.conj() if tensor.is_complex() else tensor


def total(*terms):
    """The sum of the terms that are there."""
    result = None
    for term in terms:
        if term is not None:
            result = term if result is None else result + term
    return result


def conv2d_pull(args, outputs, grad, needs):
    input, weight, bias, *geometry = args
    geometry = gradient_request(geometry)
    return (
        CONV_INPUT(grad, conj(weight), input.shape[2:], *geometry) if needs[0] else None,
        CONV_WEIGHT(grad, conj(input), weight.shape[2:], *geometry) if needs[1] else None,
        grad.sum((0, 2, 3)) if needs[2] else None,
    )


def conv2d_push(args, outputs, tangents):
    input, weight, bias, *geometry = args
    by_input, by_weight, by_bias = tangents[:3]
    return total(
        None if by_input is None else CONV(by_input, weight, None, *geometry),
        None if by_weight is None else CONV(input, by_weight, None, *geometry),
        None if by_bias is None else by_bias.reshape(1, -1, 1, 1).expand(outputs[0].shape).clone(),
    )


def conv2d_grad_input_pull(args, outputs, grad, needs):
    grad_output, weight, size, *geometry = args
    geometry = gradient_request(geometry)
    return (
        CONV(grad, conj(weight), None, *geometry) if needs[0] else None,
        CONV_WEIGHT(conj(grad_output), grad, weight.shape[2:], *geometry) if needs[1] else None,
    )


def conv2d_grad_input_push(args, outputs, tangents):
    grad_output, weight, *rest = args
    by_grad, by_weight = tangents[:2]
    return total(
        None if by_grad is None else CONV_INPUT(by_grad, weight, *rest),
        None if by_weight is None else CONV_INPUT(grad_output, by_weight, *rest),
    )


def conv2d_grad_weight_pull(args, outputs, grad, needs):
    grad_output, input, size, *geometry = args
    geometry = gradient_request(geometry)
    return (
        CONV(conj(input), grad, None, *geometry) if needs[0] else None,
        CONV_INPUT(conj(grad_output), grad, input.shape[2:], *geometry) if needs[1] else None,
    )


def conv2d_grad_weight_push(args, outputs, tangents):
    grad_output, input, *rest = args
    by_grad, by_input = tangents[:2]
    return total(
        None if by_grad is None else CONV_WEIGHT(by_grad, input, *rest),
        None if by_input is None else CONV_WEIGHT(grad_output, by_input, *rest),
    )


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
    "max_pool2d": 1,
    "max_pool2d_offsets": 1,
    "max_pool2d_scatter": 2,
    "max_pool2d_gather": 2,
    "avg_pool2d": 1,
    "avg_pool2d_grad_input": 1,
}
