"""Every CUDA kernel of the dispatcher's table, run on a CPU over the emulator: the cells that a GPU is tested with.

Kernels with asynchronous copies run in two modes: with copies that happen at once, which shows memory given back too
early, and with copies that happen as late as they may, which shows a missing wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from cells import Cell, check_cell, placed, sampled, wants_full, whole
from emulated import build
from emulated.tensor_cores import tensor_core_cells
from operands import values
from test_honesty import ALLOWED, EPILOGUES, Calls

from spatialconv import dispatch
from spatialconv.backends.base import Context
from spatialconv.backends.extension import cuda_kernels, cuda_loader
from spatialconv.problem import parse

ARCHITECTURE = "sm_90"
# With few multiprocessors a persistent block walks over several tiles, with many each has one.
MULTIPROCESSORS = {"eager": 3, "lazy": 132}
KERNELS = {f"extension:{kernel.name}": kernel for kernel in cuda_kernels.KERNELS}
LISTED = [(op, name, ARCHITECTURE) for op, names in dispatch.TABLE.items() for name in names if name in KERNELS]
ON_TENSOR_CORES = [entry for entry in LISTED if isinstance(KERNELS[entry[1]], cuda_kernels.CudaMma)]
PLAIN = [entry for entry in LISTED if entry not in ON_TENSOR_CORES]
# What refuses a cell needs no compiled code but for its workspace, and tests are collected before anything is built.
UNBUILT = SimpleNamespace(workspace_bytes=lambda *arguments: 0)


class _AnyHandle(dict):
    def __missing__(self, key: tuple) -> int:
        return 0


def collected(full: bool) -> list[tuple[str, Cell]]:
    """The cells that are not refused, each with when its copies happen."""
    with cuda_loader.use(UNBUILT, 1), pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_kernels, "handles", lambda module: _AnyHandle())
        if full:
            cells = whole(LISTED, device="cuda", all_data=False)
        else:
            cells = sampled(PLAIN, device="cuda") + sampled(ON_TENSOR_CORES, device="cuda", share=6)
        cells += tensor_core_cells(ON_TENSOR_CORES, "cuda", full)
        cells = [cell for cell in cells if not cell.refusals()]
    chosen = []
    for index, cell in enumerate(cells):
        modes = list(build.COPIES) if KERNELS[cell.kernel].vectors else ["eager"]
        chosen += [(mode, cell) for mode in (modes if full else [modes[index % len(modes)]])]
    return sorted(chosen, key=lambda pair: pair[0])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        full = wants_full(metafunc.config)
        marks = [pytest.mark.full] if full else []
        pairs = [pytest.param(copies, cell, id=f"{copies} {cell}", marks=marks) for copies, cell in collected(full)]
        metafunc.parametrize(("emulated", "cell"), pairs, indirect=["emulated"])
    elif "emulated" in metafunc.fixturenames and "op" not in metafunc.fixturenames:
        metafunc.parametrize("emulated", build.COPIES, indirect=True)


@pytest.fixture
def emulated(request: pytest.FixtureRequest) -> Iterator[None]:
    if build.compiler() is None:
        pytest.skip("no C++ compiler to build the emulated kernels with")
    with cuda_loader.use(build.module(request.param), MULTIPROCESSORS[request.param]):
        yield


def test_cell(cell: Cell, emulated: None, monkeypatch: pytest.MonkeyPatch, record_property) -> None:
    record_property("kernel", cell.kernel)
    assert not cell.refusals(), "the compiled code refuses what the Python rules take"
    check_cell(cell, monkeypatch, thread_counts=(1,))


@pytest.mark.parametrize("emulated", ["eager"], indirect=True)
@pytest.mark.parametrize(("op", "name"), [entry[:2] for entry in LISTED], ids=[" ".join(row[:2]) for row in LISTED])
def test_a_kernel_calls_only_what_its_backend_may(op: str, name: str, emulated: None) -> None:
    cells = [cell for _, cell in collected(False) if (cell.problem.op, cell.kernel) == (op, name)]
    cells = {(cell.problem.layout, cell.memory): cell for cell in cells if not cell.problem.empty}
    assert cells
    seen = set()
    for cell in cells.values():
        wide, _ = values(
            cell.problem.replace(dtype="f64", layout="nchw", device="cpu"), cell.problem.dtype, "normal", False
        )
        operands, plan = placed(cell, wide, "cpu"), cell.plan()
        with Calls() as calls:
            plan(*operands)
        seen |= calls.names
    allowed = ALLOWED["extension"] | EPILOGUES
    assert seen and seen <= allowed, seen - allowed


def test_the_module_has_what_is_listed(emulated: None) -> None:
    compiled = set(cuda_kernels.handles(cuda_loader.load()))
    listed = {(op, kernel.name, dtype) for kernel in KERNELS.values() for op in kernel.ops for dtype in kernel.dtypes}
    assert compiled == listed


@pytest.mark.parametrize("op", ["conv2d", "conv2d_grad_input", "conv2d_grad_weight"])
@pytest.mark.parametrize("emulated", ["eager"], indirect=True)
def test_what_a_launcher_cannot_count_is_refused_before(op: str, emulated: None) -> None:
    """2 GiB of weights are more than the 30 bits in which the mma kernels count."""
    kernel = KERNELS["extension:cuda_mma"]
    for channels, refused in ((2048, False), (32768, True)):
        problem = parse(f"{op} n1 ic{channels} ih1 iw1 oc{channels} bf16 nhwc cuda")
        reasons = kernel.refusals(problem, Context(isa=ARCHITECTURE))
        assert any("cannot address" in reason for reason in reasons) == refused, reasons


def test_many_phases_of_a_stride_go_to_another_kernel() -> None:
    with cuda_loader.use(UNBUILT, 1), pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_kernels, "handles", lambda module: _AnyHandle())
        for stride, refused in ((4, False), (5, True)):
            text = f"n1 ic64 ih20 iw20 oc64 kh{stride} kw{stride} sh{stride} sw{stride} bf16 nhwc cuda"
            problem = parse(f"conv2d_grad_input {text}")
            reasons = KERNELS["extension:cuda_wgmma"].refusals(problem, Context(isa=ARCHITECTURE))
            assert any("phases" in reason for reason in reasons) == refused, reasons


def test_every_cuda_kernel_stands_in_the_table() -> None:
    in_table = {(op, name) for op, name, _ in LISTED}
    assert in_table == {(op, name) for name, kernel in KERNELS.items() for op in kernel.ops}


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_and_pass_has_cells_in_every_dtype(name: str) -> None:
    cells = [cell for _, cell in collected(False) if cell.kernel == name]
    met = {(cell.problem.op, cell.problem.dtype) for cell in cells}
    assert met == {(op, dtype) for op in KERNELS[name].ops for dtype in KERNELS[name].dtypes}
