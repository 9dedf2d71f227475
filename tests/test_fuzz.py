"""Random arguments, most of them nonsense: torch's result or torch's kind of exception, and never a crash."""

from __future__ import annotations

import random
import sys
import warnings

import child
import pytest
import torch
import torch.nn.functional as F
from calls import OP_CALLS, assert_same, flat, sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import spatialconv

SETTINGS = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
HUGE = 2**31
numbers = st.one_of(st.integers(1, 4), st.integers(-1, 6), st.sampled_from((7, HUGE, 2**62)))
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
        image, kernel = [[*shape, 1][: draw(st.integers(2, 5))] for shape in (image, kernel)]
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
    except Exception as error:
        return None, error


def entries(options) -> list:
    return [entry for option in options for entry in (option if isinstance(option, (tuple, list)) else (option,))]


def ill_typed(options) -> bool:
    return any(isinstance(entry, (bool, float, str)) or entry is None for entry in entries(options))


# The differences from torch that are meant, each with its reason.
def deliberate(name, shapes, options, theirs, ours) -> str | None:
    error = theirs[1]
    if any(type(entry) is int and abs(entry) >= HUGE - 1 for entry in entries(options)):
        return "torch's arithmetic is of 32 bits in places, or wraps around; ours is exact, or refuses in words"
    if name.startswith("conv") and 0 in (*shapes[0], *shapes[1]):
        return "nothing to sum: ours is the shape that mathematics gives, or refused; torch's rules differ by function"
    if any(isinstance(option, (tuple, list)) and len(option) < 2 for option in options):
        return "a sequence of one integer stands for both everywhere; torch takes it in some arguments only"
    if name.startswith("adaptive") and None in options:
        return "None stands for both of the input's own sizes, as it does for one of them"
    if name == "adaptive_max_pool2d" and len(shapes[0]) == 3 and shapes[0][0] == 0:
        return "an image without channels is refused, as torch refuses it in a batch"
    if name == "adaptive_avg_pool2d" and len(shapes[0]) == 2:
        return "torch takes the mean of a matrix where one element is asked for, and refuses it otherwise"
    if isinstance(error, IndexError):
        return "torch reads a dimension before it checks the rank"
    if "INTERNAL ASSERT" in str(error):
        return "torch fails an assertion of its own"
    if ours[1] is not None and error is not None and ill_typed(options):
        return "several faults at once: torch's parser sees a wrong type first, ours may name another one"
    return None


def enormous(call, shapes, options) -> bool:
    """Whether the call is good and gives, or pads to, more than a test should hold."""
    tensors = [None if shape is None else torch.empty(shape, device="meta") for shape in shapes]
    results, error = outcome(call, tensors, options)
    if error is not None:
        return False
    padded = any(type(entry) is int and entry >= HUGE for entry in entries(options[1:3]))
    return padded or max(result.numel() for result in results) > 2**20


def compare(name, shapes, options):
    ours_of, theirs_of = getattr(spatialconv, name), getattr(F, name)
    if enormous(ours_of, shapes, options) or enormous(theirs_of, shapes, options):
        return
    tensors = [None if shape is None else sample(shape, seed) for seed, shape in enumerate(shapes)]
    theirs = outcome(theirs_of, tensors, options)
    for backend in ("extension", "reference"):
        ours = outcome(lambda *args, backend=backend: ours_of(*args, backend=backend), tensors, options)
        assert ours[1] is None or str(ours[1]).startswith("spatialconv."), ours[1]
        if type(ours[1]) is type(theirs[1]) and ours[1] is not None:
            continue
        if deliberate(name, shapes, options, theirs, ours):
            continue
        assert (ours[1] is None) == (theirs[1] is None) and type(ours[1]) is type(theirs[1]), (ours, theirs)
        assert_same(ours[0], theirs[0])


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
    if not holds_elements(F.max_pool2d, shapes, (*options, dilation, ceil)):
        return  # torch reads outside the plane where a window holds no element; ours is tested by itself
    compare("max_pool2d", shapes, (*options, dilation, ceil))


def holds_elements(pool, shapes, options) -> bool:
    """Whether every window of a good call lies on some input element."""
    if enormous(pool, shapes, options):
        return False
    results, error = outcome(pool, [torch.ones(shapes[0])], options)
    return error is not None or bool(torch.isfinite(results[0]).all())


@SETTINGS
@given(pool_calls(), flags, flags, st.sampled_from((None, None, 1, 3, -2, 0, 1.0)))
def test_avg_pool2d(call, ceil, include_pad, divisor):
    shapes, options = call
    if not holds_elements(F.avg_pool2d, shapes, (*options, ceil, include_pad, divisor)):
        return  # torch divides by zero where a window holds no element
    compare("avg_pool2d", shapes, (*options, ceil, include_pad, divisor))


@settings(SETTINGS, max_examples=80)
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
            shapes = (
                value.shape,
                value.shape[1:],
                (0, *value.shape[1:]),
                (2, 3, 1, 4),
                (1, 0, 2, 2),
                (*value.shape[:3], 0),
            )
            shape = choose.choice(shapes)
            count = torch.Size(shape).numel()
            # Views of one element have strides of 0.
            filled = value.flatten().repeat(-(-count // max(value.numel(), 1)) + 1)[:count].reshape(shape)
            arguments[position] = choose.choice(
                (filled, filled.float(), filled.to("meta"), value.new_ones(()).expand(shape))
            )
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
    expected = (
        RuntimeError,
        ValueError,
        TypeError,
        NotImplementedError,
        BackendUnavailableError,
        UnsupportedProblemError,
    )
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


CHILD = """
import resource, sys, warnings
sys.path[:0] = {path!r}
resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
warnings.simplefilter("ignore")
import test_fuzz
print(test_fuzz.run_ops({seed}, {count}))
"""


def check_ops(seed: int, count: int) -> None:
    """In a process of its own, with bounded memory: a crash fails the test, an allocation too large is an exception."""
    code = CHILD.format(path=sys.path, seed=seed, count=count)
    done = child.python("-X", "faulthandler", "-c", code)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "'result'" in done.stdout and "'RuntimeError'" in done.stdout, done.stdout


def test_ops_with_nonsense_do_not_crash():
    check_ops(11, 2000)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(10))
def test_ops_with_more_nonsense(seed):
    check_ops(100 + seed, 5000)
