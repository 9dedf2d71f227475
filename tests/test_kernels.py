"""Every kernel of the dispatcher's table, at every instruction-set level, on every kind of operand and geometry.

Plain pytest runs a seeded sample in which every pair of values of the factors meets; ``-m full`` runs the whole product
of kernel, op, dtype, layout and geometry, each with every kind of data.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import geometries
import pytest
import torch
from compare import bits, check
from operands import DATA, MEMORY, GuardedEmpty, place, values

from spatialconv import dispatch
from spatialconv.backends.base import DTYPES, Context, Plan
from spatialconv.backends.empty import empty_plan
from spatialconv.backends.extension import loader
from spatialconv.problem import Conv2dProblem, Problem, parse

SEED = 20
FLOATS = ("f32", "f64", "bf16", "f16")
LAYOUTS = ("nchw", "nhwc")
LEVELS = tuple(loader.load().levels()) if loader.unavailable() is None else ("",)


@dataclass(frozen=True)
class Cell:
    """One cell of the product: a kernel at a level, a problem, what the operands hold and how they lie."""

    kernel: str
    level: str
    problem: Problem
    weight_layout: str
    data: tuple[str, ...]
    memory: str

    def __str__(self) -> str:
        where = f"{self.kernel}@{self.level}" if self.level else self.kernel
        return f"{where} {self.problem} {self.memory} weight-{self.weight_layout} {'+'.join(self.data)}"


def kernels() -> list[tuple[str, str, str]]:
    """(op, kernel, level) of everything in the table."""
    listed = []
    for op, names in dispatch.TABLE.items():
        for name in names:
            levels = LEVELS if name.startswith("extension:") else ("",)
            listed += [(op, name, level) for level in levels]
    return listed


@cache
def problem_of(text: str, dtype: str, layout: str) -> Problem:
    problem = parse(f"{text} {dtype} {layout}")
    if problem.op == "conv2d":
        return problem.replace(bias=problem.oc % 2 == 0)
    return problem.replace(indices=True) if problem.op == "max_pool2d" else problem


def sampled() -> list[Cell]:
    rows = [((op, name, level), text) for op, name, level in kernels() for text in geometries.printed(op)]
    taken = [row for row in rows if not refusals(row)]
    factors = (FLOATS, LAYOUTS, LAYOUTS, DATA, MEMORY)
    cells = geometries.pairwise(taken, *factors, seed=SEED)
    # The level changes no reason, so what a kernel refuses is counted at one level.
    refused = [row for row in rows if row[0][2] in ("", LEVELS[0]) and refusals(row)]
    cells += [(*row, *(factor[0] for factor in factors)) for row in refused]
    return [
        Cell(name, level, problem_of(text, dtype, layout), weight_layout, (data,), memory)
        for (op, name, level), text, dtype, layout, weight_layout, data, memory in cells
    ]


def refusals(row: tuple[tuple[str, str, str], str]) -> tuple[str, ...]:
    (_, name, level), text = row
    return dispatch.reasons_against(name, problem_of(text, "f32", "nchw"), Context(isa=level))


def whole() -> list[Cell]:
    cells = []
    rotation = itertools.cycle(itertools.product(MEMORY, LAYOUTS))
    for op, name, level in kernels():
        for text, dtype, layout in itertools.product(geometries.printed(op), FLOATS, LAYOUTS):
            memory, weight_layout = next(rotation)
            cells.append(Cell(name, level, problem_of(text, dtype, layout), weight_layout, DATA, memory))
    return cells


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        expression = metafunc.config.getoption("markexpr")
        full = "full" in expression and "not full" not in expression
        cells = whole() if full else sampled()
        marks = [pytest.mark.full] if full else []
        metafunc.parametrize("cell", [pytest.param(cell, id=str(cell), marks=marks) for cell in cells])


def plan_of(cell: Cell, threads: int) -> Plan:
    if cell.problem.empty:
        return empty_plan(cell.problem)
    return dispatch.kernel(cell.kernel).plan(cell.problem, Context(threads=threads, isa=cell.level))


def results_of(answer: object) -> tuple[torch.Tensor, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def identical(first: object, second: object) -> bool:
    pairs = zip(results_of(first), results_of(second), strict=True)
    return all(torch.equal(bits(one), bits(other)) for one, other in pairs)


def run_guarded(monkeypatch: pytest.MonkeyPatch, cell: Cell, operands: tuple, threads: int) -> object:
    """The plan's answer, computed on poisoned and guarded memory."""
    guarded = GuardedEmpty()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", guarded)
        answer = plan_of(cell, threads)(*operands)
    guarded.check()
    return answer


