"""Random arguments, most of them nonsense: torch's result or torch's kind of exception, and never a crash."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from calls import OP_CALLS, assert_same, flat, sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import spatialconv

SETTINGS = settings(
    max_examples=250, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
HUGE = (2**31, 2**40, 2**62, -(2**62))
numbers = st.one_of(st.integers(1, 4), st.integers(-1, 6), st.sampled_from((7, 2**31, 2**62)))
sizes = st.one_of(numbers, st.tuples(numbers, numbers), st.tuples(numbers), st.lists(numbers, min_size=2, max_size=2))
oddities = st.sampled_from((None, True, 1.5, "1", (), (1, 2, 3), (1.0, 1), [], "same", 2**70))
anything = st.one_of(sizes, sizes, sizes, sizes, oddities)
small = st.one_of(st.integers(1, 5), st.integers(0, 9))
flags = st.booleans()


def usually(likely, *others):
    """Mostly the first, so that a call often gets past its first check."""
    return st.one_of(likely, likely, likely, *others)


@st.composite
def conv2d_calls(draw):
    groups = draw(usually(st.integers(1, 3), st.sampled_from((0, -1, 4, 2**40, None, 1.0))))
    count = groups if isinstance(groups, int) and 0 < groups < 9 else 1
    per_group, filters = draw(st.integers(0, 2)), draw(st.integers(0, 2)) * count
    image = [draw(st.integers(0, 2)), per_group * count, draw(small), draw(small)]
    kernel = [filters, per_group, draw(st.integers(0, 3)), draw(st.integers(1, 3))]
    if draw(usually(st.just(False), st.just(True))):
        image, kernel = ([*shape, 1][: draw(st.integers(2, 5))] for shape in (image, kernel))
    elif draw(st.booleans()):
        image = image[1:]
    bias = draw(st.sampled_from((None, (filters,), (filters,), (filters + 1,))))
    padding = draw(st.one_of(anything, st.sampled_from(("same", "valid", 0, 1))))
    options = (draw(usually(st.just(1), anything)), padding, draw(usually(st.just(1), anything)), groups)
    return [tuple(image), tuple(kernel), bias], options


@st.composite
def conv_transpose2d_calls(draw):
    groups = draw(usually(st.integers(1, 2), st.sampled_from((0, -1, 3, None))))
    count = groups if isinstance(groups, int) and groups > 0 else 1
    channels, per_group = draw(st.integers(0, 2)) * count, draw(st.integers(0, 2))
    image = (draw(st.integers(0, 2)), channels, draw(st.integers(0, 4)), draw(st.integers(1, 4)))
    kernel = (channels, per_group, draw(st.integers(0, 3)), draw(st.integers(1, 3)))
    bias = draw(st.sampled_from((None, (per_group * count,), (per_group * count,), (9,))))
    modest = st.one_of(st.integers(-1, 3), st.tuples(st.integers(0, 3), st.integers(0, 3)), oddities)
    unbatched = draw(st.booleans())
    options = (draw(modest), draw(modest), draw(usually(st.just(0), modest)), groups, draw(usually(st.just(1), modest)))
    return [image[1:] if unbatched else image, kernel, bias], options


@st.composite
def pool_calls(draw):
    image = (draw(st.integers(0, 2)), draw(st.integers(0, 2)), draw(small), draw(small))
    image = draw(st.sampled_from((image, image, image[1:], image[2:])))
    geometry = draw(anything), draw(st.one_of(st.none(), anything)), draw(usually(st.sampled_from((0, 1)), anything))
    return [image], geometry


def outcome(call, tensors, options):
    """What a call gives: its results, or its exception."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return flat(call(*tensors, *options)), None
    except MemoryError as error:
        return None, error
    except Exception as error:
        return None, error


# The differences from torch that are meant, each with its reason. Arguments: name, shapes, options, torch's outcome and ours.
def deliberate(name, shapes, options, theirs, ours) -> str | None:
    results, error = theirs
    words = str(error)
    flat_options = [entry for option in options for entry in (option if isinstance(option, (tuple, list)) else (option,))]
    if any(isinstance(entry, int) and abs(entry) >= 2**31 - 1 for entry in flat_options):
        if ours[1] is not None or ours[0] is not None and results is None:
            return "torch's arithmetic is of 32 bits or wraps around; ours is refused in words or exact"
    if name.startswith("conv") and results is None and len(shapes[0]) in (3, 4) and 0 in shapes[1] + shapes[0]:
        return "an empty operand: ours is the shape that mathematics gives, or refused as elsewhere"
    if name.startswith("conv") and results is not None and 0 in (*shapes[0], *shapes[1]):
        return "no input channels or filters: torch's shape is not that of the formula, or it passes an empty filter"
    if any(isinstance(entry, (tuple, list)) and len(entry) in (0, 1) for entry in options):
        return "a sequence of one integer stands for both everywhere; torch takes it in some arguments only"
    if isinstance(error, IndexError):
        return "torch reads a dimension before it checks the rank"
    if "INTERNAL ASSERT" in words:
        return "torch fails an assertion of its own"
    return None


