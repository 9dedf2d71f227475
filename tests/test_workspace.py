"""Workspace is asked for as a contiguous weight needs it, before it is known how the weight lies."""

from __future__ import annotations

import ctypes

import pytest
from geometries import _CONV
from test_kernels import kernels

from spatialconv import dispatch
from spatialconv.backends.base import Context
from spatialconv.backends.extension import loader
from spatialconv.backends.extension.kernels import conv_structs
from spatialconv.problem import parse

DEEP = ["n1 ic512 ih8 iw8 oc40 kh3 kw3 sh2 sw2 ph1 pw1", "n1 ic640 ih16 iw16 oc320 kh3 kw3 sh2 sw2 ph1 pw1"]
LINES = [line.partition("#")[0].strip() for line in _CONV.splitlines() if line.strip()] + DEEP
LISTED = [entry for entry in kernels(False) if entry[0].startswith("conv2d") and entry[1].startswith("extension:")]


@pytest.mark.parametrize("op, name, level", LISTED)
def test_a_contiguous_weight_needs_no_less(op, name, level):
    kernel, asked = dispatch.kernel(name), 0
    for line in LINES:
        for form in ("f32 nchw", "f32 nhwc", "f64 nhwc", "bf16 nhwc"):
            problem = parse(f"{op} {line} {form} cpu")
            for threads in (1, 2, 16, 64, 128):
                context = Context(threads=threads, isa=level, precision=kernel.tier)
                if problem.empty or kernel.refusals(problem, context):
                    continue
                sizes = [
                    loader.load().workspace_bytes(kernel.handle(problem, context), ctypes.addressof(struct), threads)
                    for struct in conv_structs(problem)
                ]
                assert sizes[0] >= sizes[1], (problem, threads)
                asked += 1
    assert asked > 0 or name == "extension:dots"
