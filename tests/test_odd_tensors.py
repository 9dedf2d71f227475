"""Tensors that are not plain memory: right, or refused in words, on the short way and through the ops."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from calls import FEW, assert_same, flat, sample
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

import spatialconv


class Observing(TorchDispatchMode):
    """Keeps calls off the short way and changes nothing."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class Subclass(torch.Tensor):
    """The plainest subclass: torch gives results of it."""


class Refused(torch.Tensor):
    """A subclass that answers for itself."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return (
            "answered" if "spatialconv" in str(function) else super().__torch_function__(function, types, args, kwargs)
        )


def negative(tensor):
    """The same values under a lazy negative bit."""
    lazy = torch.complex(torch.zeros_like(tensor), -tensor).conj().imag
    assert lazy.is_neg()
    return lazy


def overlapping(tensor):
    """Every image and every row is the same memory."""
    return tensor.as_strided(tensor.shape, (0, 0, 0, 0, 1, 1)[-tensor.dim() :])


KINDS = {
    "zero-tensor": lambda t: torch._efficientzerotensor(t.shape, dtype=t.dtype),
    "negative": negative,
    "negative and dense": lambda t: torch._neg_view(-t),
    "expanded": lambda t: t[:1].expand(t.shape),
    "all expanded": lambda t: t.flatten()[0].expand(t.shape),
    "overlapping": overlapping,
    "reversed strides": lambda t: t.permute(*reversed(range(t.dim()))).contiguous().permute(*reversed(range(t.dim()))),
    "offset slice": lambda t: F.pad(t, (1, 2) * t.dim())[(slice(1, -2),) * t.dim()],
    "every second": lambda t: t.repeat_interleave(2, dim=-1)[..., ::2],
    "parameter": lambda t: torch.nn.Parameter(t.clone()),
    "subclass": lambda t: t.as_subclass(Subclass),
    "buffer": lambda t: torch.nn.Buffer(t.clone()),
}
POSITIONS = [(case, position) for case in FEW for position in range(len(case.shapes))]


def on_both_paths(call):
    direct = call()
    with Observing():
        return direct, call()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("case", "position"), POSITIONS, ids=[f"{case}-{position}" for case, position in POSITIONS])
def test_results_are_torchs(case, position, kind):
    tensors = case.tensors(torch.float32)
    tensors[position] = KINDS[kind](tensors[position])
    expected = flat(case.theirs(*tensors))[0].detach()
    for result in on_both_paths(lambda: flat(case.ours(*tensors))[0]):
        assert isinstance(result, Subclass) == (kind == "subclass")
        assert_same(result.detach(), expected)


@pytest.mark.parametrize("kind", ["negative", "negative and dense", "zero-tensor", "expanded", "every second"])
@pytest.mark.parametrize("case", FEW, ids=str)
def test_gradients_that_are_not_plain_memory(case, kind):
    def gradients(call):
        tensors = case.tensors(torch.float32, requires_grad=True)
        output = flat(call(*tensors))[0]
        return torch.autograd.grad(output, tensors, KINDS[kind](output.detach() + 1))

    theirs = gradients(case.theirs)
    for ours in on_both_paths(lambda: gradients(case.ours)):
        assert_same(ours, theirs)


@pytest.mark.parametrize("case", FEW[:2], ids=str)
def test_conjugated_tensors(case):
    image, *rest = case.tensors(torch.complex64)
    expected = case.theirs(image.conj().resolve_conj(), *rest)
    assert image.conj().is_conj()
    for result in on_both_paths(lambda: case.ours(image.conj(), *rest)):
        assert_same(result, expected)


@pytest.mark.parametrize("case", FEW, ids=str)
def test_meta_tensors(case):
    for result in on_both_paths(lambda: flat(case.ours(*(tensor.to("meta") for tensor in case.tensors())))[0]):
        assert result.is_meta and result.shape == flat(case.theirs(*case.tensors()))[0].shape


def quantized(tensor):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(tensor, 0.1, 10, torch.quint8)


REFUSED = {"sparse": torch.Tensor.to_sparse, "mkldnn": torch.Tensor.to_mkldnn, "quantized": quantized}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("case", FEW, ids=str)
def test_refused_in_words(case, kind):
    image, *rest = case.tensors(torch.float32)
    try:
        odd = REFUSED[kind](image)
    except RuntimeError as error:
        pytest.skip(f"this torch makes no such tensor: {error}")
    for around in (torch.no_grad(), Observing()):
        with around, pytest.raises((RuntimeError, TypeError, NotImplementedError), match=r"spatialconv\.\w+: input"):
            case.ours(odd, *rest)


@pytest.mark.parametrize("case", FEW, ids=str)
def test_inference_tensors(case):
    with torch.inference_mode():
        tensors = case.tensors(torch.float32)
    expected = case.theirs(*case.tensors(torch.float32))
    for result in on_both_paths(lambda: case.ours(*tensors)):
        assert_same(result, expected)


def test_an_inference_tensor_is_not_saved_for_backward():
    with torch.inference_mode():
        image = sample((1, 2, 5, 5), 0, torch.float32)
    weight = sample((3, 2, 3, 3), 1, torch.float32).requires_grad_()
    for call in (F.conv2d, spatialconv.conv2d):
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
            call(image, weight)


def test_a_subclass_may_answer_for_itself():
    image, weight = torch.rand(1, 2, 5, 5), torch.rand(3, 2, 3, 3)
    assert spatialconv.conv2d(image.as_subclass(Refused), weight) == "answered"
    assert spatialconv.conv2d(image, weight.as_subclass(Refused)) == "answered"


def test_fake_tensor_meets_a_real_one():
    from torch._subclasses.fake_tensor import FakeTensorMode

    image = FakeTensorMode().from_tensor(torch.rand(1, 2, 5, 5))
    with pytest.raises((AssertionError, RuntimeError), match="Mixing|convert all Tensors to FakeTensors"):
        spatialconv.conv2d(image, torch.rand(3, 2, 3, 3))


@pytest.mark.parametrize("case", FEW, ids=str)
def test_wrappers_of_transforms_outside_their_transform(case):
    """A wrapper that escaped its transform is dead; it must not be read as memory."""
    escaped = []
    torch.func.vmap(lambda image: escaped.append(image) or image)(sample((2, *case.shapes[0]), 0))
    rest = case.tensors()[1:]
    for call in (case.theirs, case.ours):
        try:
            result = flat(call(escaped[0], *rest))[0]
        except (RuntimeError, AssertionError):  # torch's own words for it, from wherever it noticed
            continue
        assert_same(result, flat(case.theirs(escaped[0], *rest))[0])


def test_batched_gradients_in_a_function_of_the_users_own():
    """autograd's batched gradients are wrappers without memory, also where backward() calls us with recording off."""

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, image, weight):
            ctx.save_for_backward(weight)
            return F.conv_transpose2d(image, weight)

        @staticmethod
        def backward(ctx, grad_output):
            with Observing():
                return spatialconv.conv2d(grad_output, *ctx.saved_tensors), None

    image = sample((1, 2, 3, 3), 0).requires_grad_()
    weight = sample((2, 3, 2, 2), 1)
    assert gradcheck(lambda x: Twice.apply(x, weight), image, fast_mode=True, check_batched_grad=True)
    Twice.backward = staticmethod(lambda ctx, grad: (spatialconv.conv2d(grad, *ctx.saved_tensors), None))
    with pytest.raises(RuntimeError, match="doesn't have storage"):
        torch.autograd.grad(
            Twice.apply(image, weight), image, torch.ones(2, 1, 3, 4, 4).double(), is_grads_batched=True
        )
