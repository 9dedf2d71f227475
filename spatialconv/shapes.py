"""Shape arithmetic, argument checks and the output-layout rule, shared by every op and backend.

Sizes may be symbolic (``torch.SymInt``): a check on symbolic sizes becomes a condition of the traced program.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

import torch

from .errors import argument_error

INT64_MAX = 2**63 - 1
Pair = tuple[int, int]


def require(condition, error: Callable[[], Exception]) -> None:
    """Raise ``error()`` unless the condition holds; a symbolic condition is recorded with the trace instead."""
    if isinstance(condition, torch.SymBool):
        torch._check(condition, lambda: str(error()))
    elif not condition:
        raise error()


def integer(op: str, argument: str, value) -> int:
    """The value as an integer, refusing bool and float as torch does."""
    if type(value) is int or isinstance(value, torch.SymInt):
        return value
    if isinstance(value, (bool, float, str)):
        raise argument_error(op, argument, "an integer", repr(value), TypeError)
    try:
        return operator.index(value)
    except TypeError:
        raise argument_error(op, argument, "an integer", repr(value), TypeError) from None


def flag(op: str, argument: str, value) -> bool:
    """The value, which must be True or False, as in torch."""
    if type(value) is not bool:
        raise argument_error(op, argument, "True or False", repr(value), TypeError)
    return value


def pair(op: str, argument: str, value) -> Pair:
    """One or two integers as (vertical, horizontal)."""
    if isinstance(value, (list, tuple)) or isinstance(value, torch.Size):
        values = [integer(op, argument, entry) for entry in value]
        if len(values) not in (1, 2):
            raise argument_error(op, argument, "one integer or two", list(value))
        values = values * 2 if len(values) == 1 else values
    else:
        values = [integer(op, argument, value)] * 2
    for entry in values:
        if type(entry) is int and not -INT64_MAX - 1 <= entry <= INT64_MAX:
            raise argument_error(op, argument, "integers of 64 bits", entry, ValueError)
    return values[0], values[1]


def check_positive(op: str, argument: str, values: Sequence[int]) -> None:
    for value in values:
        require(value > 0, lambda: argument_error(op, argument, "positive integers", tuple(values)))


def check_not_negative(op: str, argument: str, values: Sequence[int]) -> None:
    for value in values:
        require(value >= 0, lambda: argument_error(op, argument, "integers of at least 0", tuple(values)))


def check_fits(op: str, argument: str, shape: Sequence[int], itemsize: int = 16) -> None:
    """Refuse shapes whose bytes do not fit 63 bits, before any arithmetic on them can wrap around."""
    total = itemsize
    for size in shape:
        if not isinstance(size, int):
            return
        total *= max(size, 1)
    if total > INT64_MAX:
        raise argument_error(op, argument, "a tensor whose bytes can be counted in 63 bits", tuple(shape))


def conv_output_size(size: int, kernel: int, stride: int, before: int, after: int, dilation: int) -> int:
    """Number of positions of a dilated filter along one axis of a padded input."""
    return (size + before + after - dilation * (kernel - 1) - 1) // stride + 1


def pool_output_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """Number of windows along one axis; with ``ceil_mode`` a last window must start inside the input or its left
    padding."""
    extent = dilation * (kernel - 1) + 1
    span = size + 2 * padding - extent + (stride - 1 if ceil_mode else 0)
    count = span // stride + 1
    if ceil_mode:
        if isinstance(count, int) and isinstance(size, int):
            return count - 1 if (count - 1) * stride >= size + padding else count
        return count - torch.sym_ite((count - 1) * stride >= size + padding, 1, 0)
    return count


def adaptive_window(index: int, size: int, outputs: int) -> Pair:
    """First and one-past-last input position that adaptive pooling reads for one output."""
    return index * size // outputs, -((-(index + 1) * size) // outputs)


def is_channels_last(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether torch would call a 4-D tensor of these strides channels_last (c10::is_channels_last_strides_2d)."""
    if len(shape) != 4 or strides[1] == 0:
        return False
    smallest = 0
    for axis in (1, 3, 2, 0):
        if shape[axis] == 0 or strides[axis] < smallest:
            return False
        if axis == 0 and smallest == strides[1]:
            return False
        smallest = strides[axis] * (shape[axis] if shape[axis] > 1 else 1)
    return True


def output_layout(*tensors: torch.Tensor) -> str:
    """'nhwc' when any of the tensors is channels_last, else 'nchw'."""
    return "nhwc" if any(is_channels_last(t.shape, t.stride()) for t in tensors) else "nchw"


def memory_format(layout: str) -> torch.memory_format:
    return torch.channels_last if layout == "nhwc" else torch.contiguous_format


def dense_strides(shape: Sequence[int], layout: str) -> tuple[int, ...]:
    """Element strides of a dense 4-D tensor, in the order of its dimensions."""
    _, c, h, w = shape
    return (c * h * w, 1, w * c, c) if layout == "nhwc" else (c * h * w, h * w, w, 1)


def as_result(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    """A dense tensor of the layout whose strides say so also where a size of 1 would leave it open."""
    tensor = dense(tensor, layout)
    strides = dense_strides(tensor.shape, layout)
    return tensor if tensor.stride() == strides else tensor.as_strided(tensor.shape, strides)


def dense(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    """The tensor itself where it is dense in the layout, else a copy that is."""
    return tensor.contiguous(memory_format=memory_format(layout))
