"""Translation on the CUDA kernels' CPU twins: a shifted input gives the shifted output, bitwise."""

from __future__ import annotations

import pytest
from emulated import build
from test_equivariance import CONV, FEW_COLUMNS, FEW_SHIFTS, POOL, ROWS, context, moves_with_its_input

from spatialconv import dispatch
from spatialconv.backends.extension import cuda_kernels, cuda_loader
from spatialconv.problem import Problem, parse

# With channels that tensor cores take as they lie.
ALIGNED = ("ic16 oc24 kh3 kw3 ph1 pw1", "ic64 oc16 kh3 kw3 sh2 sw2 ph1 pw1")
TEXTS = {"conv2d": (*CONV, *ALIGNED), "max_pool2d": POOL, "avg_pool2d": POOL}
DTYPES = ("f32", "bf16")
LISTED = [
    (f"extension:{kernel.name}", parse(f"{op} n1 ih{ROWS} iw{FEW_COLUMNS} {text} {dtype} {layout} cuda"))
    for kernel in cuda_kernels.KERNELS
    for op in TEXTS
    if op in kernel.ops
    for text in TEXTS[op]
    for dtype in DTYPES
    if dtype in kernel.dtypes
    for layout in (("nhwc",) if kernel.name == "cuda_wgmma" else ("nchw", "nhwc"))
]


@pytest.mark.parametrize(("name", "problem"), LISTED, ids=[f"{name} {problem}" for name, problem in LISTED])
def test_an_output_moves_with_its_input(name: str, problem: Problem) -> None:
    if build.compiler() is None:
        pytest.skip("no C++ compiler to build the emulated kernels with")
    with cuda_loader.use(build.module("eager"), 132):
        reasons = dispatch.kernel(name).refusals(problem, context(name, "sm_90"))
        if reasons:
            pytest.skip(f"{name} refuses: {'; '.join(reasons)}")
        moves_with_its_input(name, "sm_90", problem, FEW_SHIFTS, (problem.layout,))
