"""The layer without weight sharing: what it has in common with its tied twin and what not, and how it is as a layer.

Its kernels are tested from the dispatcher's table (test_kernels), its ops with all the others (test_gradients, ...).
"""

from __future__ import annotations

import copy
import re
from contextlib import nullcontext

import pytest
import torch
from cells import on_cpu
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import spatialconv
from spatialconv import nn
from spatialconv.backends.extension import kernels
from spatialconv.bench import peers, suites
from spatialconv.problem import parse

BACKENDS = sorted({name.partition(":")[0] for name in on_cpu("local_conv2d")})
OPTIONS = [
    {},
    {"stride": 2, "padding": 1},
    {"padding": "same", "kernel_size": (2, 3)},
    {"padding": (1, 2), "dilation": 2, "groups": 2},
    {"padding": 1, "padding_mode": "circular", "bias": False},
    {"padding": (2, 1), "padding_mode": "reflect", "stride": (1, 2)},
    {"padding": "same", "padding_mode": "replicate", "kernel_size": (4, 2)},
]


def twins(options: dict, backend: str | None = None) -> tuple[torch.nn.Conv2d, nn.LocallyConnected2d]:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, **options}).double()
    layer = nn.LocallyConnected2d.of(conv, (9, 8))
    layer.backend = backend
    return conv, layer


def image(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*(shape or (2, 4, 9, 8)), generator=generator, dtype=torch.float64).to(dtype)


def gradients(layer: torch.nn.Module, input: Tensor) -> tuple[Tensor, list[Tensor]]:
    input = input.clone().requires_grad_()
    output = layer(input)
    grad_output = torch.randn(output.shape, generator=torch.Generator().manual_seed(2), dtype=output.dtype)
    return output, list(torch.autograd.grad(output, [input, *layer.parameters()], grad_output))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_with_equal_filters_it_is_a_convolution_and_its_gradients_add_up_to_the_shared_one(options, layout, backend):
    """What sharing is: one filter's gradient is the sum over all places of what each place's own would be."""
    conv, layer = twins(options, backend)
    input = image().contiguous(memory_format=layout)
    (expected, theirs), (output, ours) = gradients(conv, input), gradients(layer, input)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(ours[0], theirs[0])
    for by_place, shared in zip(ours[1:], theirs[1:], strict=True):
        assert by_place.shape[:2] == layer.output_size == tuple(expected.shape[2:])
        torch.testing.assert_close(by_place.sum((0, 1)), shared)
    assert output.stride() == expected.stride() and ours[0].stride() == theirs[0].stride()


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_position_has_its_own_filter_and_bias(backend):
    """Judged position by position by torch's convolution of that position's window."""
    torch.manual_seed(3)
    layer = nn.LocallyConnected2d(4, 6, (3, 2), (9, 8), (2, 1), (1, 0), (1, 2), 2, backend=backend).double()
    input = image()
    output, padded = layer(input), torch.nn.functional.pad(input, (0, 0, 1, 1))
    for row in range(output.shape[2]):
        for column in range(output.shape[3]):
            window = padded[:, :, 2 * row : 2 * row + 3, column : column + 3]
            one = torch.nn.functional.conv2d(
                window, layer.weight[row, column], layer.bias[row, column], dilation=(1, 2), groups=2
            )
            torch.testing.assert_close(output[:, :, row, column], one[:, :, 0, 0])


def test_a_changed_filter_changes_one_output():
    _, layer = twins({"padding": 1})
    before = layer(image())
    with torch.no_grad():
        layer.weight[4, 5] += 1
    changed = (layer(image()) != before).nonzero()
    assert {tuple(place) for place in changed[:, 2:].tolist()} == {(4, 5)} and len(changed) == 2 * 6


def test_it_does_not_move_with_its_input_as_its_twin_does():
    conv, layer = twins({"padding": 1, "padding_mode": "circular"})
    with torch.no_grad():
        for module in (conv, layer):
            torch.testing.assert_close(module(image().roll(3, 2)), module(image()).roll(3, 2))
        layer.reset_parameters()
        difference = layer(image().roll(3, 2)) - layer(image()).roll(3, 2)
        assert float(difference.norm() / layer(image()).norm()) > 0.5


