"""The ops keep what PyTorch asks of an operator: schema, fake kernel, autograd registration, AOT dispatch."""

from __future__ import annotations

import pytest
import torch
from calls import OP_CALLS, assert_same, flat, layout_of
from torch.library import opcheck

CHECKED = {"conv2d-strided", "conv2d_grad_weight-four_sides", "max_pool2d-ceil", "avg_pool2d_grad_input-adaptive"}
CASES = [
    pytest.param(case, layout, id=f"{case}-{layout}", marks=() if plain else pytest.mark.full)
    for case in OP_CALLS
    for layout in ("nchw", "nhwc")
    for plain in [str(case) in CHECKED and layout == "nhwc"]
]


@pytest.mark.parametrize(("case", "layout"), CASES)
def test_opcheck(case, layout):
    opcheck(case.op, (*case.tensors(torch.float32, layout, requires_grad=True), *case.rest, "auto"))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("case", OP_CALLS, ids=str)
def test_every_backend_and_the_fake_kernel_agree(case, layout):
    tensors = case.tensors(torch.float32, layout)
    results = [flat(case.run(*tensors, backend=backend)) for backend in case.backends]
    for result in results[1:]:
        assert_same(results[0], result)
    meta = flat(case.run(*(tensor.to("meta") for tensor in tensors)))
    for result in results:
        for real, fake in zip(result, meta, strict=True):
            assert (real.shape, layout_of(real), real.dtype) == (fake.shape, layout_of(fake), fake.dtype)


@pytest.mark.parametrize("case", OP_CALLS, ids=str)
def test_operands_are_left_alone(case):
    tensors = case.tensors(torch.float32)
    before = [(tensor.clone(), tensor._version) for tensor in tensors]
    results = flat(case.run(*tensors))
    for tensor, (values, version) in zip(tensors, before, strict=True):
        assert tensor._version == version and torch.equal(tensor, values)
        assert all(result.data_ptr() != tensor.data_ptr() for result in results)


def test_ops_are_declared_for_compilers():
    for case in OP_CALLS:
        assert torch.Tag.pt2_compliant_tag in case.op.tags
        assert not case.op._schema.is_mutable


def test_private_names_of_autograd_are_there():
    from spatialconv.ops.autograd import missing_names

    assert missing_names() == []
