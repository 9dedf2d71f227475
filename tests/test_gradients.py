"""Derivatives of every op and function: against finite differences, against torch's, in both modes, of second order."""

from __future__ import annotations

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from calls import BACKENDS, CALLS, CONVOLUTIONS, FEW, OP_CALLS, TRANSPOSED, assert_same, flat
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode


def differentiable(run):
    """The function without its integer results."""
    return lambda *tensors: tuple(result for result in flat(run(*tensors)) if result.dtype != torch.int64)


class Watching(TorchDispatchMode):
    """A mode that changes nothing and keeps calls off the short way."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("case", "backend"),
    [
        pytest.param(
            case, backend, id=f"{case}-{backend}", marks=[] if backend == case.backends[0] else pytest.mark.full
        )
        for case in OP_CALLS
        for backend in case.backends
    ],
)
def test_ops_against_finite_differences(case, backend):
    tensors = case.tensors(requires_grad=True)
    run = differentiable(lambda *args: case.run(*args, backend=backend))
    assert gradcheck(run, tensors, fast_mode=True, check_forward_ad=True)
    assert gradgradcheck(run, tensors, fast_mode=True)


@pytest.mark.parametrize("case", OP_CALLS[:9:4] + OP_CALLS[9::6], ids=str)
def test_ops_with_batched_gradients(case):
    run = differentiable(case.run)
    checks = {"check_batched_grad": True, "check_forward_ad": True, "check_batched_forward_grad": True}
    assert gradcheck(run, case.tensors(requires_grad=True), fast_mode=True, **checks)
    assert gradgradcheck(run, case.tensors(requires_grad=True), fast_mode=True, check_batched_grad=True)


@pytest.mark.parametrize("case", CALLS, ids=str)
def test_functions_against_finite_differences(case):
    assert gradcheck(differentiable(case.ours), case.tensors(requires_grad=True), fast_mode=True)
    assert gradgradcheck(differentiable(case.ours), case.tensors(requires_grad=True), fast_mode=True)


def gradients(run, tensors, create_graph=False):
    results = differentiable(run)(*tensors)
    weights = [torch.linspace(-1, 1, result.numel(), dtype=result.dtype).reshape(result.shape) for result in results]
    return torch.autograd.grad(results, tensors, weights, create_graph=create_graph)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CALLS, ids=str)
def test_first_gradients_are_torchs_on_both_paths(case, backend, layout):
    theirs = gradients(case.theirs, case.tensors(layout=layout, requires_grad=True))
    run = lambda *tensors: case.ours(*tensors, backend=backend)  # noqa: E731
    assert_same(gradients(run, case.tensors(layout=layout, requires_grad=True)), theirs)
    with Watching():
        assert_same(gradients(run, case.tensors(layout=layout, requires_grad=True)), theirs)


@pytest.mark.parametrize("case", CALLS, ids=str)
def test_second_gradients_are_torchs(case):
    def second(run, tensors):
        first = gradients(lambda *args: flat(run(*args))[0].square(), tensors, create_graph=True)
        return torch.autograd.grad([grad.square().sum() for grad in first], tensors)

    tensors = case.tensors(requires_grad=True)
    theirs = second(case.theirs, tensors)
    assert_same(second(case.ours, tensors), theirs)
    with Watching():
        assert_same(second(case.ours, tensors), theirs)


@pytest.mark.parametrize(
    "wanted", [(True, False, False), (False, True, False), (False, False, True), (True, False, True)]
)
@pytest.mark.parametrize("case", [CONVOLUTIONS[1], TRANSPOSED[0]], ids=str)
def test_only_the_wanted_gradients(case, wanted):
    def run(call):
        tensors = [tensor.requires_grad_(want) for tensor, want in zip(case.tensors(), wanted, strict=True)]
        call(*tensors).square().sum().backward()
        assert [tensor.grad is not None for tensor in tensors] == list(wanted)
        return [tensor.grad for tensor in tensors if tensor.grad is not None]

    assert_same(run(case.ours), run(case.theirs))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("case", [*CONVOLUTIONS[:3], *TRANSPOSED[:2]], ids=str)
def test_complex_results_and_gradients_are_torchs(case, dtype):
    def run(call):
        tensors = case.tensors(dtype, requires_grad=True)
        output = call(*tensors)
        grads = torch.autograd.grad(output, tensors, output.detach().conj() * (1 + 2j), create_graph=True)
        size = sum(grad.abs().square().sum() for grad in grads)
        return output, *grads, *torch.autograd.grad(size, tensors, materialize_grads=True)

    assert_same(run(case.ours), run(case.theirs), rtol=1e-4, atol=1e-2 if dtype == torch.complex64 else 1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CALLS, ids=str)
def test_forward_tangents_where_nothing_requires_grad(case, backend):
    def tangents(call):
        primals = case.tensors()
        with forward_ad.dual_level():
            for position, primal in enumerate(primals):
                tangent = primal.flip(0) + 0.5
                duals = [forward_ad.make_dual(p, tangent) if i == position else p for i, p in enumerate(primals)]
                yield forward_ad.unpack_dual(flat(call(*duals))[0]).tangent

    ours = list(tangents(lambda *args: case.ours(*args, backend=backend)))
    assert all(tangent is not None for tangent in ours)
    assert_same(ours, list(tangents(case.theirs)))


@pytest.mark.parametrize("case", OP_CALLS, ids=str)
def test_ops_have_no_silent_zero_tangent(case):
    tensors = case.tensors()
    for position, tensor in enumerate(tensors):
        if not tensor.is_floating_point():
            continue
        with forward_ad.dual_level(), torch.no_grad():
            duals = list(tensors)
            duals[position] = forward_ad.make_dual(tensor, torch.ones_like(tensor))
            tangent = forward_ad.unpack_dual(flat(case.run(*duals))[0]).tangent
        assert tangent is not None and tangent.abs().sum() > 0


@pytest.mark.parametrize("case", FEW, ids=str)
def test_gradients_of_a_layout_lie_in_that_layout(case):
    tensors = case.tensors(torch.float32, "nhwc", requires_grad=True)
    output = flat(case.ours(*tensors))[0]
    grads = torch.autograd.grad(output.square().sum(), tensors)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert grads[0].is_contiguous(memory_format=torch.channels_last)


def test_indices_of_max_pooling_carry_no_gradient():
    import spatialconv

    values, indices = spatialconv.max_pool2d(torch.rand(1, 1, 4, 4, requires_grad=True), 2, return_indices=True)
    assert values.requires_grad and not indices.requires_grad
    values, indices = spatialconv.adaptive_max_pool2d(
        torch.rand(1, 1, 4, 4, requires_grad=True), 2, return_indices=True
    )
    assert values.requires_grad and not indices.requires_grad