@pytest.mark.parametrize("options", OPTIONS[1:4], ids=str)
def test_derivatives(options):
    torch.manual_seed(4)
    arguments = {"in_channels": 2, "out_channels": 2, "kernel_size": 2, **options, "input_size": (4, 5)}
    layer = nn.LocallyConnected2d(**arguments).double()
    parameters = {name: value.detach().clone().requires_grad_() for name, value in layer.named_parameters()}

    def call(input, *values):
        return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), (input,))

    leaves = (image(2, 2, 4, 5).requires_grad_(), *parameters.values())
    assert torch.autograd.gradcheck(call, leaves, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_compiled_exported_vectorised_copied_and_frozen():
    _, layer = twins({"padding": 1, "groups": 2})
    layer.reset_parameters()
    expected = layer(image())
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradients(compiled, image()), gradients(layer, image()))
    torch.testing.assert_close(torch.export.export(layer, (image(),)).module()(image()), expected)
    torch.testing.assert_close(torch.func.vmap(layer)(image()[:, None]).squeeze(1), expected)
    torch.testing.assert_close(copy.deepcopy(layer)(image()), expected)
    torch.testing.assert_close(layer(image()[1]), expected[1])
    model = torch.nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), torch.nn.ReLU(), layer).double().eval()
    torch.testing.assert_close(nn.freeze(copy.deepcopy(model))(image()), model(image()).detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.float()(image(dtype=torch.float32)).dtype == torch.bfloat16


def test_per_sample_gradients_are_each_images_own():
    _, layer = twins({"padding": 1})
    parameters = dict(layer.named_parameters())

    def loss(values, one):
        return torch.func.functional_call(layer, values, (one,)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, image())
    for index, one in enumerate(image()):
        alone = torch.func.grad(loss)(parameters, one)
        torch.testing.assert_close({name: value[index] for name, value in found.items()}, alone)


def test_state_initialisation_and_conversion():
    torch.manual_seed(5)
    layer = nn.LocallyConnected2d(4, 6, 3, (9, 8), padding=1, dtype=torch.float64)
    assert {name: tuple(value.shape) for name, value in layer.state_dict().items()} == {
        "weight": (9, 8, 6, 4, 3, 3), "bias": (9, 8, 6),
    }  # fmt: skip
    bound = 1 / 6
    for values in layer.state_dict().values():
        assert 0.9 * bound < float(values.max()) <= bound and -bound <= float(values.min()) < -0.9 * bound
    other = nn.LocallyConnected2d(4, 6, 3, (9, 8), padding=1, dtype=torch.float64)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(image()), layer(image()))
    model = torch.nn.Sequential(layer)
    assert not nn.conversion_report(model).rows and nn.convert(model)[0] is layer
    assert repr(layer) == (
        "LocallyConnected2d(4, 6, kernel_size=(3, 3), input_size=(9, 8), stride=(1, 1), padding=(1, 1))"
    )
    layer.backend = "reference"
    assert repr(layer).endswith("padding=(1, 1), backend='reference')")


def test_a_weight_is_used_once_an_image():
    """The layer's weights and bytes against its twin's: what the printed problem says is what the tensors hold."""
    tied = parse("conv2d n1 ic64 ih28 iw28 oc64 kh3 kw3 ph1 pw1 f32")
    untied = parse("local_conv2d n1 ic64 ih28 iw28 oc64 kh3 kw3 ph1 pw1 f32")
    assert torch.Size(untied.weight_shape).numel() == 784 * torch.Size(tied.weight_shape).numel()
    assert untied.flops() == tied.flops()
    flops_a_byte = untied.flops(count_padding=False) / untied.compulsory_bytes
    assert flops_a_byte == pytest.approx(0.475, abs=0.001)


def test_the_peer_and_the_suite_are_of_the_same_op():
    for layer in suites.load("deepface"):
        for cell in suites.cells(suites.fit(layer, 1, "f32", "nchw", "cpu"), suites.PASSES):
            assert cell.problem.op.startswith("local_conv2d") and cell.kind == "untied"
            assert peers.refuse("onnxruntime", cell) and peers.refuse("torch", cell) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kernel_size": 0}, "kernel_size: expected positive integers, got (0, 0)"),
        ({"groups": 3}, "in_channels: expected a positive multiple of groups=3, got 4"),
        ({"padding": -1}, "padding: expected integers of at least 0, got (-1, -1)"),
        ({"padding": "same", "stride": 2}, "padding: expected integers, 'valid', or 'same' with stride 1, got 'same'"),
        ({"padding_mode": "mirror"}, "padding_mode: expected zeros or reflect"),
        ({"backend": "none"}, "expected one of auto"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        nn.LocallyConnected2d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, "input_size": 9, **arguments})


