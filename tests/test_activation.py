"""``activation=``: torch's function behind the convolution, in values and in derivatives, however the call is made."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from calls import BACKENDS, CONVOLUTIONS, Call, assert_same, layout_of
from cells import on_cpu
from test_honesty import Calls
from torch.autograd import gradcheck, gradgradcheck

import spatialconv
from spatialconv import dispatch, nn
from spatialconv.activations import FUNCTIONS, IN_PLACE, SLOPE
from spatialconv.errors import UnsupportedProblemError
from spatialconv.problem import ACTIVATIONS, parse

IN_PLACE_OPS = {"relu_", "hardtanh_", "hardswish_", "silu_", "gelu_"}
CASE, DEPTHWISE = CONVOLUTIONS[1], CONVOLUTIONS[2]


def ours(case: Call, word: str, backend: str | None = None):
    return lambda *tensors: spatialconv.conv2d(*tensors, **case.options, activation=word, backend=backend)


def theirs(case: Call, word: str):
    return lambda *tensors: getattr(F, word)(case.theirs(*tensors))


def second_order(run, tensors) -> list[torch.Tensor]:
    """The output, its gradients, and the gradients of those."""
    output = run(*tensors)
    first = torch.autograd.grad(output.square().sum(), tensors, create_graph=True)
    second = torch.autograd.grad(sum(grad.square().sum() for grad in first), tensors)
    return [output, *first, *second]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("word", ACTIVATIONS)
def test_values_and_two_derivatives_are_torchs(word, backend, layout):
    for case in CONVOLUTIONS:
        tensors = case.tensors(layout=layout, requires_grad=True)
        assert_same(second_order(ours(case, word, backend), tensors), second_order(theirs(case, word), tensors))
        with torch.no_grad():
            fused, expected = ours(case, word, backend)(*tensors), theirs(case, word)(*tensors)
        assert_same(fused, expected)
        assert layout_of(fused) == layout_of(expected)


@pytest.mark.parametrize("word", ACTIVATIONS)
def test_against_finite_differences(word):
    tensors = CASE.tensors(requires_grad=True)
    run = ours(CASE, word)
    assert gradcheck(run, tensors, fast_mode=True, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(run, tensors, fast_mode=True)


@pytest.mark.parametrize("word", ACTIVATIONS)
def test_transforms(word):
    image, weight, bias = CASE.tensors()
    run, expected = ours(CASE, word), theirs(CASE, word)
    assert_same(torch.func.vmap(run, (0, None, None))(image[:, None], weight, bias),
                torch.func.vmap(expected, (0, None, None))(image[:, None], weight, bias))  # fmt: skip
    jacobians = [torch.func.jacrev(lambda w, f=f: f(image, w, bias).sum((0, 2, 3)))(weight) for f in (run, expected)]
    assert_same(*jacobians)
    tangents = tuple(torch.ones_like(tensor) for tensor in (image, weight, bias))
    assert_same(torch.func.jvp(run, (image, weight, bias), tangents),
                torch.func.jvp(expected, (image, weight, bias), tangents))  # fmt: skip


@pytest.mark.parametrize("recorded", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("word", ACTIVATIONS)
def test_compiled_in_one_graph(word, recorded):
    torch._dynamo.reset()
    graphs = []

    def record(graph_module, inputs):
        graphs.append(graph_module)
        return graph_module

    tensors = CASE.tensors(torch.float32, requires_grad=recorded)
    seen = torch.compile(ours(CASE, word), backend=record, fullgraph=True)(*tensors)
    assert len(graphs) == 1 and f"{word}" in graphs[0].code
    assert_same(seen, theirs(CASE, word)(*tensors))
    compiled = torch.compile(ours(CASE, word), backend="aot_eager", fullgraph=True)(*tensors)
    assert_same(compiled, theirs(CASE, word)(*tensors))
    if recorded:
        assert_same(
            torch.autograd.grad(compiled.sum(), tensors),
            torch.autograd.grad(theirs(CASE, word)(*tensors).sum(), tensors),
        )


@pytest.mark.parametrize("word", ACTIVATIONS)
def test_autocast_gives_torchs_dtypes(word):
    for case in (CASE, DEPTHWISE):
        tensors = case.tensors(torch.float32, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output, expected = ours(case, word)(*tensors), theirs(case, word)(*tensors)
            with torch.no_grad():
                fused = ours(case, word)(*tensors)
        assert output.dtype == expected.dtype == fused.dtype == torch.bfloat16
        assert_same((output, fused), (expected, expected), rtol=0.03, atol=0.1)
        found, wanted = (torch.autograd.grad(result.float().sum(), tensors) for result in (output, expected))
        assert_same(found, wanted, rtol=0.05, atol=0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("word", ACTIVATIONS)
def test_a_wide_range_and_what_is_not_finite(word, dtype):
    """A 1x1 filter of ones shows the activation alone, at every place of a vector."""
    values = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([0.0, -0.0, 88, -88, 1e4, -1e4])])
    values = torch.cat([values, torch.tensor([torch.nan, torch.inf, -torch.inf]).repeat(20)])
    for image, groups in ((values.reshape(1, 1, 1, -1), 1), (values.reshape(1, -1, 1, 1), values.numel())):
        image = image.to(dtype)
        for layout in (torch.contiguous_format, torch.channels_last):
            weight = torch.ones(groups, 1, 1, 1, dtype=dtype)
            for kernel in ("auto", "extension:direct"):
                got = spatialconv.conv2d(
                    image.contiguous(memory_format=layout), weight, None, groups=groups, activation=word, backend=kernel
                )
                expected = FUNCTIONS[word](image.double())
                assert torch.equal(got.isfinite(), expected.isfinite()) and torch.equal(got.isnan(), expected.isnan())
                finite = expected.isfinite()
                allowed = 4 * torch.finfo(dtype).eps * image.double().abs()
                distance = (got.double() - expected).abs()
                assert (distance[finite] <= allowed[finite] + torch.finfo(dtype).tiny).all()


@pytest.mark.parametrize("name", on_cpu("conv2d"))
def test_a_kernel_that_fuses_calls_no_function_of_torchs(name):
    """And the others call exactly the one in place."""
    kernel = dispatch.kernel(name)
    for word in ACTIVATIONS:
        for text in ("n2 ic6 ih7 iw9 oc6 kh3 kw3 ph1 pw1 g6", "n1 ic4 ih5 iw5 oc6"):
            problem = parse(f"conv2d {text} {word}")
            context = dispatch.current_context("cpu")
            if dispatch.reasons_against(name, problem, context):
                continue
            plan = kernel.whole_plan(problem, context)
            with Calls() as calls:
                plan(torch.randn(problem.input_shape), torch.randn(problem.weight_shape), None)
            in_place = {"hardtanh_" if word == "relu6" else f"{word}_"}
            assert calls.names & IN_PLACE_OPS == (set() if word in kernel.fuses else in_place)


def test_compiled_kernels_fuse():
    for name in ("extension:gemm", "extension:direct", "extension:depthwise"):
        assert dispatch.kernel(name).fuses == ACTIVATIONS


@pytest.mark.parametrize("word", ACTIVATIONS)
def test_the_slope_is_a_bound(word):
    points = torch.linspace(-20, 20, 40001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(FUNCTIONS[word](points).sum(), points)
    assert slope.abs().max() <= SLOPE[word] <= slope.abs().max() * 1.02
    copy = points.detach().clone()
    assert IN_PLACE[word](copy) is copy
    assert_same(copy, FUNCTIONS[word](points.detach()))


@pytest.mark.parametrize("recorded", [False, True], ids=["inference", "training"])
def test_what_is_wrong_is_refused(recorded):
    tensors = CASE.tensors(requires_grad=recorded)
    for word in ("tanh", "ReLU", "", 1, ["relu"]):
        with pytest.raises(ValueError, match="relu6.*gelu"):
            spatialconv.conv2d(*tensors, **CASE.options, activation=word)
        with pytest.raises(ValueError, match="relu6.*gelu"):
            nn.Conv2d(3, 4, 3, activation=word)
    for dtype in (torch.int64, torch.complex64):
        with pytest.raises(NotImplementedError, match="floating-point"):
            spatialconv.conv2d(
                torch.ones(1, 1, 3, 3, dtype=dtype), torch.ones(1, 1, 1, 1, dtype=dtype), activation="relu"
            )
    with pytest.raises(ValueError, match="activation"):
        parse("conv2d_grad_input n1 ic1 ih3 iw3 oc1 relu")
    with pytest.raises(ValueError, match="cannot read 'relu'"):
        parse("max_pool2d n1 ic1 ih3 iw3 kh2 kw2 relu")
    with pytest.raises(UnsupportedProblemError):
        spatialconv.conv2d(*CASE.tensors(), **CASE.options, activation="relu", backend="extension:depthwise")


def test_the_problem_prints_it():
    problem = parse("conv2d n1 ic4 ih5 iw5 oc6 kh3 kw3 bias relu6 f32 nhwc cpu")
    assert problem.activation == "relu6"
    assert str(problem) == "conv2d n1 ic4 ih5 iw5 oc6 kh3 kw3 bias relu6 f32 nhwc cpu"
    shown = spatialconv.explain(spatialconv.conv2d, torch.ones(1, 4, 5, 5), torch.ones(6, 4, 3, 3), activation="silu")
    assert " silu " in str(shown.problem)


@pytest.mark.parametrize("word", ACTIVATIONS)
@pytest.mark.parametrize("options", [{}, {"padding": 1, "padding_mode": "circular"}, {"groups": 4}], ids=str)
def test_the_layer(word, options):
    layer = nn.Conv2d(4, 8, 3, **options, activation=word)
    plain = torch.nn.Conv2d(4, 8, 3, **options)
    plain.load_state_dict(layer.state_dict())
    image = torch.randn(2, 4, 7, 6)
    expected = getattr(F, word)(plain(image))
    assert_same(layer(image), expected)
    assert f"activation={word!r}" in repr(layer)
    nn.prepack(layer.eval())
    with torch.inference_mode():
        assert_same(layer(image), expected)
        assert_same(layer(image), expected)
        assert_same(layer(image[0]), expected[0])
    layer.activation = None
    with torch.inference_mode():
        assert_same(layer(image), plain(image))


def test_conversion_keeps_an_activation_and_refuses_to_lose_it():
    layer = nn.Conv2d(4, 4, 1, activation="relu")
    assert nn.convert(layer).activation == "relu"
    (row,) = nn.conversion_report(layer, inverse=True).rows
    assert not row.swapped and "activation" in row.reason
    assert type(nn.convert(layer, inverse=True)) is nn.Conv2d
