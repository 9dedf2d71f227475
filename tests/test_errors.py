"""Bad arguments: torch's exception type, one form of message, before any kernel runs, on both call paths."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import spatialconv
from spatialconv import dispatch, eager

FORM = re.compile(r"^spatialconv\.\w+: [\w' ]+: expected .+, got .+", re.DOTALL)
BIG = 2**62


def image(*shape, **options):
    return torch.rand(*(shape or (2, 4, 6, 6)), **options)


def weight(*shape, **options):
    return torch.rand(*(shape or (6, 4, 3, 3)), **options)


X, W = image(), weight()
CONV = {
    "input of rank 2": (image(4, 6), W),
    "input of rank 5": (image(1, 2, 4, 6, 6), W),
    "weight of rank 3": (X, weight(6, 4, 3)),
    "weight of rank 5": (X, weight(6, 4, 3, 3, 3)),
    "channels": (image(2, 3, 6, 6), W),
    "channels of an unbatched input": (image(3, 6, 6), W),
    "channels with groups": (X, W, None, 1, 0, 1, 2),
    "groups 0": (X, W, None, 1, 0, 1, 0),
    "groups -1": (X, W, None, 1, 0, 1, -1),
    "groups that divide nothing": (image(2, 4, 6, 6), weight(6, 1, 3, 3), None, 1, 0, 1, 4),
    "dtypes": (X, W.double()),
    "dtypes of 16 bits": (X.bfloat16(), W),
    "bias of another dtype": (X, W, torch.rand(6).double()),
    "bias too long": (X, W, torch.rand(7)),
    "bias of rank 2": (X, W, torch.rand(6, 1)),
    "bias that is no tensor": (X, W, 1.0),
    "input that is no tensor": ([1.0], W),
    "input that is None": (None, W),
    "weight that is no tensor": (X, 3),
    "negative padding": (X, W, None, 1, -1),
    "negative padding in one entry": (X, W, None, 1, (1, -1)),
    "stride 0": (X, W, None, 0),
    "stride -1": (X, W, None, -1),
    "stride (1, 0)": (X, W, None, (1, 0)),
    "stride 1.0": (X, W, None, 1.0),
    "stride True": (X, W, None, True),
    "stride None": (X, W, None, None),
    "stride '1'": (X, W, None, "1"),
    "stride of 3": (X, W, None, (1, 1, 1)),
    "stride of 0 entries": (X, W, None, ()),
    "stride of floats": (X, W, None, (1.0, 1.0)),
    "padding of 3": (X, W, None, 1, (1, 1, 1)),
    "padding of 4": (X, W, None, 1, (1, 1, 1, 1)),
    "padding 1.5": (X, W, None, 1, 1.5),
    "padding word": (X, W, None, 1, "full"),
    "same with stride": (X, W, None, 2, "same"),
    "dilation 0": (X, W, None, 1, 0, 0),
    "dilation -2": (X, W, None, 1, 0, -2),
    "dilation of 3": (X, W, None, 1, 0, (1, 1, 1)),
    "groups 1.0": (X, W, None, 1, 0, 1, 1.0),
    "groups None": (X, W, None, 1, 0, 1, None),
    "kernel larger than the padded input": (image(2, 4, 2, 6), W),
    "kernel larger by dilation": (X, W, None, 1, 0, 3),
    "no rows": (image(2, 4, 0, 6), W, None, 1, 2),
    "no output channels": (X, weight(0, 4, 3, 3)),
    "empty kernel": (X, weight(6, 4, 0, 3)),
    "empty kernel, unbatched": (image(4, 6, 6), weight(6, 4, 3, 0)),
    "stride of 65 bits": (X, W, None, 2**64),
    "sparse": (X.to_sparse(), W),
    "sparse weight": (X, W.to_sparse()),
    "bool": (X.bool(), W.bool()),
}
TRANSPOSED = {
    "input of rank 2": (image(4, 6), weight(4, 6, 3, 3)),
    "weight of rank 3": (X, weight(4, 6, 3)),
    "channels": (image(2, 3, 6, 6), weight(4, 6, 3, 3)),
    "groups 0": (X, weight(4, 6, 3, 3), None, 1, 0, 0, 0),
    "groups that divide nothing": (X, weight(4, 6, 3, 3), None, 1, 0, 0, 3),
    "dtypes": (X, weight(4, 6, 3, 3).double()),
    "bias too long": (X, weight(4, 6, 3, 3), torch.rand(7)),
    "bias that is no tensor": (X, weight(4, 6, 3, 3), 0),
    "input that is no tensor": (4, weight(4, 6, 3, 3)),
    "negative padding": (X, weight(4, 6, 3, 3), None, 1, -1),
    "negative output_padding": (X, weight(4, 6, 3, 3), None, 2, 0, -1),
    "output_padding as large as stride": (X, weight(4, 6, 3, 3), None, 2, 0, 2),
    "stride 0": (X, weight(4, 6, 3, 3), None, 0),
    "stride 1.0": (X, weight(4, 6, 3, 3), None, 1.0),
    "dilation 0": (X, weight(4, 6, 3, 3), None, 1, 0, 0, 1, 0),
    "empty output": (image(2, 4, 1, 1), weight(4, 6, 3, 3), None, 1, 2),
    "output_padding of 3": (X, weight(4, 6, 3, 3), None, 2, 0, (1, 1, 1)),
}
POOL = {
    "rank 2": (image(6, 6), 2),
    "rank 5": (image(1, 1, 1, 6, 6), 2),
    "no tensor": (None, 2),
    "kernel 0": (X, 0),
    "kernel -2": (X, -2),
    "kernel 2.0": (X, 2.0),
    "kernel True": (X, True),
    "kernel None": (X, None),
    "kernel of 3": (X, (2, 2, 2)),
    "kernel of none": (X, ()),
    "stride 0": (X, 2, 0),
    "stride -1": (X, 2, (1, -1)),
    "stride of 3": (X, 2, (1, 1, 1)),
    "stride 1.0": (X, 2, 1.0),
    "negative padding": (X, 2, 2, -1),
    "padding over half the window": (X, 3, 1, 2),
    "padding over half of one window": (X, (4, 2), 1, (2, 2)),
    "window larger than the input": (X, 7),
    "no channels": (image(2, 0, 6, 6), 2),
    "no rows": (image(2, 4, 0, 6), 2),
    "unbatched without channels": (image(0, 6, 6), 2),
    "bool": (X.bool(), 2),
    "sparse": (X.to_sparse(), 2),
}
ADAPTIVE = {
    "rank 2": (image(6, 6), 2),
    "rank 5": (image(1, 1, 1, 6, 6), 2),
    "no tensor": ("image", 2),
    "negative": (X, -1),
    "of 3": (X, (2, 2, 2)),
    "of floats": (X, (2.0, 2)),
    "a float": (X, 2.5),
    "no rows": (image(2, 4, 0, 6), 2),
    "bool": (X.bool(), 2),
    "sparse": (X.to_sparse(), 2),
}
CASES = {
    "conv2d": CONV,
    "conv_transpose2d": TRANSPOSED,
    "max_pool2d": {**POOL, "dilation 0": (X, 2, 2, 0, 0), "dilation too large": (X, 3, 1, 0, 3),
                   "dilation 1.0": (X, 2, 2, 0, 1.0)},
    "avg_pool2d": {**POOL, "divisor 0": (X, 2, 2, 0, False, True, 0), "divisor 1.5": (X, 2, 2, 0, False, True, 1.5),
                   "divisor 0 unbatched": (image(4, 6, 6), 2, 2, 0, False, True, 0)},
    "adaptive_max_pool2d": {**ADAPTIVE, "no channels": (image(2, 0, 6, 6), 2)},
    "adaptive_avg_pool2d": ADAPTIVE,
}  # fmt: skip
# What torch lets pass although it makes no sense, or refuses in a kind of its own; each with the reason for ours.
DELIBERATE = {
    ("avg_pool2d", "rank 2"): (
        RuntimeError,
        "torch's IndexError comes of reading a dimension before checking the rank",
    ),
    ("adaptive_max_pool2d", "no tensor"): (TypeError, "torch's AttributeError comes of asking a word for its size"),
    ("adaptive_avg_pool2d", "no tensor"): (TypeError, "as above"),
}


class Observing(TorchDispatchMode):
    """Keeps calls off the short way and changes nothing."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def no_kernel_runs(monkeypatch):
    """The valid neighbours of a bad call are remembered already, and whatever kernel is chosen fails the test."""
    eager.forget()
    for warm in (1, 2, 3):
        spatialconv.avg_pool2d(X, warm, 1)
        spatialconv.max_pool2d(X, warm, 1)
        spatialconv.max_pool2d(X, 2, 2, 0, warm)
        spatialconv.adaptive_avg_pool2d(X, warm)
        spatialconv.adaptive_max_pool2d(X, warm)
        spatialconv.conv2d(X, W, None, warm)
    spatialconv.avg_pool2d(X, 2, 2, 0, False, True, 1)
    spatialconv.conv2d(X, W, None, 1, 1)
    spatialconv.conv_transpose2d(X, weight(4, 6, 3, 3))

    def chosen(*args, **kwargs):
        raise AssertionError("a kernel was chosen for bad arguments")

    monkeypatch.setattr(dispatch, "_choose", chosen)
    dispatch._memo.clear()