def test_a_filter_that_does_not_fit_and_inputs_of_another_size_are_refused():
    with pytest.raises(RuntimeError, match="LocallyConnected2d: weight: expected a filter of at most 4 rows"):
        nn.LocallyConnected2d(4, 6, 5, 4)
    _, layer = twins({})
    with pytest.raises(RuntimeError, match=r"input: expected \[n, 4, 9, 8\] or \[4, 9, 8\], got \(2, 4, 9, 9\)"):
        layer(image(2, 4, 9, 9))


class Observing(TorchDispatchMode):
    """Keeps calls off the short way and changes nothing."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


GOOD = {"input": torch.rand(2, 4, 6, 6), "weight": torch.rand(4, 4, 6, 4, 3, 3), "bias": torch.rand(4, 4, 6)}
FORM = re.compile(r"^spatialconv\.local_conv2d: [\w' ]+: expected .+, got .+", re.DOTALL)


@pytest.mark.parametrize(
    ("changes", "words", "kind"),
    [
        ({"input": [1.0]}, "input: expected a tensor, got list", TypeError),
        ({"input": torch.rand(6, 6)}, "input: expected 3 dimensions (unbatched) or 4, got 2", RuntimeError),
        ({"weight": torch.rand(6, 4, 3, 3)}, "weight: expected 6 dimensions, got 4", RuntimeError),
        ({"weight": torch.rand(4, 5, 6, 4, 3, 3), "bias": None}, "filters for the (4, 4) positions", RuntimeError),
        ({"weight": torch.rand(4, 4, 6, 3, 3, 3)}, "input: expected 3 channels", RuntimeError),
        ({"weight": torch.rand(4, 4, 6, 4, 3, 3).double()}, "weight: expected torch.float32", RuntimeError),
        ({"weight": torch.rand(4, 4, 6, 4, 7, 7)}, "a filter of at most 6 rows", RuntimeError),
        ({"bias": torch.rand(6)}, "bias: expected shape (4, 4, 6), got (6,)", RuntimeError),
        ({"bias": torch.rand(4, 5, 6)}, "bias: expected shape (4, 4, 6), got (4, 5, 6)", RuntimeError),
        ({"stride": 0}, "stride: expected positive integers", RuntimeError),
        ({"padding": "full"}, "padding: expected integers, 'same' or 'valid'", RuntimeError),
        ({"groups": 5}, "output channels divisible by groups=5", RuntimeError),
        ({"stride": 1.0}, "stride: expected an integer", TypeError),
    ],
    ids=lambda value: (
        "-".join(value) if isinstance(value, dict) else value.__name__ if isinstance(value, type) else value
    ),
)
@pytest.mark.parametrize("observed", [False, True], ids=["eager", "op"])
def test_bad_calls_say_what_was_expected_on_both_paths(changes, words, kind, observed):
    call = {**GOOD, **changes}
    with Observing() if observed else nullcontext(), pytest.raises(kind) as raised:
        spatialconv.local_conv2d(**call)
    assert FORM.match(str(raised.value)) and words in str(raised.value)


def test_explain_names_the_kernel_and_the_copy_and_a_missing_one_is_refused():
    explained = spatialconv.explain(spatialconv.local_conv2d, *GOOD.values())
    assert str(explained.problem) == "local_conv2d n2 ic4 ih6 iw6 oc6 kh3 kw3 bias f32 nchw cpu"
    assert explained.chosen.split(":")[0] == "extension" and not any("copied" in note for note in explained.notes)
    apart = GOOD["weight"].transpose(0, 1)
    assert any("weight is copied first" in note for note in spatialconv.explain(
        spatialconv.local_conv2d, GOOD["input"], apart).notes)  # fmt: skip
    with pytest.raises(spatialconv.errors.UnsupportedProblemError, match="triton: has no kernel for local_conv2d"):
        spatialconv.local_conv2d(**GOOD, backend="triton")


def test_a_module_that_was_built_before_the_kernel_is_a_reason(monkeypatch):
    older = {key: address for key, address in kernels.handles("baseline").items() if key[1] != "local"}
    monkeypatch.setattr(kernels, "handles", lambda level: older)
    explained = spatialconv.explain("local_conv2d n1 ic2 ih5 iw5 oc3 kh3 kw3 f32")
    assert explained.chosen == "numba:local"
    assert ("extension:local", ("was added after the compiled module was built: install spatialconv again",)) in (
        explained.refused
    )
