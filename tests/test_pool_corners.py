"""Pooling where it is easy to be wrong: NaN, ties, -inf, windows without an input element, divisors, integers."""

from __future__ import annotations

import itertools

import geometries
import pytest
import torch
import torch.nn.functional as F
from compare import bits
from torch import Tensor

import spatialconv
from spatialconv.problem import parse
from spatialconv.shapes import memory_format

# Triton's kernels are interpreted here, slowly.
BACKENDS = [
    pytest.param(name, marks=[pytest.mark.full(cost=2)] if name == "triton" else [])
    for name, info in spatialconv.backends().items()
    if info.available and info.kernels.get("max_pool2d")
]
LAYOUTS = (torch.contiguous_format, torch.channels_last)
INF, NAN = torch.inf, torch.nan


def both(backend: str, input: Tensor, *args, **options) -> None:
    """Values, indices and gradient are torch's."""
    for layout in LAYOUTS:
        mine, theirs = (input.clone(memory_format=layout).requires_grad_(input.is_floating_point()) for _ in range(2))
        values, indices = spatialconv.max_pool2d(mine, *args, return_indices=True, backend=backend, **options)
        expected, positions = F.max_pool2d(theirs, *args, return_indices=True, **options)
        assert same_numbers(values.detach(), expected.detach())
        assert torch.equal(indices, positions)
        assert values.stride() == expected.stride() and indices.stride() == positions.stride()
        if input.is_floating_point():
            weights = (torch.arange(values.numel()) % 5 + 1).to(values.dtype).reshape(values.shape)
            values.backward(weights)
            expected.backward(weights)
            assert torch.equal(mine.grad, theirs.grad)


