"""``torch.compile``, ``torch.export`` and ``torch.jit.trace``: one graph, one compilation, torch's results."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from calls import CALLS, FEW, assert_same, flat, sample
from torch._dynamo.testing import CompileCounterWithBackend

import spatialconv
from spatialconv import nn


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


PLAIN_AND_FULL = [case if case in FEW else pytest.param(case, marks=pytest.mark.full) for case in CALLS]


def larger(case, steps):
    """Operands with more images, rows and columns, of sizes that no other dimension has by chance."""
    images = (11 + steps,) if len(case.shapes[0]) == 4 else ()
    channels, rest = case.shapes[0][-3], case.tensors()[1:]
    image = sample((*images, channels, 19 + 4 * steps, 37 + 6 * steps), 7)
    if case.name == "local_conv2d":
        places = F.conv2d(image, rest[0][0, 0], **case.options).shape[-2:]
        rest = [sample((*places, *tensor.shape[2:]), 8 + tensor.dim()) for tensor in rest]
    return [image, *rest]


@pytest.mark.parametrize("case", PLAIN_AND_FULL, ids=str)
def test_static_forward_and_backward(case):
    compiled = torch.compile(lambda *args: flat(case.ours(*(arg.sin() for arg in args)))[0].cos(), backend="aot_eager",
                             fullgraph=True, dynamic=False)  # fmt: skip
    tensors, theirs = (case.tensors(torch.float32, requires_grad=True) for _ in range(2))
    output = compiled(*tensors)
    expected = flat(case.theirs(*(tensor.sin() for tensor in theirs)))[0].cos()
    assert_same(output, expected)
    assert_same(torch.autograd.grad(output.sum(), tensors), torch.autograd.grad(expected.sum(), theirs))


@pytest.mark.parametrize("recorded", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("case", PLAIN_AND_FULL, ids=str)
def test_dynamic_compiles_once(case, recorded):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda *args: flat(case.ours(*args))[0] * 2, backend=counter, fullgraph=True, dynamic=True)
    for steps in (3, 1, 2, 5):
        tensors = [tensor.requires_grad_(recorded) for tensor in larger(case, steps)]
        output, expected = compiled(*tensors), flat(case.theirs(*tensors))[0] * 2
        assert_same(output, expected)
        if recorded:
            assert_same(torch.autograd.grad(output.sum(), tensors), torch.autograd.grad(expected.sum(), tensors))
    assert counter.frame_count == 1


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_inductor_whole_net(layout):
    net = torch.nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.AdaptiveAvgPool2d(1),
    )
    images = sample((2, 3, 10, 10), 0, torch.float32, layout)
    expected = torch.autograd.grad(net(images).square().sum(), list(net.parameters()))
    compiled = torch.compile(net, fullgraph=True)
    assert_same(torch.autograd.grad(compiled(images).square().sum(), list(net.parameters())), expected)


def ran(monkeypatch):
    """The kernels whose plans run from now on."""
    from spatialconv import dispatch, eager

    names, choose = [], dispatch.choose

    def recorded(problem, request, context=None, index=None):
        choice = choose(problem, request, context, index)

        def plan(*args, **kwargs):
            names.append(choice.kernel.full_name)
            return choice.plan(*args, **kwargs)

        return dispatch.Choice(choice.problem, choice.context, choice.kernel, plan, choice.refused, choice.tuned)

    eager.forget()
    monkeypatch.setattr(dispatch, "choose", recorded)
    return names


def test_use_backend_around_compiled_code(monkeypatch):
    names = ran(monkeypatch)
    image, weight = torch.rand(1, 2, 5, 5), torch.rand(3, 2, 3, 3)
    compiled = torch.compile(lambda x, w: spatialconv.conv2d(x, w), backend="aot_eager", fullgraph=True)
    for request, kernel in (("reference", "reference:im2col"), ("extension:direct", "extension:direct")):
        with spatialconv.use_backend(request):
            compiled(image, weight)
        assert names[-1] == kernel
    compiled(image, weight)
    assert names[-1].startswith("extension")


def test_use_backend_inside_compiled_code(monkeypatch):
    names = ran(monkeypatch)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def run(image, weight):
        with spatialconv.use_backend("reference"):
            inner = spatialconv.conv2d(image, weight)
        return inner + spatialconv.conv2d(image, weight, backend="extension:direct")

    image, weight = torch.rand(1, 2, 5, 5), torch.rand(3, 2, 3, 3, requires_grad=True)
    run(image, weight).sum().backward()
    assert names[:2] == ["reference:im2col", "extension:direct"]
    assert sorted(name.partition(":")[0] for name in names[2:]) == ["extension", "reference"]
    assert spatialconv.dispatch.local.request is None


def test_bad_arguments_in_compiled_code():
    compiled = torch.compile(lambda x, w: spatialconv.conv2d(x, w), backend="aot_eager", fullgraph=True)
    with pytest.raises(Exception, match="spatialconv.conv2d: input: expected 2 channels"):
        compiled(torch.rand(1, 3, 5, 5), torch.rand(3, 2, 3, 3))


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.largest, self.mean = nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2)
        self.whole = nn.AdaptiveAvgPool2d(2)

    def forward(self, image):
        return self.whole(self.up(self.mean(self.largest(self.conv(image)))))


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_dynamic_batch_and_size(strict):
    net = Net().eval()
    sizes = {0: torch.export.Dim("n", min=1, max=64), 2: torch.export.Dim("h", min=16, max=512),
             3: torch.export.Dim("w", min=16, max=512)}  # fmt: skip
    exported = torch.export.export(net, (torch.rand(2, 3, 32, 48),), dynamic_shapes=({**sizes},), strict=strict)
    targets = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    wanted = ("conv2d", "conv2d_grad_input", "max_pool2d", "avg_pool2d")
    assert {f"spatialconv.{name}.default" for name in wanted} <= targets
    assert not any("aten.conv" in target or "pool" in target and "aten" in target for target in targets)
    for shape in ((1, 3, 17, 40), (5, 3, 64, 33)):
        image = torch.rand(shape)
        assert_same(exported.module()(image), net(image))


@pytest.mark.parametrize("case", FEW, ids=str)
def test_jit_trace(case):
    tensors = case.tensors(torch.float32)
    traced = torch.jit.trace(lambda *args: flat(case.ours(*args))[0], tuple(tensors))
    op = {"conv_transpose2d": "conv2d_grad_input"}.get(case.name, case.name.removeprefix("adaptive_"))
    assert f"spatialconv::{op}" in str(traced.graph)
    # A trace holds the rows and columns that a transposed convolution or None in an output_size had; images may vary.
    more = [tensors[0].repeat(3, 1, 1, 1) + 0.5, *tensors[1:]]
    assert_same(traced(*more), flat(case.theirs(*more))[0])


def test_make_fx_sees_our_ops():
    from torch.fx.experimental.proxy_tensor import make_fx

    for mode in ("real", "fake", "symbolic"):
        graph = make_fx(lambda x, w: spatialconv.conv2d(x, w), tracing_mode=mode)(
            torch.rand(1, 2, 5, 5), torch.rand(3, 2, 3, 3)
        )
        assert "torch.ops.spatialconv.conv2d" in graph.code
