"""Calls from many Python threads, from data-loading processes, and their share of torch's own thread pool."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from calls import BACKENDS, CALLS, assert_same, flat
from torch.utils.data import DataLoader, Dataset

import spatialconv
from spatialconv import dispatch, eager
from spatialconv.backends import load


def results(case, backend):
    tensors = case.tensors(torch.float32, requires_grad=True)
    output = flat(case.ours(*tensors, backend=backend))[0]
    return output.detach(), *torch.autograd.grad(output.square().sum(), tensors)


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_threads_at_once(backend):
    expected = [results(case, backend) for case in CALLS]
    dispatch.forget_choices()
    eager.forget()
    start, failures = threading.Barrier(6), []

    def work(offset):
        start.wait()
        for step in range(2 * len(CALLS)):
            position = (step + offset) % len(CALLS)
            try:
                assert_same(results(CALLS[position], backend), expected[position])
            except Exception as error:
                failures.append((str(CALLS[position]), error))

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures and not any(thread.is_alive() for thread in threads)


class Images(Dataset):
    """Items that are computed with our functions, in the worker process."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        image = torch.full((2, 3, 8, 8), float(index + 1))
        pooled = spatialconv.max_pool2d(image, 2)
        return spatialconv.conv2d(pooled, torch.ones(4, 3, 3, 3), backend="extension").flatten()


def test_data_loading_processes():
    spatialconv.conv2d(torch.rand(4, 3, 32, 32), torch.rand(8, 3, 3, 3))
    batches = list(DataLoader(Images(), batch_size=4, num_workers=2, multiprocessing_context="fork", timeout=60))
    rows = torch.cat(batches)
    assert_same(rows, torch.arange(1, 9).reshape(8, 1).mul(27.0).expand(8, rows.shape[1]))


def test_torchs_number_of_threads_is_handed_to_the_kernels():
    from spatialconv.backends.extension import loader

    problem = dispatch.parse("conv2d n4 ic8 ih16 iw16 oc16 kh3 kw3 f32 nchw cpu")
    image, weight = torch.rand(problem.input_shape), torch.rand(problem.weight_shape)
    module, seen, before = loader.load(), [], torch.get_num_threads()
    original = module.run
    try:
        dispatch.forget_choices()
        module.run = lambda *args: seen.append(args[7]) or original(*args)
        for threads in (2, 1):
            torch.set_num_threads(threads)
            dispatch.choose(problem, "extension").plan(image, weight, None)
    finally:
        module.run = original
        torch.set_num_threads(before)
        dispatch.forget_choices()
    assert seen == [2, 1]


def test_kernels_release_the_interpreter():
    image, weight = torch.rand(8, 64, 56, 56), torch.rand(64, 64, 3, 3)
    run = dispatch.choose(
        dispatch.parse("conv2d n8 ic64 ih56 iw56 oc64 oh54 ow54 kh3 kw3 f32 nchw cpu"), "extension"
    ).plan
    run(image, weight, None)
    steps, stop = [], threading.Event()

    def count():
        while not stop.is_set():
            steps.append(time.perf_counter())
            time.sleep(0)

    thread = threading.Thread(target=count)
    thread.start()
    while not steps:
        time.sleep(0.001)
    begin = time.perf_counter()
    run(image, weight, None)
    end = time.perf_counter()
    stop.set()
    thread.join()
    inside = sum(begin + (end - begin) * 0.1 < moment < end - (end - begin) * 0.1 for moment in steps)
    assert inside > 3, f"another thread took {inside} steps while a kernel ran {end - begin:.3f} s"


# Shapes that are cut up by pixels, by filters, by planes, by rows of channels; depths that blocks do not divide.
CONVOLUTIONS = (
    ((1, 20, 9, 11), (70, 20, 1, 1), {}),
    ((1, 48, 3, 5), (140, 48, 1, 1), {}),
    ((1, 1400, 7, 7), (150, 1400, 1, 1), {}),
    ((2, 33, 9, 10), (24, 33, 3, 3), {"padding": 1}),
    ((1, 35, 6, 7), (301, 35, 3, 3), {"padding": 1}),
    ((1, 301, 6, 7), (35, 301, 3, 3), {"padding": 1}),
    ((1, 16, 17, 16), (64, 16, 3, 3), {"padding": 1, "stride": 2}),
    ((1, 3, 30, 31), (20, 3, 7, 7), {"padding": 3, "stride": 2}),
    ((2, 32, 8, 9), (48, 8, 3, 3), {"padding": 1, "groups": 4}),
    ((1, 300, 5, 7), (300, 1, 3, 3), {"padding": 1, "groups": 300}),
    ((2, 24, 13, 12), (24, 1, 5, 5), {"padding": 2, "groups": 24}),
    ((2, 17, 12, 15), (17, 1, 3, 3), {"padding": 1, "stride": 2, "groups": 17}),
    ((1, 3, 130, 40), (3, 1, 3, 3), {"padding": 1, "groups": 3}),
    ((1, 3, 130, 40), (3, 1, 5, 5), {"padding": 2, "groups": 3}),
)


def whole_numbers(*shape, last):
    generator = torch.Generator().manual_seed(sum(shape))
    drawn = torch.randint(-2, 3, shape, generator=generator).float()
    return drawn.contiguous(memory_format=torch.channels_last) if last else drawn


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.skipif(load("extension").unavailable() is not None, reason=str(load("extension").unavailable()))
@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("threads", [1, 2, 3, 7], indirect=True)
def test_whole_numbers_are_exact_on_any_number_of_threads(threads, last):
    for shape, weight_shape, options in CONVOLUTIONS:
        input, weight = whole_numbers(*shape, last=last), whole_numbers(*weight_shape, last=last)
        leaves = [input.requires_grad_(), weight.requires_grad_()]
        output = spatialconv.conv2d(*leaves, backend="extension", **options)
        exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
        expected = torch.nn.functional.conv2d(*exact, **options)
        grad = whole_numbers(*output.shape, last=last)
        pairs = zip(
            (output, *torch.autograd.grad(output, leaves, grad)),
            (expected, *torch.autograd.grad(expected, exact, grad.double())),
            strict=True,
        )
        assert all(torch.equal(ours.double(), theirs) for ours, theirs in pairs), (shape, weight_shape, options)
    for shape, size, stride in (((1, 300, 3, 4), (3, 4), None), ((3, 21, 14, 13), 2, 2), ((2, 40, 9, 9), 3, 1)):
        input = whole_numbers(*shape, last=last)
        pooled = spatialconv.max_pool2d(input, size, stride, backend="extension")
        assert torch.equal(pooled, torch.nn.functional.max_pool2d(input, size, stride)), shape
        sums = spatialconv.avg_pool2d(input, size, stride, divisor_override=1, backend="extension")
        assert torch.equal(sums, torch.nn.functional.avg_pool2d(input, size, stride, divisor_override=1)), shape
