"""The compiled key of a call is the one that Python builds, and both refuse the same calls."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode

import spatialconv
from spatialconv import dispatch, eager
from spatialconv.backends.extension import loader

pytestmark = pytest.mark.skipif(loader.unavailable() is not None, reason="the compiled part is missing")


class Subclass(Tensor):
    pass


INPUTS: dict[str, Callable[[], object]] = {
    "dense": lambda: torch.ones(2, 3, 4, 5),
    "channels_last": lambda: torch.ones(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "cut out": lambda: torch.ones(2, 3, 9, 9)[:, :, 1:5, 2:7],
    "unbatched": lambda: torch.ones(3, 4, 5),
    "recorded": lambda: torch.ones(2, 3, 4, 5, requires_grad=True),
    "Parameter": lambda: Parameter(torch.ones(2, 3, 4, 5)),
    "double": lambda: torch.ones(2, 3, 4, 5, dtype=torch.float64),
    "subclass": lambda: torch.ones(2, 3, 4, 5).as_subclass(Subclass),
    "complex": lambda: torch.ones(2, 3, 4, 5, dtype=torch.complex64),
    "negative bit": lambda: torch.ones(2, 3, 4, 5)._neg_view(),
    "zero tensor": lambda: torch._efficientzerotensor((2, 3, 4, 5)),
    "sparse": lambda: torch.ones(2, 3).to_sparse(),
    "meta": lambda: torch.ones(2, 3, 4, 5, device="meta"),
    "list": lambda: [1.0],
    "None": lambda: None,
}
PLAIN = {"dense", "channels_last", "cut out", "unbatched", "recorded", "Parameter", "double", "complex"}
WEIGHT, BIAS = torch.ones(4, 3, 2, 2), torch.ones(4)
OPTIONS = (1, (2, 1), "same", None)


def both(op: str, *arguments) -> tuple | None:
    """The key that both give."""
    spatialconv.conv2d(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
    compiled, right = eager.call_key(op, *arguments), eager.python_key(op, *arguments)
    assert eager.call_key is loader.load().call_key
    assert compiled == right and (right is None or hash(compiled) == hash(right))
    return right


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("place", ["input", "weight", "bias"])
def test_tensors(name: str, place: str) -> None:
    tensor = INPUTS[name]()
    operands = {"input": torch.ones(2, 3, 4, 5), "weight": WEIGHT, "bias": BIAS, place: tensor}
    key = both("conv2d", *operands.values(), OPTIONS, (), "extension")
    assert (key is not None) == (name in PLAIN or (name == "None" and place != "input"))
    if place == "input":
        assert (both("max_pool2d", tensor, None, None, OPTIONS, (True,), None) is not None) == (name in PLAIN)


@pytest.mark.parametrize(
    "value", [1, -3, 2**70, "same", None, (1, 2), (2**70, 0), True, 1.0, (1,), (1, 2, 3), [1, 2], (True, 1), (1, 2.0)]
)
def test_options(value: object) -> None:
    exact = type(value) in (int, str, type(None)) or (
        type(value) is tuple and len(value) == 2 and all(type(part) is int for part in value)
    )
    assert (both("avg_pool2d", torch.ones(1, 1, 2, 2), None, None, (2, value), (False,), None) is not None) == exact


@pytest.mark.parametrize("flag", [True, False, 1, None])
def test_flags(flag: object) -> None:
    taken = both("avg_pool2d", torch.ones(1, 1, 2, 2), None, None, (2,), (True, flag), None) is not None
    assert taken == (type(flag) is bool)


class Watching(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


OBSERVERS = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "profiler": lambda: torch.autograd.profiler.profile(),
    "function mode": Watching,
    "dispatch mode": lambda: FakeTensorMode(allow_non_fake_inputs=True),
    "forward AD": torch.autograd.forward_ad.dual_level,
}


@pytest.mark.parametrize("name", OBSERVERS)
def test_what_observes_calls_takes_them_off_the_short_way(name: str) -> None:
    arguments = "conv2d", torch.ones(2, 3, 4, 5), WEIGHT, BIAS, OPTIONS, (), None
    assert both(*arguments) is not None
    with OBSERVERS[name]():
        assert eager.call_key(*arguments) is None and eager.python_key(*arguments) is None
    assert both(*arguments) is not None


def test_transforms_take_calls_off_the_short_way() -> None:
    seen = []

    def call(image: Tensor) -> Tensor:
        arguments = "conv2d", torch.ones(2, 3, 4, 5), WEIGHT, None, OPTIONS, (), None
        seen.append((eager.call_key(*arguments), eager.python_key(*arguments)))
        return image

    torch.func.vmap(call)(torch.ones(2, 1))
    assert seen == [(None, None)]


def test_surroundings_are_in_the_key() -> None:
    arguments = "conv2d", torch.ones(2, 3, 4, 5), WEIGHT, None, OPTIONS, (), None
    keys, threads = {both(*arguments)}, torch.get_num_threads()
    precision = torch.backends.mkldnn.conv.fp32_precision
    try:
        torch.set_num_threads(threads + 1)
        keys.add(both(*arguments))
        torch.use_deterministic_algorithms(True)
        keys.add(both(*arguments))
        torch.backends.mkldnn.conv.fp32_precision = "tf32"
        keys.add(both(*arguments))
        with dispatch.use_backend("reference"):
            keys.add(both(*arguments))
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
        torch.backends.mkldnn.conv.fp32_precision = precision
    assert len(keys) == 5


def test_nothing_is_kept_of_what_it_is_given() -> None:
    image, options = torch.ones(2, 3, 4, 5), (int("100000"), 2)
    given = image, WEIGHT, BIAS, options, options[0], image.dtype
    before = [sys.getrefcount(part) for part in given]
    for bias in (BIAS, None):
        for tensor in (image, image._neg_view(), [1.0]):
            for _ in range(100):
                eager.call_key("conv2d", tensor, WEIGHT, bias, options, (), None)
    del tensor
    assert [sys.getrefcount(part) for part in given] == before


def test_an_error_on_the_way_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.autograd.forward_ad, "_current_level")
    with pytest.raises(AttributeError, match="_current_level"):
        eager.call_key("conv2d", torch.ones(1, 1, 1, 1), WEIGHT, None, OPTIONS, (), None)
    with pytest.raises(TypeError, match="exactly 7"):
        loader.load().call_key("conv2d")