def raised(call, *args):
    try:
        call(*args)
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize(("name", "label"), [(name, label) for name, cases in CASES.items() for label in cases])
def test_same_type_as_torchs_and_a_message_of_our_form(name, label):
    arguments = CASES[name][label]
    theirs = raised(getattr(F, name), *arguments)
    expected = DELIBERATE[name, label][0] if (name, label) in DELIBERATE else type(theirs)
    assert theirs is not None or (name, label) in DELIBERATE, "torch accepts this"
    ours = raised(getattr(spatialconv, name), *arguments)
    assert type(ours) is expected, (ours, theirs)
    assert FORM.match(str(ours)), str(ours)
    with Observing():
        observed = raised(getattr(spatialconv, name), *arguments)
    assert (type(observed), str(observed)) == (type(ours), str(ours))


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_devices_must_agree(name, position):
    arguments = [X, weight(4, 4, 3, 3), torch.rand(4)]
    arguments[position] = arguments[position].to("meta")
    ours = raised(getattr(spatialconv, name), *arguments)
    assert type(ours) is RuntimeError and FORM.match(str(ours)) and "meta" in str(ours)


@pytest.mark.parametrize("arguments", [
    (torch.empty(2**60, 1, 1, 1, device="meta"), torch.empty(8, 1, 1, 1, device="meta")),
    (torch.empty(1, 1, 8, 8, device="meta"), torch.empty(2**31, 1, 1, 1, device="meta"), None, 1, 2**30),
    (X, W, None, 1, BIG),
    (X, W, None, 1, 0, BIG),
    (X, W, None, BIG, (BIG, 0)),
])  # fmt: skip
def test_sizes_that_overflow(arguments):
    ours = raised(spatialconv.conv2d, *arguments)
    assert isinstance(ours, (RuntimeError, ValueError)) and FORM.match(str(ours)), ours


