"""Autocast, fake tensors, checkpointing, flop counting, profiling and the other modes a call may be made in."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from calls import CALLS, CONVOLUTIONS, FEW, TRANSPOSED, assert_same, flat, layout_of
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import spatialconv


@pytest.mark.parametrize("region", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("case", FEW, ids=str)
def test_autocast_gives_torchs_dtypes(case, dtype, region):
    def run(call):
        tensors = case.tensors(dtype, requires_grad=True)
        with torch.autocast("cpu", dtype=region):
            output = flat(call(*tensors))[0]
        return output, *torch.autograd.grad(output.float().sum(), tensors)

    ours, theirs = run(case.ours), run(case.theirs)
    assert [part.dtype for part in ours] == [part.dtype for part in theirs]
    assert_same(ours, theirs, rtol=0.03, atol=0.1)


@pytest.mark.parametrize("case", [CONVOLUTIONS[1], TRANSPOSED[0]], ids=str)
def test_autocast_mixes_dtypes(case):
    image, *rest = case.tensors(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert case.ours(image.bfloat16(), *rest).dtype == case.theirs(image.bfloat16(), *rest).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.float16, enabled=False):
        assert case.ours(image, *rest).dtype == torch.float32


@pytest.mark.parametrize("region", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("case", [CONVOLUTIONS[1], TRANSPOSED[0]], ids=str)
def test_autocast_in_compiled_code(case, inside, region):
    torch._dynamo.reset()

    def run(*tensors):
        with torch.autocast("cpu", dtype=region, enabled=inside):
            return case.ours(*tensors)

    compiled = torch.compile(run if inside else case.ours, backend="aot_eager", fullgraph=True)
    tensors = case.tensors(torch.float32, requires_grad=True)
    with torch.autocast("cpu", dtype=region, enabled=not inside):
        output = compiled(*tensors)
    assert output.dtype == region
    assert all(grad.dtype == torch.float32 for grad in torch.autograd.grad(output.float().sum(), tensors))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("case", CALLS, ids=str)
def test_fake_and_meta_tensors(case, layout):
    real = flat(case.ours(*case.tensors(torch.float32, layout)))[0]
    with FakeTensorMode() as mode:
        fake = flat(case.ours(*map(mode.from_tensor, case.tensors(torch.float32, layout))))[0]
    meta = flat(case.ours(*(tensor.to("meta") for tensor in case.tensors(torch.float32, layout))))[0]
    assert isinstance(fake, FakeTensor) and meta.is_meta
    for other in (fake, meta):
        assert (other.shape, layout_of(other), other.dtype) == (real.shape, layout_of(real), real.dtype)


@pytest.mark.parametrize("case", CALLS, ids=str)
def test_fake_backward(case):
    with FakeTensorMode() as mode:
        tensors = [mode.from_tensor(tensor) for tensor in case.tensors(torch.float32)]
        for tensor in tensors:
            tensor.requires_grad_()
        grads = torch.autograd.grad(flat(case.ours(*tensors))[0].sum(), tensors)
    assert [grad.shape for grad in grads] == [tensor.shape for tensor in tensors]


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("case", FEW, ids=str)
def test_checkpoint(case, reentrant):
    def run(recomputed):
        tensors = case.tensors(requires_grad=True)
        call = lambda *args: flat(case.ours(*args))[0].sin()  # noqa: E731
        output = checkpoint(call, *tensors, use_reentrant=reentrant) if recomputed else call(*tensors)
        output.square().sum().backward()
        return output, *(tensor.grad for tensor in tensors)

    assert_same(run(True), run(False), rtol=0, atol=0)


@pytest.mark.parametrize("case", CALLS, ids=str)
def test_flop_counter_agrees_with_torch(case):
    def count(call):
        tensors = case.tensors(torch.float32, requires_grad=True)
        with FlopCounterMode(display=False) as forward:
            output = flat(call(*tensors))[0]
        with FlopCounterMode(display=False) as backward:
            output.sum().backward()
        return forward.get_total_flops(), backward.get_total_flops()

    (forward, backward), theirs = count(case.ours), count(case.theirs)
    assert forward == theirs[0]
    if case.options.get("groups", 1) == 1 or case.name == "local_conv2d":
        assert backward == theirs[1]
    else:
        # torch counts the gradient of a grouped weight as if there were no groups; each costs what forward does.
        assert backward == 2 * forward < theirs[1]
    assert "conv" not in case.name or forward > 0


@pytest.mark.parametrize("case", FEW, ids=str)
def test_profiler_sees_the_op(case):
    tensors = case.tensors(torch.float32, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        flat(case.ours(*tensors))[0].sum().backward()
    names = {event.key for event in profile.key_averages() if event.key.startswith("spatialconv::")}
    assert len(names) >= 2, names


def test_function_mode_sees_the_call_and_may_replace_it():
    seen = []

    class Mode(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    image, weight = torch.rand(1, 2, 5, 5), torch.rand(3, 2, 3, 3)
    with Mode():
        spatialconv.conv2d(image, weight)
    assert any("spatialconv.conv2d" in name for name in seen)


@pytest.mark.parametrize("case", CALLS, ids=str)
def test_inference_mode(case):
    expected = case.theirs(*case.tensors())
    with torch.inference_mode():
        inside = case.ours(*case.tensors())
        assert all(part.is_inference() for part in flat(inside))
    assert_same(inside, expected)
    outside = case.tensors()
    with torch.inference_mode():
        assert_same(case.ours(*outside), expected)


@pytest.mark.parametrize("case", FEW, ids=str)
def test_no_grad_records_nothing_and_a_later_call_does(case):
    tensors = case.tensors(requires_grad=True)
    with torch.no_grad():
        assert not flat(case.ours(*tensors))[0].requires_grad
    assert flat(case.ours(*tensors))[0].requires_grad


@pytest.mark.parametrize("case", FEW, ids=str)
def test_deterministic_algorithms(case):
    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for _ in range(2):
            tensors = case.tensors(torch.float32, requires_grad=True)
            output = flat(case.ours(*tensors))[0]
            runs.append((output, *torch.autograd.grad(output.sum(), tensors)))
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same(*runs, rtol=0, atol=0)


@pytest.mark.parametrize("case", FEW, ids=str)
def test_saved_tensors_hooks_and_hooks_on_the_graph(case):
    packed, reached = [], []

    def pack(tensor):
        packed.append(tensor.shape)
        return tensor.detach().clone()

    tensors = case.tensors(requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = flat(case.ours(*tensors))[0]
    tensors[0].register_hook(lambda grad: reached.append(grad.shape))
    grads = torch.autograd.grad(output.sum(), tensors)
    theirs = case.tensors(requires_grad=True)
    assert_same(grads, torch.autograd.grad(flat(case.theirs(*theirs))[0].sum(), theirs))
    assert reached and (packed or "avg" in case.name)


def test_changing_a_saved_operand_in_place_is_caught():
    for call in (spatialconv.conv2d, F.conv2d):
        image, weight = torch.rand(1, 2, 5, 5), torch.rand(3, 2, 3, 3, requires_grad=True)
        output = call(image, weight)
        image.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()
