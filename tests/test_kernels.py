"""Every kernel of the dispatcher's table that computes on CPU tensors, at every instruction-set level, on every kind of
operand and geometry: see ``cells``. Triton's run in its interpreter, which is slow: they are sampled more thinly."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cells
import pytest
import torch
from cells import FLOATS, LAYOUTS, Cell, Listed
from operands import DATA, MEMORY

from spatialconv import dispatch
from spatialconv.backends import load
from spatialconv.backends.extension import loader
from spatialconv.problem import parse
from spatialconv.shapes import memory_format

LEVELS = tuple(loader.load().levels()) if loader.unavailable() is None else ("",)
# One row in so many of the kernels that are interpreted, and none of more operations.
SHARE, MOST_FLOPS = 6, 2e6


def kernels(interpreted: bool) -> list[Listed]:
    """Everything in the table that computes on CPU tensors."""
    listed = []
    for op in dispatch.TABLE:
        for name in cells.on_cpu(op, interpreted):
            levels = LEVELS if name.startswith("extension:") else ("",)
            listed += [(op, name, level) for level in levels]
    return listed


def sampled() -> list[Cell]:
    return cells.sampled(kernels(False)) + cells.sampled(kernels(True), share=SHARE, most_flops=MOST_FLOPS)


def whole() -> list[Cell]:
    return cells.whole(kernels(False)) + cells.whole(kernels(True), all_data=False)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cells.parametrize(metafunc, sampled, whole)


def test_cell(cell: Cell, monkeypatch: pytest.MonkeyPatch, record_property) -> None:
    record_property("kernel", cell.kernel)
    if missing := load(cell.kernel.partition(":")[0]).unavailable():
        pytest.skip(missing)
    cells.check_cell(cell, monkeypatch, thread_counts=(1,) if cell.kernel.startswith("triton:") else (1, 2))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("op", "name", "level"),
    [entry for entry in kernels(False) if entry[0].startswith("conv2d") and "reference" not in entry[1]],
)
def test_every_tail_of_channels(
    op: str, name: str, level: str, layout: str, monkeypatch: pytest.MonkeyPatch, record_property
) -> None:
    """No channel is left out, none is read twice."""
    record_property("kernel", name)
    if missing := load(name.partition(":")[0]).unavailable():
        pytest.skip(missing)
    taken = cells.tails((op, name, level), layout)
    if not taken:
        pytest.skip(f"{name} takes no dense convolution")
    for cell in taken:
        cells.check_cell(cell, monkeypatch, thread_counts=(2,))


def test_the_sample_joins_every_pair() -> None:
    """Each kernel and level, and each geometry, with every dtype, layout, kind of data and place in memory."""
    factors = {
        "dtype": (FLOATS, lambda cell: cell.problem.dtype),
        "layout": (LAYOUTS, lambda cell: cell.problem.layout),
        "weight": (LAYOUTS, lambda cell: cell.weight_layout),
        "data": (DATA, lambda cell: cell.data[0]),
        "memory": (MEMORY, lambda cell: cell.memory),
    }
    taken = [cell for cell in cells.sampled(kernels(False)) if not cell.refusals()]
    for (name, (known, of)), (other, (more, of_other)) in itertools.combinations(factors.items(), 2):
        assert {(of(cell), of_other(cell)) for cell in taken} == set(itertools.product(known, more)), f"{name}, {other}"
    for op, name, level in kernels(False):
        mine = [cell for cell in taken if (cell.problem.op, cell.kernel, cell.level) == (op, name, level)]
        computes = getattr(dispatch.kernel(name), "dtypes", FLOATS)
        for factor, (known, of) in factors.items():
            expected = set(known) & set(computes) if factor == "dtype" else set(known)
            assert {of(cell) for cell in mine} == expected, f"{op} {name} {level}"


def test_every_kernel_is_tested_somewhere() -> None:
    """On CPU tensors here, or as a CUDA kernel on its twin and on a GPU; the table leaves none out."""
    for names in dispatch.TABLE.values():
        for name in names:
            assert set(dispatch.kernel(name).devices) & {"cpu", "cuda"}, name


@pytest.mark.parametrize("far", [10, 3000, 2**32])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [name for name in cells.on_cpu("conv2d") if name.startswith("extension:")])
def test_taps_far_beside_the_image_cost_nothing(name: str, layout: str, far: int) -> None:
    """Only the middle one of 3x3 taps meets the image: a compiled kernel counts and stages nothing by the dilation, or
    refuses."""
    problem = parse(f"conv2d n1 ic24 ih9 iw8 oc24 kh3 kw3 ph{far} pw{far} dh{far} dw{far} f32 {layout}")
    context = replace(dispatch.current_context("cpu"), precision=dispatch.kernel(name).tier)
    if reasons := dispatch.reasons_against(name, problem, context):
        pytest.skip(f"{name} refuses: {reasons[0]}")
    image = torch.randn(1, 24, 9, 8).contiguous(memory_format=memory_format(layout))
    weight = torch.randn(24, 24, 3, 3)
    output = dispatch.kernel(name).plan(problem, context)(image, weight, None)
    right = torch.nn.functional.conv2d(image, weight[:, :, 1:2, 1:2])
    torch.testing.assert_close(output, right, rtol=1e-4, atol=1e-4)
