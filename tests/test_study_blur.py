"""Blurred down-sampling: its filter, torch as the judge of its values, and what it does for shifted inputs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cells import on_cpu
from torch import Tensor

from spatialconv import dispatch, nn
from spatialconv.nn.blur import SIZES, binomial

MODES = ("reflect", "circular", "zeros", "replicate")
TORCH_MODE = {"zeros": "constant"}


def image(rows: int = 12, columns: int = 16, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, rows, columns, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("size", SIZES)
def test_the_filter_is_binomial_and_sums_to_one_in_every_dtype(size):
    expected = torch.ones(1, dtype=torch.float64)
    for _ in range(size - 1):
        expected = F.pad(expected, (1, 0)) + F.pad(expected, (0, 1))
    exact = torch.outer(expected, expected) / expected.sum() ** 2
    assert torch.equal(binomial(size), exact)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        filter = nn.BlurPool2d(3, size, dtype=dtype).filter
        assert filter.shape == (3, 1, size, size) and filter.dtype == dtype
        assert torch.equal(filter.double(), exact.expand(3, 1, size, size))
        assert torch.equal(filter.double().sum((1, 2, 3)), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_values_are_torchs(size, mode):
    before, behind = (size - 1) // 2, size - 1 - (size - 1) // 2
    for rows, columns, stride in ((12, 16, 2), (11, 13, 3), (9, 8, 1)):
        layer = nn.BlurPool2d(3, size, stride, mode).double()
        input = image(rows, columns)
        padded = F.pad(input, (before, behind, before, behind), mode=TORCH_MODE.get(mode, mode))
        expected = F.conv2d(padded, binomial(size).expand(3, 1, size, size), stride=stride, groups=3)
        torch.testing.assert_close(layer(input), expected, rtol=1e-12, atol=1e-13)
        assert layer(input).shape[2:] == (-(-rows // stride), -(-columns // stride))
        torch.testing.assert_close(layer(input[0]), expected[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
@pytest.mark.parametrize("size", SIZES)
def test_a_constant_image_stays_as_it_is(size, mode):
    constant = torch.full((1, 2, 8, 8), 3.0)
    assert torch.equal(nn.BlurPool2d(2, size, 2, mode)(constant), torch.full((1, 2, 4, 4), 3.0))


def exact_names() -> list[str]:
    """The kernels that promise one response wherever a pattern stands, and take a depthwise layer."""
    problem = dispatch.parse("conv2d n2 ic3 ih14 iw18 oc3 kh3 kw3 sh2 sw2 g3 f32")
    context = dispatch.current_context("cpu")
    return [
        name
        for name in on_cpu("conv2d")
        if dispatch.kernel(name).shift_exact and not dispatch.reasons_against(name, problem, context)
    ]


@pytest.mark.parametrize("name", exact_names())
@pytest.mark.parametrize("layer", [nn.BlurPool2d, nn.MaxBlurPool2d])
def test_with_circular_padding_shifts_by_the_stride_are_exact(layer, name):
    backend = name if layer is nn.BlurPool2d else name.partition(":")[0]
    pool = layer(3, 3, 2, "circular", backend=backend)
    input = image(dtype=torch.float32)
    for down, across in ((2, 0), (0, 2), (4, 6)):
        moved = pool(input.roll((down, across), (2, 3)))
        assert torch.equal(moved, pool(input).roll((down // 2, across // 2), (2, 3)))
    assert not torch.allclose(pool(input.roll(1, 3)), pool(input), atol=0.05)


def inconsistency(pool: torch.nn.Module, input: Tensor) -> float:
    """How far the pooled map moves away from itself when the input moves by one place: both drawn at the input's
    resolution and moved back, as a share of their variation."""

    def enlarged(x: Tensor) -> Tensor:
        return F.interpolate(pool(x), scale_factor=2, mode="bilinear")

    still = enlarged(input)
    moved = enlarged(input.roll((1, 1), (2, 3))).roll((-1, -1), (2, 3))
    return float((moved - still)[..., 4:-4, 4:-4].norm() / (still - still.mean((2, 3), keepdim=True)).norm())


@pytest.mark.parametrize("mode", MODES)
def test_blurring_halves_what_a_shift_of_one_changes(mode):
    """On images whose neighbours are alike, as photographs' are: noise, smoothed once."""
    input = F.avg_pool2d(image(34, 34, torch.float32), 3, 1)
    sharp = inconsistency(torch.nn.MaxPool2d(2), input)
    blurred = [inconsistency(nn.MaxBlurPool2d(3, size, 2, mode), input) for size in (1, 3, 5, 7)]
    assert blurred[0] == pytest.approx(sharp) and blurred[1] < 0.5 * sharp
    assert blurred == sorted(blurred, reverse=True)
    strided = inconsistency(torch.nn.AvgPool2d(1, 2), input)
    assert inconsistency(nn.BlurPool2d(3, 3, 2, mode), input) < 0.4 * strided


