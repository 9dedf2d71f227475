"""freeze() takes a model called in nchw through channels_last, where that shows in nothing but time."""

from __future__ import annotations

import pytest
import torch
from test_freeze import integers, needs_extension, steps
from torch import Tensor, nn

import spatialconv
from spatialconv.nn import freeze
from spatialconv.nn.recording import Native

pytestmark = needs_extension
SHAPE = (2, 20, 6, 5)


class Model(nn.Module):
    """A convolution and what a test puts behind it."""

    def __init__(self, behind) -> None:
        super().__init__()
        self.conv, self.last, self.behind = nn.Conv2d(20, 24, 3, padding=1), nn.Conv2d(24, 4, 1), behind
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = integers(*parameter.shape, generator=generator).float()

    def forward(self, input: Tensor):
        return self.behind(self, self.conv(input), input)


def last(model: Model, hidden: Tensor, input: Tensor) -> Tensor:
    return model.last(hidden)


def images(frozen) -> set[str]:
    """The layouts of the images that kernels read."""
    forms = [step.source_form for step in steps(frozen) if isinstance(step, Native)]
    return {"nhwc" if form.stride[1] == 1 else "nchw" for form in forms if len(form.shape) == 4}


def check(model: Model, frozen, input: Tensor) -> None:
    """Three calls give the model's values and strides, and leave the input as it was."""
    for _ in range(3):
        own, other = input.clone(), input.clone()
        expected, got = model(own), frozen(other)
        pairs = zip(expected, got, strict=True) if isinstance(expected, (list, tuple)) else [(expected, got)]
        for one, another in pairs:
            assert torch.equal(one, another) and one.stride() == another.stride()
        assert torch.equal(own, other)


def image(seed: int = 1) -> Tensor:
    return integers(*SHAPE, generator=torch.Generator().manual_seed(seed)).float()


@torch.no_grad()
def test_planes_go_through_channels_last():
    frozen = freeze(Model(last).eval())
    check(Model(last), frozen, image())
    assert images(frozen) == {"nhwc"}
    (program,) = frozen._programs.values()
    kept = {id(tensor) for forms in frozen._forms.values() for tensor in forms}
    assert len(kept) == 2, "the weights of the other layout are not kept"


@torch.no_grad()
def test_results_that_views_and_sums_make():
    def behind(model, hidden, input):
        return [hidden, hidden[:, 1:], model.last(hidden) + 1, hidden.mean(), hidden.flatten(2)]

    check(Model(behind), freeze(Model(behind).eval()), image())


@torch.no_grad()
@pytest.mark.parametrize(
    "behind",
    [
        lambda model, hidden, input: model.last(hidden).as_strided((5,), (7,)),
        lambda model, hidden, input: model.last(hidden).view(-1),
        lambda model, hidden, input: [model.last(hidden), input],
        lambda model, hidden, input: [model.last(hidden), input[:, :3]],
    ],
    ids=["as_strided", "view", "input", "view of the input"],
)
def test_what_the_layout_would_change_stays(behind):
    frozen = freeze(Model(behind).eval())
    check(Model(behind), frozen, image())
    assert images(frozen) == {"nchw"}


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_random_numbers_are_drawn_once(scale):
    def behind(model, hidden, input):
        return model.last(hidden) + scale * torch.rand_like(hidden[:, :4])

    model = Model(behind)
    frozen = freeze(Model(behind).eval())
    for seed in range(3):
        torch.manual_seed(seed)
        expected = model(image())
        torch.manual_seed(seed)
        assert torch.equal(frozen(image()), expected)
    assert images(frozen) == {"nchw"}


@torch.no_grad()
def test_a_first_call_that_tells_nothing():
    """On zeros every reading of memory gives the same."""

    def behind(model, hidden, input):
        return hidden.as_strided((5,), (7,))

    model = Model(behind).eval()
    model.conv.bias.zero_()
    frozen = freeze(model)
    frozen(torch.zeros(SHAPE))
    check(model, frozen, image())


@torch.no_grad()
@pytest.mark.parametrize(
    "behind",
    [
        lambda model, hidden, input: [torch.nonzero(hidden > 1)],
        lambda model, hidden, input: [hidden[:, :1].expand(-1, 3, -1, -1)],
        lambda model, hidden, input: [hidden.relu().to_sparse().to_dense()],
    ],
    ids=["nonzero", "expanded", "sparse"],
)
def test_results_of_other_kinds(behind):
    model, frozen = Model(behind), freeze(Model(behind).eval())
    for seed in range(4):
        check(model, frozen, image(seed))


@torch.no_grad()
def test_sparse_and_shared_results():
    frozen = freeze(Model(lambda model, hidden, input: hidden.relu().to_sparse()).eval())
    for _ in range(3):
        assert torch.equal(frozen(image()).to_dense(), frozen.model(image()).to_dense())

    frozen = freeze(Model(lambda model, hidden, input: [hidden, hidden, hidden[:, 1:]]).eval())
    for _ in range(3):
        first, second, part = frozen(image())
        assert first is second and part._base is first


@torch.no_grad()
def test_state_of_a_model_advances_once_a_call():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.count = nn.Conv2d(20, 4, 1), nn.Parameter(torch.zeros(1))

        def forward(self, input: Tensor):
            self.count.add_(1)
            return self.conv(input) + self.count

    frozen = freeze(Counting().eval())
    first = frozen(image())
    for number in (1, 2, 3):
        assert torch.allclose(frozen(image()) - first, torch.tensor(float(number)), atol=1e-4)


def test_inputs_that_are_edited_in_place():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(20, 4, 1)).eval()
    frozen = freeze(model)
    with torch.inference_mode():
        for _ in range(3):
            input = image()
            frozen(input)
            assert torch.equal(input, image().relu()), "the model edits what it is given"


@torch.no_grad()
def test_only_planes_and_only_where_no_backend_is_named():
    pixels = image().contiguous(memory_format=torch.channels_last)
    frozen = freeze(Model(last).eval())
    check(Model(last), frozen, pixels)
    (program,) = frozen._programs.values()
    assert program._planes is None and images(frozen) == {"nhwc"}
    frozen = freeze(Model(last).eval(), "extension")
    check(Model(last), frozen, image())
    assert images(frozen) == {"nchw"}


@torch.no_grad()
def test_values_that_are_not_finite():
    input = image()
    input[0, 3, 2, 2], input[1, 0, 0, 0] = float("inf"), float("nan")
    model, frozen = Model(last), freeze(Model(last).eval())
    for _ in range(3):
        torch.testing.assert_close(frozen(input), model(input), rtol=0, atol=0, equal_nan=True)
    assert images(frozen) == {"nhwc"}


@torch.no_grad()
def test_an_edit_is_transformed_in_the_layout_that_runs():
    frozen = freeze(Model(last).eval())
    frozen(image()), frozen(image())
    frozen.model.conv.weight.neg_()
    model = Model(last)
    model.conv.weight.neg_()
    check(model, frozen, image(2))
    assert spatialconv.nn.Conv2d is type(frozen.model.conv) and images(frozen) == {"nhwc"}