def same_numbers(first: Tensor, second: Tensor) -> bool:
    """Bitwise equality, the sign of zero included; any NaN is as good as another."""
    kept = [bits(tensor.masked_fill(tensor.isnan(), 0)) for tensor in (first, second)]
    return torch.equal(*kept) and torch.equal(first.isnan(), second.isnan())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_wins_wherever_it_stands(backend: str, dtype: torch.dtype) -> None:
    for places in itertools.combinations(range(9), 2):
        plane = torch.arange(9.0)
        plane[list(places)] = NAN
        both(backend, plane.reshape(1, 1, 3, 3).repeat(1, 19, 1, 1).to(dtype), 3, 1, 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_beats_infinity_and_the_rows_of_a_long_image(backend: str) -> None:
    plane = torch.randn(1, 3, 9, 50, generator=torch.Generator().manual_seed(0))
    draw = torch.rand(plane.shape, generator=torch.Generator().manual_seed(1))
    for low, value in ((0.0, NAN), (0.1, INF), (0.2, -INF)):
        plane[(draw >= low) & (draw < low + 0.1)] = value
    for kernel, stride, padding in ((2, 2, 0), (3, 2, 1), (3, 1, 1), (5, 3, 2)):
        both(backend, plane, kernel, stride, padding)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_of_equals_wins(backend: str) -> None:
    both(backend, torch.zeros(2, 5, 7, 35), 3, 2, 1)
    both(backend, torch.randint(0, 2, (2, 17, 9, 40), generator=torch.Generator().manual_seed(0)).float(), 3, 2, 1)
    signed = torch.zeros(1, 1, 4, 4)
    signed[0, 0, ::2, ::2] = -0.0
    both(backend, signed, 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_lowest_gives_the_first_element(backend: str) -> None:
    for geometry in ((2,), (3, 2, 1), (3, 1, 1)):
        both(backend, torch.full((1, 3, 8, 21), -INF), *geometry)


@pytest.mark.parametrize(("ceil_mode", "dilation"), [(True, 1), (True, 2), (False, 2), (False, 3)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_ceil_mode_and_dilation(backend: str, ceil_mode: bool, dilation: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for size in (7, 10, 12, 13):
        input = torch.randn(1, 3, size, size + 9, generator=generator)
        for kernel, stride, padding in itertools.product((2, 3), (1, 2, 3), (0, 1)):
            both(backend, input, kernel, stride, padding, dilation, ceil_mode)


EMPTY_WINDOWS = (
    ((1, 1, 1, 4), (2, 1), (1, 1), (1, 0), (2, 1)),
    ((2, 3, 2, 2), (2, 2), (1, 1), (1, 1), (3, 3)),
    ((1, 17, 1, 40), (2, 2), (1, 1), (1, 1), (2, 2)),
)


@pytest.mark.parametrize("case", EMPTY_WINDOWS, ids=[str(case) for case in EMPTY_WINDOWS])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_window_without_input_is_lowest_and_takes_no_gradient(backend: str, layout, case) -> None:
    """The index is that of the first row and column the window would have inside, drawn into the plane."""
    shape, kernel, stride, padding, dilation = case
    input = torch.randn(shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    input.requires_grad_()
    values, indices = spatialconv.max_pool2d(
        input, kernel, stride, padding, dilation, return_indices=True, backend=backend
    )
    _, _, height, width = shape
    expected = torch.zeros(shape)
    lowest = 0
    for row, column in itertools.product(range(values.shape[2]), range(values.shape[3])):
        rows = taps(row * stride[0] - padding[0], kernel[0], dilation[0])
        columns = taps(column * stride[1] - padding[1], kernel[1], dilation[1])
        inside = [(y, x) for y in rows if y < height for x in columns if x < width]
        if inside:
            for image, channel in itertools.product(range(shape[0]), range(shape[1])):
                best = max(inside, key=lambda place: float(input[image, channel, place[0], place[1]].detach()))
                assert values[image, channel, row, column] == input[image, channel, best[0], best[1]]
                assert indices[image, channel, row, column] == best[0] * width + best[1]
                expected[image, channel, best[0], best[1]] += 1
        else:
            lowest += 1
            assert torch.equal(values[:, :, row, column], torch.full(shape[:2], -INF))
            place = min(rows[0], height - 1) * width + min(columns[0], width - 1)
            assert (indices[:, :, row, column] == place).all()
    assert lowest > 0
    values.backward(torch.ones_like(values))
    assert torch.equal(input.grad, expected)


def taps(start: int, kernel: int, dilation: int) -> list[int]:
    """The positions a window reads that are not before the image."""
    return [start + step * dilation for step in range(kernel) if start + step * dilation >= 0] or [0]


@pytest.mark.parametrize("divisor", [None, 1, 7, -3])
@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_divisor_of_an_average_is_torchs(backend: str, ceil_mode: bool, include: bool, divisor: int | None) -> None:
    for size, kernel, stride, padding in itertools.product((5, 6, 9, 11), (2, 3, 4), (1, 2, 3), (0, 1)):
        options = dict(ceil_mode=ceil_mode, count_include_pad=include, divisor_override=divisor)
        mine = torch.ones(1, 2, size, size + 8, dtype=torch.float64, requires_grad=True)
        theirs = mine.detach().clone().requires_grad_()
        output = spatialconv.avg_pool2d(mine, kernel, stride, padding, **options, backend=backend)
        expected = F.avg_pool2d(theirs, kernel, stride, padding, **options)
        torch.testing.assert_close(output, expected, rtol=1e-14, atol=1e-14)
        output.sum().backward()
        expected.sum().backward()
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_divisor_of_zero_is_refused(backend: str) -> None:
    input = torch.ones(1, 1, 4, 4)
    with pytest.raises(RuntimeError):
        F.avg_pool2d(input, 2, divisor_override=0)
    with pytest.raises(RuntimeError, match="divisor_override: expected an integer other than 0, got 0"):
        spatialconv.avg_pool2d(input, 2, divisor_override=0, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_average_of_nan_and_infinity_is_torchs(backend: str) -> None:
    input = torch.randn(1, 3, 9, 40, generator=torch.Generator().manual_seed(0))
    draw = torch.rand(input.shape, generator=torch.Generator().manual_seed(1))
    for low, value in ((0.0, NAN), (0.02, INF), (0.04, -INF)):
        input[(draw >= low) & (draw < low + 0.02)] = value
    for layout in LAYOUTS:
        mine = input.contiguous(memory_format=layout)
        output, expected = spatialconv.avg_pool2d(mine, 3, 2, 1, backend=backend), F.avg_pool2d(mine, 3, 2, 1)
        torch.testing.assert_close(output, expected, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_integers_pool_as_torch_does(dtype: torch.dtype) -> None:
    info = torch.iinfo(dtype)
    input = torch.randint(max(info.min, -1000), min(info.max, 1000), (2, 3, 9, 11), dtype=dtype)
    input[0, 0] = info.min
    for geometry in ((2,), (3, 2, 1), (3, 1, 1)):
        values, indices = spatialconv.max_pool2d(input, *geometry, return_indices=True, backend="reference")
        expected, positions = F.max_pool2d(input, *geometry, return_indices=True)
        assert torch.equal(values, expected) and torch.equal(indices, positions)


def test_integers_average_as_torch_does() -> None:
    input = torch.randint(-1000, 1000, (2, 3, 9, 11))
    for divisor in (None, 5, -3):
        for include in (True, False):
            options = dict(count_include_pad=include, divisor_override=divisor)
            output = spatialconv.avg_pool2d(input, 3, 2, 1, **options, backend="reference")
            assert torch.equal(output, F.avg_pool2d(input, 3, 2, 1, **options))


@pytest.mark.parametrize("backend", BACKENDS)
def test_adaptive_windows_are_torchs(backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for height, width, oh, ow in itertools.product((1, 5, 8), (3, 17), (1, 3, 7), (2, 5, 17)):
        for layout in LAYOUTS:
            input = torch.randn(2, 3, height, width, generator=generator).contiguous(memory_format=layout)
            mine, theirs = input.clone().requires_grad_(), input.clone().requires_grad_()
            values, indices = spatialconv.adaptive_max_pool2d(mine, (oh, ow), return_indices=True, backend=backend)
            expected, positions = F.adaptive_max_pool2d(theirs, (oh, ow), return_indices=True)
            assert torch.equal(values, expected) and torch.equal(indices, positions)
            average = spatialconv.adaptive_avg_pool2d(mine, (oh, ow), backend=backend)
            right = F.adaptive_avg_pool2d(theirs, (oh, ow))
            torch.testing.assert_close(average, right)
            (values * 2 + average).sum().backward()
            (expected * 2 + right).sum().backward()
            torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("line", geometries.POOL["max_pool2d"])
def test_window_offsets_stand_for_the_same_places_as_indices(line, layout, dtype):
    """Values, gradient and second derivative by uint8 offsets are those by int64 indices, bit for bit."""
    problem = parse(f"max_pool2d {line} {layout}")
    if problem.kh * problem.kw > 256 or problem.empty:
        return
    rest = ((problem.kh, problem.kw), (problem.sh, problem.sw), (problem.ph, problem.pw), (problem.dh, problem.dw))
    rest = (*rest, problem.ceil, [], "reference")
    ops = torch.ops.spatialconv
    input = torch.randn(problem.input_shape).to(dtype).contiguous(memory_format=memory_format(layout))
    values, indices = ops.max_pool2d(input, *rest)
    same, offsets = ops.max_pool2d_offsets(input, *rest)
    assert offsets.dtype == torch.uint8 and offsets.stride() == indices.stride() and torch.equal(values, same)
    grad = torch.randn(problem.output_shape).to(values)
    size = problem.input_shape[2:]
    by_indices, by_offsets = (ops.max_pool2d_scatter(grad, kept, size, *rest) for kept in (indices, offsets))
    assert torch.equal(by_indices, by_offsets)
    first, second = (ops.max_pool2d_gather(input, kept, *rest) for kept in (indices, offsets))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("size", [(6, 8), (5, 35), (4, 33)], ids=str)
@pytest.mark.parametrize("beyond", [0, 2**32], ids=["in the plane", "beyond it"])
def test_the_extension_scatters_indices_outside_of_their_windows(beyond, size, layout, dtype):
    """Windows of 2 x 2 that tile the image. One index is that of a far window, or is ignored."""
    height, width = size
    shape, rest = (2, 9, height // 2, width // 2), ((2, 2), (2, 2), (0, 0), (1, 1), False, [])
    input = torch.randn(2, 9, height, width).contiguous(memory_format=layout)
    indices = torch.ops.spatialconv.max_pool2d(input, *rest, "reference")[1]
    grad = torch.randint(1, 9, shape).to(dtype).contiguous(memory_format=layout)
    indices[1, 4, 0, 0] = indices[1, 4, -1, -1] + beyond
    found = torch.ops.spatialconv.max_pool2d_scatter(grad, indices, size, *rest, "extension")
    kept = grad.double() * (indices < height * width)
    right = torch.zeros(2, 9, height * width, dtype=torch.float64)
    right.scatter_add_(2, indices.flatten(2) % 2**32, kept.flatten(2))
    assert torch.equal(found.double(), right.reshape(2, 9, height, width))


@pytest.mark.parametrize(
    ("kernel", "adaptive"), [((17, 16), []), ((2, 2), [2, 2])], ids=["more than 256 taps", "windows of several sizes"]
)
def test_offsets_that_a_byte_cannot_hold_are_refused(kernel, adaptive):
    ops, rest = torch.ops.spatialconv, ((2, 2), (0, 0), (1, 1), False, adaptive, "auto")
    input = torch.zeros(1, 1, 20, 20)
    with pytest.raises(RuntimeError, match="expected windows of one size with at most 256 taps"):
        ops.max_pool2d_offsets(input, kernel, *rest)
    shape = (1, 1, *adaptive) if adaptive else (1, 1, 2, 3)
    with pytest.raises(RuntimeError, match="expected windows of one size with at most 256 taps"):
        ops.max_pool2d_gather(input, torch.zeros(shape, dtype=torch.uint8), kernel, *rest)
