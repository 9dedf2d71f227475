"""Shapes, the printed form, and what is counted: against torch's own shapes and against brute force."""

from __future__ import annotations

import itertools
from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F
from compare import convolution, pad
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from operands import shapes

import spatialconv
from spatialconv.bench import suites
from spatialconv.ops import OPS, arguments
from spatialconv.problem import (
    ACTIVATIONS,
    CONV_OPS,
    ITEMSIZE,
    LAYOUTS,
    LOCAL_OPS,
    Conv2dProblem,
    Pool2dProblem,
    parse,
)
from spatialconv.problem import (
    OPS as OP_NAMES,
)
from spatialconv.shapes import is_channels_last

small, size = st.integers(1, 4), st.integers(1, 14)
pair = st.one_of(small, st.tuples(small, small))
edges = st.one_of(st.integers(0, 3), st.tuples(st.integers(0, 3), st.integers(0, 3)))
quick = settings(max_examples=150, deadline=None)


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def shape_or_error(call, *args, **options):
    """The shapes that come out, or the type of what is raised."""
    try:
        result = call(*args, **options)
    except (RuntimeError, ValueError, TypeError) as error:
        return RuntimeError if isinstance(error, (RuntimeError, ValueError)) else type(error)
    return tuple(tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,)))


@st.composite
def batch_shapes(draw, channels: int) -> tuple[int, ...]:
    """[n, c, h, w] or [c, h, w]; the batch may be empty."""
    plane = (channels, draw(size), draw(size))
    return plane if draw(st.booleans()) else (draw(st.integers(0, 3)), *plane)


@quick
@given(st.data())
def test_convolution_shapes_are_torchs(data) -> None:
    groups, per_in, per_out = data.draw(small), data.draw(small), data.draw(small)
    input = meta(*data.draw(batch_shapes(groups * per_in)))
    weight = meta(groups * per_out, per_in, data.draw(small), data.draw(small))
    bias = meta(groups * per_out) if data.draw(st.booleans()) else None
    padding = data.draw(st.one_of(edges, st.sampled_from(("same", "valid"))))
    args = (input, weight, bias, data.draw(pair), padding, data.draw(pair), groups)
    assert shape_or_error(spatialconv.conv2d, *args) == shape_or_error(F.conv2d, *args)


@quick
@given(st.data())
def test_transposed_convolution_shapes_are_torchs(data) -> None:
    groups, per_in, per_out = data.draw(small), data.draw(small), data.draw(small)
    input = meta(*data.draw(batch_shapes(groups * per_in)))
    weight = meta(groups * per_in, per_out, data.draw(small), data.draw(small))
    args = (input, weight, None, data.draw(pair), data.draw(edges), data.draw(edges), groups, data.draw(pair))
    _, _, _, stride, _, extra, _, dilation = args
    axes = zip(both_axes(stride), both_axes(extra), both_axes(dilation), strict=True)
    if any(more >= step and more >= spacing for step, more, spacing in axes):
        # torch refuses it on real tensors and lets it through on meta tensors and empty batches; here it is refused.
        expected = RuntimeError
    else:
        real = tuple(torch.ones(arg.shape) if isinstance(arg, torch.Tensor) else arg for arg in args)
        expected = shape_or_error(F.conv_transpose2d, *real)
        # So it is with an output without rows or columns, where torch has no image to compute.
        if expected is not RuntimeError and 0 in expected[0][-2:]:
            expected = RuntimeError
    assert shape_or_error(spatialconv.conv_transpose2d, *args) == expected