def test_pool_sizes_that_overflow():
    for call in (spatialconv.max_pool2d, spatialconv.avg_pool2d):
        for arguments in ((X, BIG), (X, 2, BIG), (X, BIG, 1, BIG // 2)):
            ours = raised(call, *arguments)
            assert ours is None or (isinstance(ours, (RuntimeError, ValueError, AssertionError))), ours
    assert FORM.match(str(raised(spatialconv.adaptive_avg_pool2d, X, (2**40, 2**40))))


def test_message_reads_like_this():
    with pytest.raises(RuntimeError) as refused:
        spatialconv.conv2d(image(2, 3, 6, 6), W)
    assert str(refused.value) == (
        "spatialconv.conv2d: input: expected 4 channels (weight (6, 4, 3, 3), groups=1), got 3: (2, 3, 6, 6)"
    )


OPS = {
    "conv2d_grad_input": (torch.rand(2, 6, 4, 4), W, (6, 6), (1, 1), (0, 0), (1, 1), 1, "auto"),
    "conv2d_grad_weight": (torch.rand(2, 6, 4, 4), X, (3, 3), (1, 1), (0, 0), (1, 1), 1, "auto"),
    "max_pool2d_scatter": (torch.rand(2, 4, 3, 3), torch.zeros(2, 4, 3, 3, dtype=torch.int64), (6, 6), (2, 2), (2, 2),
                           (0, 0), (1, 1), False, [], "auto"),
    "max_pool2d_gather": (X, torch.zeros(2, 4, 3, 3, dtype=torch.int64), (2, 2), (2, 2), (0, 0), (1, 1), False, [],
                          "auto"),
    "avg_pool2d_grad_input": (torch.rand(2, 4, 3, 3), (6, 6), (2, 2), (2, 2), (0, 0), False, True, None, [], "auto"),
}  # fmt: skip
BAD = {
    "wrong output size": lambda args: (torch.rand(2, args[0].shape[1], 7, 9), *args[1:]),
    "rank 3": lambda args: (args[0][0], *args[1:]),
    "another dtype": lambda args: (args[0], args[1].to(torch.float64 if args[1].is_floating_point() else torch.int32),
                                   *args[2:]),
    "another rank": lambda args: (args[0], args[1][None], *args[2:]),
}  # fmt: skip


@pytest.mark.parametrize("label", BAD)
@pytest.mark.parametrize("name", OPS)
def test_gradient_ops_refuse_what_does_not_fit(name, label):
    if name == "avg_pool2d_grad_input" and label in ("another dtype", "another rank"):
        arguments = (*OPS[name][:1], (6, 9), *OPS[name][2:])
    else:
        arguments = BAD[label](OPS[name])
    ours = raised(getattr(torch.ops.spatialconv, name), *arguments)
    assert type(ours) is RuntimeError and FORM.match(str(ours)), ours
