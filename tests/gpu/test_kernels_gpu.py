"""Every kernel of the dispatcher's table that computes on CUDA tensors: the generated cells of ``cells``, on a GPU."""

from __future__ import annotations

import cells
import pytest
import torch
from cells import Cell, Listed

from spatialconv import dispatch
from spatialconv.backends import load
from spatialconv.check import PARTS, CheckCell

DEVICE = torch.cuda.is_available()
NO_DEVICE = "this torch sees no CUDA device"
# Kernels that say "cuda" only where they find a device.
ON_GPU_BACKENDS = ("triton",)


def kernels() -> list[Listed]:
    level = dispatch.current_context("cuda").isa or "sm_90"
    return [
        (op, name, level)
        for op, names in dispatch.TABLE.items()
        for name in names
        if "cuda" in dispatch.kernel(name).devices or name.partition(":")[0] in ON_GPU_BACKENDS
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if not DEVICE:
        if "cell" in metafunc.fixturenames:
            metafunc.parametrize("cell", [pytest.param(entry, id=" ".join(entry)) for entry in kernels()])
        if "outcome" in metafunc.fixturenames:
            metafunc.parametrize("outcome", [None], ids=["spatialconv check --device cuda"])
        return
    cells.parametrize(
        metafunc, lambda: cells.sampled(kernels(), "cuda"), lambda: cells.whole(kernels(), "cuda", all_data=False)
    )
    if "outcome" in metafunc.fixturenames:
        names = dict.fromkeys(name for _, name, _ in kernels())
        backends = dict.fromkeys(name.partition(":")[0] for name in names)
        rows = [
            CheckCell(part, name, op, dtype, layout, "cuda")
            for part in PARTS[1:]
            for op in ("conv2d", "max_pool2d", "avg_pool2d")
            for name in (backends if part == "gradients" else names)
            if dispatch.candidates(op, name)
            for dtype in cells.FLOATS
            for layout in cells.LAYOUTS
        ]
        metafunc.parametrize("outcome", [pytest.param(row, id=" ".join(map(str, vars(row).values()))) for row in rows])


def test_cell(cell: Cell, monkeypatch: pytest.MonkeyPatch, record_property) -> None:
    if not DEVICE:
        pytest.skip(f"{NO_DEVICE}: no cell of {cell[1]} was run on one")
    record_property("kernel", cell.kernel)
    if missing := load(cell.kernel.partition(":")[0]).unavailable():
        pytest.skip(missing)
    cells.check_cell(cell, monkeypatch, "cuda", thread_counts=(1,))


def test_gradients_and_equivariance(outcome: CheckCell | None) -> None:
    """First and second derivatives through autograd, and a shifted input's shifted output, judged by torch."""
    if outcome is None:
        pytest.skip(NO_DEVICE)
    found = outcome.run()
    assert not found.failures
    if not found.passed:
        pytest.skip("; ".join(found.refused))