def both_axes(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


@quick
@given(st.data())
def test_pooling_shapes_are_torchs(data) -> None:
    input = meta(*data.draw(batch_shapes(data.draw(small))))
    stride = data.draw(st.one_of(st.none(), pair))
    kernel, padding, ceil_mode = data.draw(pair), data.draw(edges), data.draw(st.booleans())
    dilation = data.draw(pair)
    args = (input, kernel, stride, padding)
    ours = shape_or_error(spatialconv.max_pool2d, *args, dilation, ceil_mode, return_indices=True)
    assert ours == shape_or_error(F.max_pool2d, *args, dilation, ceil_mode, return_indices=True)
    assert shape_or_error(spatialconv.avg_pool2d, *args, ceil_mode) == shape_or_error(F.avg_pool2d, *args, ceil_mode)


@quick
@given(st.data())
def test_adaptive_pooling_shapes_are_torchs(data) -> None:
    input = meta(*data.draw(batch_shapes(data.draw(small))))
    outputs = data.draw(st.one_of(size, st.tuples(st.one_of(st.none(), size), st.one_of(st.none(), size))))
    ours = shape_or_error(spatialconv.adaptive_avg_pool2d, input, outputs)
    assert ours == shape_or_error(F.adaptive_avg_pool2d, input, outputs)
    ours = shape_or_error(spatialconv.adaptive_max_pool2d, input, outputs, return_indices=True)
    assert ours == shape_or_error(F.adaptive_max_pool2d, input, outputs, return_indices=True)


@st.composite
def conv_problems(draw) -> Conv2dProblem:
    groups = draw(small)
    values = {name: draw(small) for name in ("kh", "kw", "sh", "sw", "dh", "dw")}
    values |= dict(n=draw(st.integers(0, 3)), g=groups, ic=groups * draw(small), oc=groups * draw(small))
    values |= dict(ih=draw(size), iw=draw(size), ph=draw(st.integers(0, 5)), pw=draw(st.integers(0, 5)))
    values |= dict(bias=draw(st.booleans()), dtype=draw(st.sampled_from(sorted(ITEMSIZE))))
    values |= dict(layout=draw(st.sampled_from(LAYOUTS)), device=draw(st.sampled_from(("cpu", "cuda"))))
    if draw(st.booleans()):
        values |= dict(oh=draw(size), ow=draw(size))
    op = draw(st.sampled_from(sorted(CONV_OPS | LOCAL_OPS)))
    if op == "conv2d":
        values |= dict(activation=draw(st.sampled_from((None, *ACTIVATIONS))))
    return Conv2dProblem(op, **values)


@st.composite
def pool_problems(draw) -> Pool2dProblem:
    adaptive = draw(st.booleans())
    values = dict(n=draw(st.integers(0, 3)), ic=draw(small), ih=draw(size), iw=draw(size))
    values |= dict(dtype=draw(st.sampled_from(sorted(ITEMSIZE))), layout=draw(st.sampled_from(LAYOUTS)))
    values |= dict(indices=draw(st.booleans()), adaptive=adaptive)
    if adaptive:
        values |= dict(oh=draw(size), ow=draw(size))
    else:
        values |= {name: draw(small) for name in ("kh", "kw", "sh", "sw", "dh", "dw")}
        values |= dict(ph=draw(st.integers(0, values["kh"] // 2)), pw=draw(st.integers(0, values["kw"] // 2)))
        values |= dict(ceil=draw(st.booleans()), include_pad=draw(st.booleans()), divisor=draw(st.integers(-3, 3)))
    return Pool2dProblem(draw(st.sampled_from([op for op in OP_NAMES if op not in CONV_OPS | LOCAL_OPS])), **values)


@quick
@given(st.one_of(conv_problems(), pool_problems()))
@example(parse("avg_pool2d n1 ic1 ih4 iw4 kh2 kw2 divisor-3"))
def test_the_printed_form_is_read_back(problem) -> None:
    assert parse(str(problem)) == problem
    assert hash(parse(str(problem))) == hash(problem)


@quick
@given(conv_problems())
def test_a_convolutions_flops_are_those_counted_one_by_one(problem) -> None:
    every = inside = 0
    for row, kh in itertools.product(range(problem.oh), range(problem.kh)):
        y = row * problem.sh + kh * problem.dh - problem.ph
        for column, kw in itertools.product(range(problem.ow), range(problem.kw)):
            x = column * problem.sw + kw * problem.dw - problem.pw
            every += 1
            inside += 0 <= y < problem.ih and 0 <= x < problem.iw
    per_tap = 2 * problem.n * problem.oc * (problem.ic // problem.g)
    assert problem.flops() == per_tap * every
    assert problem.flops(count_padding=False) == per_tap * inside


@quick
@given(conv_problems())
def test_a_convolutions_reduction_is_no_less_than_any_elements_sum(problem) -> None:
    """Counted by an ordinary convolution of ones."""
    assume(not problem.empty)
    if problem.untied:
        plain = problem.replace(bias=False)
        longest = convolution(plain, *(torch.ones(shape, dtype=torch.float64) for shape in shapes(plain)))
        assert float(longest.max()) <= problem.reduction
        return
    ones = [torch.ones(shape, dtype=torch.float64) for shape in (problem.input_shape, problem.weight_shape)]
    top, left, bottom, right = problem.sides
    input, weight = pad(ones[0], [left, right, top, bottom]), ones[1]
    options = dict(stride=(problem.sh, problem.sw), dilation=(problem.dh, problem.dw), groups=problem.g)
    grad = torch.ones(problem.output_shape, dtype=torch.float64)
    if problem.op == "conv2d":
        longest = F.conv2d(input, weight, **options)
    elif problem.op == "conv2d_grad_input":
        longest = torch.nn.grad.conv2d_input(input.shape, weight, grad, **options)
    else:
        longest = torch.nn.grad.conv2d_weight(input, weight.shape, grad, **options)
    assert float(longest.max()) <= problem.reduction


@quick
@given(conv_problems())
def test_compulsory_bytes_are_those_of_every_tensor_once(problem) -> None:
    moved = [problem.input_shape, problem.weight_shape, problem.output_shape]
    if problem.bias:
        moved.append((problem.oh, problem.ow, problem.oc) if problem.untied else (problem.oc,))
    assert problem.compulsory_bytes == sum(torch.Size(shape).numel() for shape in moved) * problem.itemsize


@quick
@given(pool_problems())
def test_a_poolings_windows_hold_what_they_read(problem) -> None:
    """The rows and columns are inside the input; flops and bytes are counted one by one."""
    read = 0
    for rows, columns in itertools.product(problem.rows(), problem.columns()):
        assert all(0 <= row < problem.ih for row in rows) and all(0 <= column < problem.iw for column in columns)
        read += len(rows) * len(columns)
    assert problem.flops(count_padding=False) == problem.n * problem.ic * read
    outputs = torch.Size(problem.output_shape).numel()
    indexed = problem.indices or problem.op in ("max_pool2d_scatter", "max_pool2d_gather")
    planes = torch.Size(problem.input_shape).numel() + outputs
    assert problem.compulsory_bytes == planes * problem.itemsize + (8 * outputs if indexed else 0)


@quick
@given(pool_problems(), st.data())
def test_a_poolings_windows_are_torchs(problem, data) -> None:
    """Where a window averages ones, torch's sum over it counts its elements."""
    assume(not problem.empty and problem.dh == problem.dw == 1)
    ones = torch.ones(1, 1, problem.ih, problem.iw, dtype=torch.float64)
    counts = torch.tensor([[len(rows) * len(columns) for columns in problem.columns()] for rows in problem.rows()])
    if problem.adaptive:
        row, column = data.draw(st.integers(0, problem.ih - 1)), data.draw(st.integers(0, problem.iw - 1))
        ones[0, 0, row, column] = 0
        average = F.adaptive_avg_pool2d(ones, (problem.oh, problem.ow))[0, 0]
        hit = [[row in rows and column in columns for columns in problem.columns()] for rows in problem.rows()]
        torch.testing.assert_close(average, 1 - torch.tensor(hit).double() / counts)
        return
    kernel, stride, padding = (problem.kh, problem.kw), (problem.sh, problem.sw), (problem.ph, problem.pw)
    total = F.avg_pool2d(ones, kernel, stride, padding, problem.ceil, divisor_override=1)
    assert torch.equal(total[0, 0], counts.double())


@pytest.mark.parametrize("suite", suites.names())
def test_every_line_of_the_suites_is_a_problem(suite: str) -> None:
    layers = suites.load(suite)
    assert layers
    for layer in layers:
        assert parse(str(layer.problem)) == layer.problem
        assert not layer.problem.empty


@pytest.mark.parametrize(
    "text",
    ["conv2d", "conv2d n1 ic3 ih5 iw5", "conv2d n1 ic3 ih5 iw5 oc4 zz3", "conv3d n1", "n1 ic3 ih5 iw5 oc4 g2",
     "n1 ic3 ih5 iw5 oc4 f99", "conv_transpose2d n1 ic3", "n1 ic3 ih5 iw5 oc--",
     "n1 ic3 ih5 iw5 oc4 kh0",
     "n1 ic3 ih5 iw5 oc4 sh-1", "n-1 ic3 ih5 iw5 oc4"],
)  # fmt: skip
def test_what_is_no_problem_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_a_transposed_convolution_is_the_grad_input_that_it_is() -> None:
    problem = parse("conv_transpose2d n2 ic6 ih5 iw7 oc4 kh3 kw2 sh2 sw3 ph1")
    weight = meta(6, 4, 3, 2)
    expected = F.conv_transpose2d(meta(2, 6, 5, 7), weight, stride=(2, 3), padding=(1, 0))
    assert problem.result_shape == tuple(expected.shape) and problem.weight_shape == tuple(weight.shape)


def test_problems_hold_integers_and_words_only() -> None:
    for kind in (Conv2dProblem, Pool2dProblem):
        assert {field.type for field in fields(kind)} <= {"int", "bool", "str", "str | None"}


@quick
@given(st.data())
def test_the_layout_rule_is_torchs(data) -> None:
    """Over permuted, sliced and expanded strides."""
    shape = [data.draw(st.integers(1, 4)) for _ in range(4)]
    order = data.draw(st.permutations(range(4)))
    tensor = torch.empty([shape[axis] for axis in order]).permute([order.index(axis) for axis in range(4)])
    if data.draw(st.booleans()):
        tensor = tensor[:, :, ::2]
    if data.draw(st.booleans()):
        axis = data.draw(st.integers(0, 3))
        tensor = tensor.narrow(axis, 0, 1).expand([3 if a == axis else -1 for a in range(4)])
    assert is_channels_last(tensor.shape, tensor.stride()) == suggests_channels_last(tensor)


def suggests_channels_last(tensor: torch.Tensor) -> bool:
    """torch's own rule, read from the strides of a result that follows its input's suggestion."""
    found = F.avg_pool2d(torch.empty_strided((*tensor.shape,), tensor.stride()), 1)
    wide = F.max_pool2d(torch.empty_strided((*tensor.shape,), tensor.stride()), 1)
    assert found.stride() == wide.stride()
    nchw = torch.empty(tensor.shape).stride()
    nhwc = torch.empty(tensor.shape, memory_format=torch.channels_last).stride()
    if nchw == nhwc:
        return is_channels_last(tensor.shape, tensor.stride())
    return found.stride() == nhwc


def test_an_ops_padding_of_four_gives_the_problems_sides() -> None:
    input, weight = meta(1, 3, 9, 10), meta(4, 3, 3, 3)
    for padding in ((1, 2, 0, 1), (0, 1, -2, 3), (2, 0, 2, -1)):
        output = OPS["conv2d"](input, weight, None, (1, 1), padding, (1, 1), 1, "auto")
        problem = arguments.conv2d_problem(
            "conv2d", input.shape, weight.shape, output.shape, (1, 1), padding, (1, 1), 1, False, input, weight
        )
        assert problem.sides == padding