def compare(name, shapes, options):
    tensors = [None if shape is None else sample(shape, seed) for seed, shape in enumerate(shapes)]
    theirs = outcome(getattr(F, name), tensors, options)
    for backend in ("extension", "reference"):
        call = getattr(spatialconv, name)
        ours = outcome(lambda *args, call=call, backend=backend: call(*args, backend=backend), tensors, options)
        if theirs[0] is not None and ours[0] is not None:
            if not deliberate(name, shapes, options, theirs, ours):
                assert_same(ours[0], theirs[0])
            continue
        if type(ours[1]) is not type(theirs[1]):
            assert deliberate(name, shapes, options, theirs, ours), (name, shapes, options, theirs, ours)
        elif ours[1] is not None:
            assert str(ours[1]).startswith("spatialconv."), ours[1]


@SETTINGS
@given(conv2d_calls())
def test_conv2d(call):
    compare("conv2d", *call)


@SETTINGS
@given(conv_transpose2d_calls())
def test_conv_transpose2d(call):
    compare("conv_transpose2d", *call)


@SETTINGS
@given(pool_calls(), usually(st.just(1), anything), flags)
def test_max_pool2d(call, dilation, ceil):
    shapes, options = call
    image = sample(shapes[0], 0)
    theirs = outcome(F.max_pool2d, [image], (*options, dilation, ceil))
    if theirs[0] is not None and not torch.isfinite(theirs[0][0]).all():
        return  # torch reads outside the plane where a window holds no element; ours is tested by itself
    compare("max_pool2d", shapes, (*options, dilation, ceil))


@SETTINGS
@given(pool_calls(), flags, flags, st.sampled_from((None, None, 1, 3, -2, 0, 1.0)))
def test_avg_pool2d(call, ceil, include_pad, divisor):
    shapes, options = call
    theirs = outcome(F.avg_pool2d, [sample(shapes[0], 0)], (*options, ceil, include_pad, divisor))
    if theirs[0] is not None and not torch.isfinite(theirs[0][0]).all():
        return  # torch divides by zero where a window holds no element
    compare("avg_pool2d", shapes, (*options, ceil, include_pad, divisor))


@settings(SETTINGS, max_examples=120)
@given(st.sampled_from(("adaptive_avg_pool2d", "adaptive_max_pool2d")), pool_calls(),
       st.one_of(st.integers(-1, 9), st.tuples(*[st.one_of(st.none(), st.integers(0, 9))] * 2), oddities))  # fmt: skip
def test_adaptive_pools(name, call, size):
    compare(name, call[0], (size,))


def nonsense(choose: random.Random):
    """One call of an op whose arguments were each left alone or replaced."""
    case = choose.choice(OP_CALLS)
    numbers = (0, -1, 1, 2, 3, 7, 2**31, 2**62, -(2**63))
    arguments = [*case.tensors(choose.choice((torch.float32, torch.float64, torch.bfloat16))), *case.rest,
                 choose.choice(("auto", "extension", "reference", "extension:direct", "cudnn"))]  # fmt: skip
    for position, value in enumerate(arguments):
        if choose.random() < 0.75:
            continue
        if isinstance(value, torch.Tensor):
            if value.dtype == torch.int64:
                value = value + choose.choice((0, 1, -100, 2**40))
            shapes = (value.shape, value.shape[1:], (0, *value.shape[1:]), (2, 3, 1, 4), (1, 0, 2, 2), (*value.shape[:3], 0))
            shape = choose.choice(shapes)
            count = torch.Size(shape).numel()
            filled = value.flatten().repeat(-(-count // max(value.numel(), 1)) + 1)[:count].reshape(shape)
            arguments[position] = choose.choice((filled, filled.float(), filled.to("meta"), filled[..., :1].expand(shape)))
        elif isinstance(value, bool):
            arguments[position] = not value
        elif isinstance(value, int):
            arguments[position] = choose.choice(numbers)
        elif isinstance(value, (tuple, list, torch.Size)):
            arguments[position] = [choose.choice(numbers) for _ in range(choose.choice((0, 1, 2, 2, 2, 3, 4)))]
        elif value is None:
            arguments[position] = choose.choice(numbers)
    return case.op, arguments


def run_ops(seed: int, count: int) -> dict[str, int]:
    """Calls that ended in each way; anything but results and exceptions in words ends the process or is raised."""
    from spatialconv.errors import BackendUnavailableError, UnsupportedProblemError

    choose, ends = random.Random(seed), {}
    expected = (RuntimeError, ValueError, TypeError, NotImplementedError, BackendUnavailableError, UnsupportedProblemError)
    for _ in range(count):
        op, arguments = nonsense(choose)
        try:
            for result in flat(op(*arguments)):
                if not result.is_meta:
                    result.clone()
            end = "result"
        except expected as error:
            assert str(error), (op, arguments)
            end = type(error).__name__
        ends[end] = ends.get(end, 0) + 1
    return ends


def test_ops_with_nonsense_do_not_crash():
    code = f"import sys; sys.path[:0] = {sys.path!r}; import warnings; warnings.simplefilter('ignore'); import test_fuzz; print(test_fuzz.run_ops(11, 3000))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'result'" in done.stdout and "RuntimeError" in done.stdout, done.stdout


@pytest.mark.full
@pytest.mark.parametrize("seed", range(20))
def test_ops_with_more_nonsense(seed):
    assert run_ops(100 + seed, 3000)["result"] > 100
