"""Autograd of the plain eager calls: plans forward and backward, the ops as soon as something else wants to see.

Backward runs the ops where it is itself recorded (``create_graph``) or observed, so that derivatives of any order and
batched gradients are theirs; else it calls the plans of the forward call's backend, in whatever thread it runs.
"""

from __future__ import annotations

from torch.autograd import Function

from .dispatch import gradient_request
from .eager import Entry, reaches_plain_backward
from .ops import OPS
from .ops.derivatives import bias_gradient, local_bias_gradient


def _conv_geometry(entry: Entry) -> tuple:
    p = entry.problem
    return (p.sh, p.sw), p.sides, (p.dh, p.dw), p.g, gradient_request(entry.request)


class Conv2d(Function):
    by_input, by_weight = "conv2d_grad_input", "conv2d_grad_weight"
    bias_gradient = staticmethod(bias_gradient)

    @staticmethod
    def forward(ctx, input, weight, bias, entry):
        ctx.save_for_backward(input, weight)
        ctx.entry = entry
        return entry.plan(input, weight, bias)

    @classmethod
    def gradients(cls, ctx, grad_output):
        (input, weight), entry, needs = ctx.saved_tensors, ctx.entry, ctx.needs_input_grad
        by_input = by_weight = None
        if reaches_plain_backward(grad_output):
            if needs[0]:
                by_input = entry.other(cls.by_input)(grad_output, weight)
            if needs[1]:
                by_weight = entry.other(cls.by_weight)(grad_output, input)
        else:
            geometry = _conv_geometry(entry)
            if needs[0]:
                by_input = OPS[cls.by_input](grad_output, weight, input.shape[2:], *geometry)
            if needs[1]:
                by_weight = OPS[cls.by_weight](grad_output, input, weight.shape[-2:], *geometry)
        return by_input, by_weight, cls.bias_gradient(grad_output) if needs[2] else None, None

    @staticmethod
    def backward(ctx, grad_output):
        return Conv2d.gradients(ctx, grad_output)


class LocalConv2d(Conv2d):
    by_input, by_weight = "local_conv2d_grad_input", "local_conv2d_grad_weight"
    bias_gradient = staticmethod(local_bias_gradient)

    @staticmethod
    def backward(ctx, grad_output):
        return LocalConv2d.gradients(ctx, grad_output)


class ConvTranspose2d(Function):
    """The grad_input of a convolution, called forward."""

    @staticmethod
    def forward(ctx, input, weight, bias, entry):
        ctx.save_for_backward(input, weight)
        ctx.entry = entry
        output = entry.plan(input, weight)
        return output if bias is None else output.add_(bias.reshape(1, -1, 1, 1))

    @staticmethod
    def backward(ctx, grad_output):
        (input, weight), entry, needs = ctx.saved_tensors, ctx.entry, ctx.needs_input_grad
        by_input = by_weight = None
        if reaches_plain_backward(grad_output):
            if needs[0]:
                by_input = entry.other("conv2d")(grad_output, weight, None)
            if needs[1]:
                by_weight = entry.other("conv2d_grad_weight")(input, grad_output)
        else:
            geometry = _conv_geometry(entry)
            if needs[0]:
                by_input = OPS["conv2d"](grad_output, weight, None, *geometry)
            if needs[1]:
                by_weight = OPS["conv2d_grad_weight"](input, grad_output, weight.shape[2:], *geometry)
        return by_input, by_weight, grad_output.sum((0, 2, 3)) if needs[2] else None, None


def _pool_geometry(entry: Entry) -> tuple:
    p = entry.problem
    return (p.kh, p.kw), (p.sh, p.sw), (p.ph, p.pw)


def _adaptive_size(entry: Entry) -> list[int]:
    return [entry.problem.oh, entry.problem.ow] if entry.problem.adaptive else []


class MaxPool2d(Function):
    @staticmethod
    def forward(ctx, input, entry):
        values, indices = entry.plan(input)
        ctx.save_for_backward(indices)
        ctx.mark_non_differentiable(indices)
        ctx.set_materialize_grads(False)
        ctx.entry = entry
        return values, indices

    @staticmethod
    def backward(ctx, grad_output, _):
        if grad_output is None:
            return None, None
        (indices,), entry = ctx.saved_tensors, ctx.entry
        if reaches_plain_backward(grad_output):
            return entry.other("max_pool2d_scatter")(grad_output, indices), None
        p = entry.problem
        rest = (p.dh, p.dw), p.ceil, _adaptive_size(entry), gradient_request(entry.request)
        geometry = (*_pool_geometry(entry), *rest)
        return OPS["max_pool2d_scatter"](grad_output, indices, (p.ih, p.iw), *geometry), None


class AvgPool2d(Function):
    @staticmethod
    def forward(ctx, input, entry):
        ctx.entry = entry
        return entry.plan(input)

    @staticmethod
    def backward(ctx, grad_output):
        entry = ctx.entry
        if reaches_plain_backward(grad_output):
            return entry.other("avg_pool2d_grad_input")(grad_output), None
        p = entry.problem
        rest = p.ceil, p.include_pad, p.divisor or None, _adaptive_size(entry), gradient_request(entry.request)
        geometry = (*_pool_geometry(entry), *rest)
        return OPS["avg_pool2d_grad_input"](grad_output, (p.ih, p.iw), *geometry), None


def _apply(function: type[Function]):
    """``function.apply`` without its search for functorch levels and dead wrappers, which an eager call has not."""
    return super(Function, function).apply


conv2d, conv_transpose2d, local_conv2d = _apply(Conv2d), _apply(ConvTranspose2d), _apply(LocalConv2d)
max_pool2d, avg_pool2d = _apply(MaxPool2d), _apply(AvgPool2d)
