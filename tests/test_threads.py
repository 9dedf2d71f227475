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
