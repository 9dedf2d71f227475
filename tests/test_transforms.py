"""``torch.func`` through the public functions: every transform gives what it gives through torch's own."""

from __future__ import annotations

import pytest
import torch
from calls import BACKENDS, CALLS, CONVOLUTIONS, FEW, TRANSPOSED, assert_same, flat, sample
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap


def first(run):
    return lambda *tensors: flat(run(*tensors))[0]


def loss(run):
    return lambda *tensors: first(run)(*tensors).square().sum()


def every(case):
    return tuple(range(len(case.shapes)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CALLS, ids=str)
def test_grad(case, backend):
    tensors = case.tensors()
    ours = grad(loss(lambda *args: case.ours(*args, backend=backend)), every(case))(*tensors)
    assert_same(ours, grad(loss(case.theirs), every(case))(*tensors))


@pytest.mark.parametrize("case", CALLS, ids=str)
def test_grad_of_grad(case):
    def twice(run):
        inner = grad(loss(run), every(case))
        return grad(lambda *args: sum(part.square().sum() for part in inner(*args)), every(case))(*case.tensors())

    assert_same(twice(case.ours), twice(case.theirs))


@pytest.mark.parametrize("case", CALLS, ids=str)
def test_vjp(case):
    def pulled(run):
        output, pull = vjp(first(run), *case.tensors())
        return output, *pull(output.flip(0))

    assert_same(pulled(case.ours), pulled(case.theirs))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CALLS, ids=str)
def test_jvp(case, backend):
    tensors = tuple(case.tensors())
    tangents = tuple(tensor.flip(0) + 0.25 for tensor in tensors)
    ours = jvp(first(lambda *args: case.ours(*args, backend=backend)), tensors, tangents)
    assert_same(ours, jvp(first(case.theirs), tensors, tangents))


@pytest.mark.parametrize("case", CALLS, ids=str)
def test_vmap_over_each_operand_and_all_together(case):
    size, count = 3, len(case.shapes)
    choices = [tuple(0 if axis == batched else None for axis in range(count)) for batched in range(count)]
    odd = tuple(len(shape) if axis % 2 == 0 else 1 for axis, shape in enumerate(case.shapes))
    for dims in {*choices, (0,) * count, odd}:
        batched = [
            sample(shape if dim is None else (*shape[:dim], size, *shape[dim:]), seed)
            for seed, (shape, dim) in enumerate(zip(case.shapes, dims, strict=True))
        ]
        one_by_one = [
            first(case.theirs)(*(t if dim is None else t.select(dim, k) for t, dim in zip(batched, dims, strict=True)))
            for k in range(size)
        ]
        assert_same(vmap(first(case.ours), in_dims=dims)(*batched), torch.stack(one_by_one))


@pytest.mark.parametrize("case", FEW, ids=str)
def test_nested_vmap(case):
    tensors = [sample((2, 3, *shape), seed) for seed, shape in enumerate(case.shapes)]
    ours = vmap(vmap(first(case.ours)), in_dims=0)(*tensors)
    rows = [torch.stack([first(case.theirs)(*(t[i, j] for t in tensors)) for j in range(3)]) for i in range(2)]
    assert_same(ours, torch.stack(rows))


@pytest.mark.parametrize("case", [CONVOLUTIONS[1], TRANSPOSED[1]], ids=str)
def test_per_sample_gradients(case):
    image, *rest = case.tensors()
    images = torch.stack([image, image.flip(0), image * 2])

    def per_sample(run):
        return vmap(grad(loss(run), every(case)[1:]), in_dims=(0, *(None for _ in rest)))(images, *rest)

    assert_same(per_sample(case.ours), per_sample(case.theirs))


@pytest.mark.parametrize("case", FEW, ids=str)
def test_jacobians(case):
    tensors = case.tensors()
    theirs = jacrev(first(case.theirs), every(case))(*tensors)
    assert_same(jacrev(first(case.ours), every(case))(*tensors), theirs)
    assert_same(jacfwd(first(case.ours), every(case))(*tensors), theirs)


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d", "avg_pool2d", "max_pool2d", "adaptive_avg_pool2d"])
def test_hessian(name):
    case = next(case for case in CALLS if case.name == name)
    tensors = [tensor[:1] if position == 0 else tensor for position, tensor in enumerate(case.tensors())]
    tensors[-1] = tensors[-1].clone()
    cubed = lambda run: lambda last: first(run)(*tensors[:-1], last).pow(3).sum()  # noqa: E731
    assert_same(hessian(cubed(case.ours))(tensors[-1]), hessian(cubed(case.theirs))(tensors[-1]))


def test_ensembling_whole_models():
    import spatialconv.nn as ours

    models = [torch.nn.Sequential(ours.Conv2d(3, 4, 3, stride=2), ours.MaxPool2d(2)).double() for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(models)
    images = sample((2, 3, 9, 9), 0)
    run = lambda p, b: functional_call(models[0], (p, b), (images,))  # noqa: E731
    assert_same(vmap(run)(parameters, buffers), torch.stack([model(images) for model in models]))


def test_linearize_and_vmapped_tangents():
    case = CONVOLUTIONS[1]
    image, weight, bias = case.tensors()
    directions = torch.stack([weight.flip(0), weight * 0 + 1])
    _, push = torch.func.linearize(lambda w: case.ours(image, w, bias), weight)
    theirs = torch.stack([jvp(lambda w: case.theirs(image, w, bias), (weight,), (step,))[1] for step in directions])
    assert_same(torch.stack([push(step) for step in directions]), theirs)
    assert_same(vmap(lambda step: jvp(lambda w: case.ours(image, w, bias), (weight,), (step,))[1])(directions), theirs)
