"""The public functions on tensors that are not dense: the values and the strides of the result are torch's."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import spatialconv

BACKENDS = [name for name, info in spatialconv.backends().items() if info.available]
SHAPE = (2, 6, 9, 11)


def base(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


VIEWS: dict[str, Callable[[], Tensor]] = {
    "dense": lambda: base(*SHAPE),
    "channels_last": lambda: base(*SHAPE).contiguous(memory_format=torch.channels_last),
    "cut out": lambda: base(3, 8, 12, 15)[1:, 1:7, 2:11, 3:14],
    "cut out of channels_last": lambda: base(3, 8, 12, 15).contiguous(memory_format=torch.channels_last)[
        1:, 1:7, 2:11, 3:14
    ],
    "every other": lambda: base(2, 12, 18, 22)[:, ::2, ::2, ::2],
    "transposed": lambda: base(2, 6, 11, 9).transpose(2, 3),
    "batch and channels swapped": lambda: base(6, 2, 9, 11).transpose(0, 1),
    "one image for all": lambda: base(1, 6, 9, 11).expand(SHAPE),
    "one channel for all": lambda: base(2, 1, 9, 11).expand(SHAPE),
    "one row for all": lambda: base(2, 6, 1, 11).expand(SHAPE),
    "one number for all": lambda: base(1, 1, 1, 1).expand(SHAPE),
    "overlapping": lambda: base(400).as_strided(SHAPE, (100, 20, 7, 1)),
    "at an odd address": lambda: base(2 * 6 * 9 * 11 + 3)[3:].view(SHAPE),
    "flipped": lambda: base(*SHAPE).flip(3),
}
CALLS: dict[str, Callable] = {
    "conv2d": lambda m, x, o: m.conv2d(x, base(4, 6, 3, 3), base(4), 2, 1, **o),
    "conv2d, weight channels_last": lambda m, x, o: m.conv2d(
        x, base(4, 6, 3, 3).contiguous(memory_format=torch.channels_last), padding="same", **o
    ),
    "conv2d, weight cut out": lambda m, x, o: m.conv2d(x, base(5, 8, 4, 4)[:4, 1:7, :3, 1:], **o),
    "conv2d, bias of stride 0": lambda m, x, o: m.conv2d(x, base(4, 6, 1, 1), base(1).expand(4), **o),
    "conv2d, depthwise": lambda m, x, o: m.conv2d(x, base(6, 1, 3, 3), None, 1, 1, 1, 6, **o),
    "conv_transpose2d": lambda m, x, o: m.conv_transpose2d(x, base(6, 4, 3, 3), None, 2, 1, 1, **o),
    "max_pool2d": lambda m, x, o: m.max_pool2d(x, 3, 2, 1, **o),
    "avg_pool2d": lambda m, x, o: m.avg_pool2d(x, 3, 2, 1, **o),
    "adaptive_max_pool2d": lambda m, x, o: m.adaptive_max_pool2d(x, (4, 5), **o),
    "adaptive_avg_pool2d": lambda m, x, o: m.adaptive_avg_pool2d(x, (4, 5), **o),
}


def combinations() -> list:
    """All; of the interpreted backend, slow, every call and every view once, the rest only where all is asked for."""
    found = []
    for number, (backend, call, view) in enumerate(itertools.product(BACKENDS, CALLS, VIEWS)):
        row, column = divmod(number % (len(CALLS) * len(VIEWS)), len(VIEWS))
        dear = backend == "triton" and column % len(CALLS) != row
        marks = [pytest.mark.full(cost=2)] if dear else []
        found.append(pytest.param(backend, call, view, id=f"{backend}-{call}-{view}", marks=marks))
    return found


@pytest.mark.parametrize(("backend", "call", "view"), combinations())
def test_a_view_gives_torchs_result(backend: str, call: str, view: str) -> None:
    mine, theirs = VIEWS[view]().detach(), VIEWS[view]().detach()
    mine.requires_grad_()
    theirs.requires_grad_()
    output, expected = CALLS[call](spatialconv, mine, {"backend": backend}), CALLS[call](F, theirs, {})
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    assert layout(output) == layout(expected)
    grad = base(*output.shape)
    got, right = torch.autograd.grad(output, mine, grad)[0], torch.autograd.grad(expected, theirs, grad)[0]
    torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        again = CALLS[call](spatialconv, mine, {"backend": backend})
    assert torch.equal(again, output) and layout(again) == layout(output)


def layout(tensor: Tensor) -> str:
    if tensor.is_contiguous():
        return "nchw"
    return "nhwc" if tensor.is_contiguous(memory_format=torch.channels_last) else str(tensor.stride())