def test_the_maximum_is_taken_before_the_blur():
    input = image()
    windows = F.pad(input, (0, 1, 0, 1), mode="circular").unfold(2, 2, 1).unfold(3, 2, 1).amax((-1, -2))
    expected = nn.BlurPool2d(3, 3, 2, "circular").double()(windows)
    torch.testing.assert_close(nn.MaxBlurPool2d(3, 3, 2, "circular").double()(input), expected)
    negative = nn.MaxBlurPool2d(1, 1, 2, "zeros")(torch.full((1, 1, 3, 3), -2.0))
    assert torch.equal(negative, torch.full((1, 1, 2, 2), -2.0))


@pytest.mark.parametrize("layer", [nn.BlurPool2d(3, 4), nn.MaxBlurPool2d(3, 3, padding_mode="zeros", pool_size=3)])
def test_derivatives_compilation_and_state(layer):
    layer = layer.double()
    input = image(4, 5).requires_grad_()
    assert torch.autograd.gradcheck(layer, (input,), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(layer, (input,), fast_mode=True)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(input), layer(input))
    torch.testing.assert_close(torch.func.vmap(layer)(input[:, None]).squeeze(1), layer(input))
    assert not layer.state_dict() and not list(layer.parameters())
    assert layer.to(torch.bfloat16)(image(dtype=torch.bfloat16)).dtype == torch.bfloat16
    late = nn.BlurPool2d(3, device="meta").to_empty(device="cpu")
    assert torch.equal(late.filter[0, 0].double(), binomial(3))
    with torch.device("meta"):
        assert torch.equal(nn.BlurPool2d(3, device="cpu").filter[0, 0].double(), binomial(3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.BlurPool2d(3, 8), "BlurPool2d: kernel_size: expected 1 to 7, got 8"),
        (lambda: nn.BlurPool2d(0), "BlurPool2d: channels: expected a positive integer, got 0"),
        (lambda: nn.BlurPool2d(3, stride=0), "BlurPool2d: stride: expected a positive integer, got 0"),
        (lambda: nn.BlurPool2d(3, padding_mode="same"), "BlurPool2d: padding_mode: expected reflect or circular"),
        (lambda: nn.MaxBlurPool2d(3, pool_size=0), "MaxBlurPool2d: pool_size: expected a positive integer, got 0"),
        (lambda: nn.BlurPool2d(3, backend="none"), "backend: expected one of auto"),
    ],
)
def test_bad_arguments_are_refused(make, words):
    with pytest.raises(ValueError) as raised:
        make()
    assert words in str(raised.value)
    with pytest.raises(RuntimeError, match=r"BlurPool2d: input: expected \[n, 3, h, w\] or \[3, h, w\], got \(1, 4"):
        nn.BlurPool2d(3)(torch.zeros(1, 4, 8, 8))