def placed(cell: Cell, wide: tuple[torch.Tensor | None, ...]) -> tuple[torch.Tensor | None, ...]:
    convolution = isinstance(cell.problem, Conv2dProblem)
    made = []
    for position, tensor in enumerate(wide):
        weight = convolution and position == 1 and cell.problem.op != "conv2d_grad_weight"
        layout = cell.weight_layout if weight else cell.problem.layout
        memory = "dense" if cell.memory == "expanded" and position > 0 else cell.memory
        if tensor is not None:
            dtype = torch.int64 if tensor.dtype == torch.int64 else DTYPES[cell.problem.dtype]
            tensor = place(tensor, dtype, layout, memory)
        made.append(tensor)
    return tuple(made)


def test_cell(cell: Cell, monkeypatch: pytest.MonkeyPatch, record_property) -> None:
    record_property("kernel", cell.kernel)
    problem = cell.problem
    if reasons := cell_refusals(cell):
        pytest.skip(f"{cell.kernel} refuses: {'; '.join(reasons)}")
    for data in cell.data:
        geometry = problem.replace(dtype="f64", layout="nchw")
        wide, right = values(geometry, problem.dtype, data, cell.memory == "expanded")
        operands = placed(cell, wide)
        before = [None if operand is None else operand.clone() for operand in operands]
        answer = run_guarded(monkeypatch, cell, operands, 1)
        result = results_of(answer)[0]
        exact = right.indices is not None or problem.op == "max_pool2d_gather"
        exact |= data == "integers" and not problem.op.startswith("avg")
        tier = "ieee" if problem.empty else dispatch.kernel(cell.kernel).tier
        check(problem, result, right, tier, exact)
        if right.indices is not None:
            assert torch.equal(answer[1], right.indices)
            assert answer[1].stride() == result.stride()
        assert identical(answer, run_guarded(monkeypatch, cell, operands, 1)), "another result at the second run"
        in_two = run_guarded(monkeypatch, cell, operands, 2)
        if problem.op == "conv2d_grad_weight":
            check(problem, in_two, right, tier, exact)
        else:
            assert identical(answer, in_two), "another result with two threads"
        for operand, copy in zip(operands, before, strict=True):
            assert copy is None or torch.equal(bits(operand), bits(copy)), "an operand was written to"


def test_the_sample_joins_every_pair() -> None:
    """Each kernel and level, and each geometry, with every dtype, layout, kind of data and place in memory."""
    factors = {
        "dtype": (FLOATS, lambda cell: cell.problem.dtype),
        "layout": (LAYOUTS, lambda cell: cell.problem.layout),
        "weight": (LAYOUTS, lambda cell: cell.weight_layout),
        "data": (DATA, lambda cell: cell.data[0]),
        "memory": (MEMORY, lambda cell: cell.memory),
    }
    cells = [cell for cell in sampled() if not cell_refusals(cell)]
    for (name, (known, of)), (other, (more, of_other)) in itertools.combinations(factors.items(), 2):
        assert {(of(cell), of_other(cell)) for cell in cells} == set(itertools.product(known, more)), f"{name}, {other}"
    for op, name, level in kernels():
        mine = [cell for cell in cells if (cell.problem.op, cell.kernel, cell.level) == (op, name, level)]
        for known, of in factors.values():
            assert {of(cell) for cell in mine} == set(known), f"{op} {name} {level}"


def cell_refusals(cell: Cell) -> tuple[str, ...]:
    return dispatch.reasons_against(cell.kernel, cell.problem, Context(isa=cell.level))
