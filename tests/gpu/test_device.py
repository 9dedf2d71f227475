"""What a user of a GPU expects beside right results: streams, graphs, determinism, layouts, huge tensors."""

from __future__ import annotations

import child
import pytest
import torch
import torch.nn.functional as F

import spatialconv
from spatialconv import dispatch

BACKENDS = ("extension", "triton")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this torch sees no CUDA device")


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    name = request.param
    if reason := spatialconv.backends()[name].reason:
        pytest.skip(reason)
    return name


def operands(dtype=torch.float16, layout=torch.channels_last, channels=64, side=28, requires_grad=False):
    generator = torch.Generator(device="cuda").manual_seed(0)
    input = torch.randn(4, channels, side, side, generator=generator, device="cuda").to(dtype)
    weight = torch.randn(96, channels, 3, 3, generator=generator, device="cuda").to(dtype) * 0.05
    made = [tensor.contiguous(memory_format=layout) for tensor in (input, weight)]
    return [tensor.requires_grad_(requires_grad) for tensor in made]


def near(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    scale = theirs.float().abs().max()
    return bool((ours.float() - theirs.float()).abs().max() <= 2e-2 * scale)


def test_work_goes_to_the_current_stream(backend) -> None:
    """Long work before the call on the same stream: the kernel must wait for it, and not for the default stream."""
    input, weight = operands()
    expected = spatialconv.conv2d(input * 2, weight, padding=1, backend=backend)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        doubled = input * 2
        output = spatialconv.conv2d(doubled, weight, padding=1, backend=backend)
    stream.synchronize()
    assert torch.equal(output, expected)


def test_calls_are_captured_in_a_graph(backend) -> None:
    input, weight = operands(requires_grad=True)

    def step() -> tuple[torch.Tensor, ...]:
        output = spatialconv.max_pool2d(
            spatialconv.conv2d(input, weight, padding=1, backend=backend), 2, backend=backend
        )
        return output, *torch.autograd.grad(output.float().sum(), (input, weight))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        input.copy_(torch.randn_like(input))
    graph.replay()
    torch.cuda.synchronize()
    for got, expected in zip(captured, step(), strict=True):
        assert torch.equal(got, expected)


def test_same_bits_at_every_run(backend) -> None:
    input, weight = operands(requires_grad=True)
    runs = []
    for _ in range(3):
        output = spatialconv.conv2d(input, weight, padding=1, stride=2, backend=backend)
        runs.append((output, *torch.autograd.grad(output.float().square().sum(), (input, weight))))
    for again in runs[1:]:
        assert all(torch.equal(first, other) for first, other in zip(runs[0], again, strict=True))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_a_training_step_is_near_cudnns(backend, dtype, layout) -> None:
    input, weight = operands(dtype, layout, requires_grad=True)
    results = []
    for conv2d, pool, extra in (
        (spatialconv.conv2d, spatialconv.max_pool2d, {"backend": backend}),
        (F.conv2d, F.max_pool2d, {}),
    ):
        output = pool(conv2d(input, weight, None, 2, 1, **extra), 3, 2, 1, **extra)
        results.append((output, *torch.autograd.grad(output.float().square().mean(), (input, weight))))
    assert all(near(ours, theirs) for ours, theirs in zip(*results, strict=True))
    assert [one.stride() for one in results[0]] == [one.stride() for one in results[1]]


def test_max_pooling_keeps_bytes_for_backward() -> None:
    input = torch.randn(2, 8, 9, 9, device="cuda", requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.dtype) or tensor, lambda one: one):
        spatialconv.max_pool2d(input, 3, 2, 1)
    assert torch.uint8 in saved and torch.int64 not in saved


def test_the_precision_switch_is_part_of_the_choice() -> None:
    input, weight = operands(torch.float32)
    switch = torch.backends.cudnn.conv
    before = switch.fp32_precision
    chosen = {}
    try:
        for precision in ("ieee", "tf32"):
            switch.fp32_precision = precision
            chosen[precision] = dispatch.kernel(spatialconv.explain(spatialconv.conv2d, input, weight).chosen).tier
            spatialconv.conv2d(input, weight)
    finally:
        switch.fp32_precision = before
    assert chosen["ieee"] == "ieee"
    if any(spatialconv.backends()[name].available for name in BACKENDS):
        assert chosen["tf32"] == "tf32"


FIRST_CALL = """
import threading, torch, spatialconv
given = [torch.randn(4, 64, 28, 28), torch.randn(96, 64, 3, 3), torch.randn(4, 96, 26, 26)]
given = [one.half().cuda().contiguous(memory_format=torch.channels_last) for one in given]
x, w, g = [one.requires_grad_(index < 2) for index, one in enumerate(given)]
spare = [torch.empty_like(one) for one in given for _ in range(8)]
torch.cuda.synchronize()
del spare
def work(): found.append({work})
y, found = spatialconv.conv2d(x, w, backend="extension"), []
thread = threading.Thread(target=work)
thread.start()
thread.join()
torch.cuda.synchronize()
assert len(found) == 1, "the thread's call raised"
"""


@pytest.mark.parametrize(
    "work", ["torch.autograd.grad(y, (x, w), g)", "spatialconv.conv2d(x.detach(), w.detach(), backend='extension')"]
)
def test_a_call_may_be_the_first_that_its_thread_makes_of_cuda(work: str) -> None:
    """With memory from torch's cache nothing before our launch gives the thread a context."""
    if reason := spatialconv.backends()["extension"].reason:
        pytest.skip(reason)
    code = FIRST_CALL.replace("{work}", work)
    child.printed("-c", code)


def test_operands_on_two_devices_are_refused() -> None:
    input, weight = operands(torch.float32)
    spatialconv.conv2d(input, weight)
    with pytest.raises(RuntimeError, match="expected a tensor on"):
        spatialconv.conv2d(input, weight.cpu())


@pytest.mark.full
def test_more_than_two_to_the_31_elements(backend) -> None:
    """The last image lies beyond what a 32-bit offset reaches."""
    if torch.cuda.mem_get_info()[0] < 24 * 2**30:
        pytest.skip("needs 24 GiB of free GPU memory")
    input = torch.zeros(65, 64, 736, 736, dtype=torch.bfloat16, device="cuda").contiguous(
        memory_format=torch.channels_last
    )
    input[-1].normal_()
    weight = torch.randn(8, 64, 3, 3, dtype=torch.bfloat16, device="cuda").contiguous(memory_format=torch.channels_last)
    ours = spatialconv.conv2d(input, weight, stride=2, backend=backend)
    assert near(ours[-1:], F.conv2d(input[-1:], weight, stride=2)) and not ours[0].any()
    pooled = spatialconv.max_pool2d(input, 2, backend=backend)
    assert torch.equal(pooled[-1:], F.max_pool2d(input[-1:], 2))
