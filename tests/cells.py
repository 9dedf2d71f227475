"""The generated cells: kernel of the dispatcher's table × op × dtype × layout × geometry × data × place in memory.

Plain pytest runs a seeded sample in which every pair of values of the factors meets; ``-m full`` runs the whole product
of kernel, op, dtype, layout and geometry. A kernel is tested because it is listed. The same generator serves CPU
tensors (``test_kernels.py``), CUDA kernels on their CPU twins (``emulated/``) and a GPU (``gpu/``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
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
from spatialconv.problem import Conv2dProblem, Problem, parse
from spatialconv.shapes import dense, dense_strides

SEED = 20
FLOATS = ("f32", "f64", "bf16", "f16")
LAYOUTS = ("nchw", "nhwc")
# (op, kernel, instruction-set level or GPU architecture)
Listed = tuple[str, str, str]


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

    @property
    def tier(self) -> str:
        return "ieee" if self.problem.empty else dispatch.kernel(self.kernel).tier

    def context(self, threads: int = 1) -> Context:
        """Where the kernel's tier is allowed."""
        return Context(threads=threads, isa=self.level, precision=dispatch.kernel(self.kernel).tier)

    def refusals(self) -> list[str]:
        """The kernel's own reasons: whether its backend is there is the caller's question."""
        return dispatch.kernel(self.kernel).refusals(self.problem, self.context())

    def plan(self, threads: int = 1) -> Plan:
        if self.problem.empty:
            return empty_plan(self.problem)
        return dispatch.kernel(self.kernel).whole_plan(self.problem, self.context(threads))


@cache
def problem_of(text: str, dtype: str, layout: str, device: str) -> Problem:
    problem = parse(f"{text} {dtype} {layout} {device}")
    if problem.op in ("conv2d", "local_conv2d"):
        return problem.replace(bias=problem.oc % 2 == 0)
    return problem.replace(indices=not problem.offsets) if problem.op == "max_pool2d" else problem


def on_cpu(op: str, interpreted: bool = False) -> list[str]:
    """The kernels of an op that compute on CPU tensors: compiled ones, or those that Triton interprets, slowly."""
    names = [name for name in dispatch.TABLE[op] if "cpu" in dispatch.kernel(name).devices]
    return [name for name in names if name.startswith("triton:") == interpreted]


def _flops(text: str) -> int:
    problem = parse(text)
    return problem.flops() if isinstance(problem, Conv2dProblem) else 0


def _takes(entry: Listed, text: str, dtype: str, device: str) -> bool:
    _, name, level = entry
    return any(
        not Cell(name, level, problem_of(text, dtype, layout, device), "nchw", DATA, "dense").refusals()
        for layout in LAYOUTS
    )


def sampled(
    listed: Sequence[Listed], device: str = "cpu", share: int = 1, most_flops: float = float("inf")
) -> list[Cell]:
    """The seeded sample; of kernels that run slowly here one geometry in ``share``, though at least eight, and others
    for every kernel, of those that are no larger than ``most_flops``; ``whole`` has them all."""
    rows: list[tuple] = []
    refused: dict[tuple[str, str, str], tuple] = {}
    for number, entry in enumerate(listed):
        texts = geometries.printed(entry[0])
        dtypes = [dtype for dtype in FLOATS if any(_takes(entry, text, dtype, device) for text in texts)]
        taken = [text for text in texts if any(_takes(entry, text, dtype, device) for dtype in dtypes)]
        small = [text for text in taken if _flops(text) <= most_flops]
        step = min(share, max(len(small) // 8, 1))
        mine = [(entry, text) for index, text in enumerate(small) if (index + number) % step == 0]
        rows += geometries.pairwise(mine, dtypes, LAYOUTS, LAYOUTS, DATA, MEMORY, seed=SEED)
        # What a kernel refuses does not depend on the level, so it is counted at one; a dtype once, not by geometry.
        missing = [(text, FLOATS[0] if dtypes == [] else dtypes[0]) for text in texts if text not in taken]
        for text, dtype in [*missing, *((taken[0], dtype) for dtype in FLOATS if taken and dtype not in dtypes)]:
            refused.setdefault((*entry[:2], f"{text} {dtype}"), (entry, text, dtype))
    rows += [(*row, LAYOUTS[0], LAYOUTS[0], DATA[0], MEMORY[0]) for row in refused.values()]
    return [
        Cell(name, level, problem_of(text, dtype, layout, device), weight_layout, (data,), memory)
        for (op, name, level), text, dtype, layout, weight_layout, data, memory in rows
    ]


def whole(listed: Sequence[Listed], device: str = "cpu", all_data: bool = True) -> list[Cell]:
    """Everything; each cell with all kinds of data, or with one of them in turn."""
    cells = []
    rotation = itertools.cycle(itertools.product(MEMORY, LAYOUTS))
    data = itertools.cycle((DATA,) if all_data else [(kind,) for kind in DATA])
    for op, name, level in listed:
        for text, dtype, layout in itertools.product(geometries.printed(op), FLOATS, LAYOUTS):
            memory, weight_layout = next(rotation)
            problem = problem_of(text, dtype, layout, device)
            cells.append(Cell(name, level, problem, weight_layout, next(data), memory))
    return cells


def tails(listed: Listed, layout: str) -> list[Cell]:
    """Every tail of channels that the kernel takes: on small integers, whose sums are exact in every order, unless the
    kernel rounds them."""
    op, name, level = listed
    data = "integers" if dispatch.kernel(name).integer_exact else "normal"
    dtype = getattr(dispatch.kernel(name), "dtypes", FLOATS)[0]
    found = [
        Cell(name, level, problem_of(text, dtype, layout, "cpu"), LAYOUTS[number // 2 % 2], (data,), "dense")
        for number, text in enumerate(geometries.tails(op))
    ]
    return [cell for cell in found if not cell.refusals()]


def wants_full(config: pytest.Config) -> bool:
    """Whether ``-m`` asks for the tests marked full."""
    expression = config.getoption("markexpr")
    return "full" in expression and "not full" not in expression


def parametrize(metafunc: pytest.Metafunc, sample: Callable[[], list[Cell]], everything: Callable[[], list[Cell]]):
    """The cells of a test that takes a ``cell``."""
    if "cell" in metafunc.fixturenames:
        full = wants_full(metafunc.config)
        marks = [pytest.mark.full] if full else []
        cells = everything() if full else sample()
        metafunc.parametrize("cell", [pytest.param(cell, id=str(cell), marks=marks) for cell in cells])


def results_of(answer: object) -> tuple[torch.Tensor, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def identical(first: object, second: object) -> bool:
    pairs = zip(results_of(first), results_of(second), strict=True)
    return all(torch.equal(bits(one), bits(other)) for one, other in pairs)


def run_guarded(monkeypatch: pytest.MonkeyPatch, plan: Plan, operands: tuple) -> object:
    """The plan's answer, computed on poisoned and guarded memory."""
    guarded = GuardedEmpty()
    with monkeypatch.context() as patch:
        guarded.patch(patch)
        answer = plan(*operands)
    guarded.check()
    return answer


def placed(cell: Cell, wide: tuple[torch.Tensor | None, ...], device: str) -> tuple[torch.Tensor | None, ...]:
    convolution = isinstance(cell.problem, Conv2dProblem)
    made = []
    for position, tensor in enumerate(wide):
        weight = convolution and position == 1 and cell.problem.pass_name != "grad_weight"
        layout = cell.weight_layout if weight else cell.problem.layout
        memory = "dense" if cell.memory == "expanded" and position > 0 else cell.memory
        if tensor is not None:
            dtype = DTYPES[cell.problem.dtype] if tensor.is_floating_point() else tensor.dtype
            tensor = place(tensor, dtype, layout, memory, device)
        made.append(tensor)
    return tuple(made)


def comes_out_exact(cell: Cell, data: str) -> bool:
    """Whether nothing but the exact result, rounded to its type, is right: a choice, or a sum of small integers."""
    problem = cell.problem
    if problem.op.startswith("max_pool2d") and problem.op != "max_pool2d_scatter":
        return True
    rounds = problem.op.startswith("avg") or getattr(problem, "activation", None) in ("hardswish", "silu", "gelu")
    return data == "integers" and dispatch.kernel(cell.kernel).integer_exact and not rounds


def launched(cell: Cell, accumulate: bool = False) -> Plan | None:
    """A plan that runs the kernel's launch, where it has one; with ``accumulate`` it takes the tensor to add onto too,
    and returns it. Max pooling's gives no indices."""
    problem, kernel, context = cell.problem, dispatch.kernel(cell.kernel), cell.context()
    if problem.empty or problem.op not in ("conv2d", "max_pool2d", "avg_pool2d"):
        return None
    problem = problem.replace(indices=False) if problem.op == "max_pool2d" else problem
    weight = torch.zeros(problem.weight_shape) if problem.op == "conv2d" else None
    if kernel.launch(problem, context, weight, accumulate=accumulate) is None:
        return None

    def plan(input, weight=None, bias=None, onto=None):
        launch = kernel.launch(problem, context, weight, accumulate=accumulate)
        output = onto
        if output is None:
            output = input.new_empty_strided(problem.output_shape, dense_strides(problem.output_shape, problem.layout))
        workspace = torch.empty(launch.workspace_bytes, dtype=torch.uint8)
        weight = 0 if launch.weight is None else launch.weight.data_ptr()
        assert not launch.call(
            *launch.before, input.data_ptr(), weight, output.data_ptr(), 0 if bias is None else bias.data_ptr(),
            workspace.data_ptr() if launch.workspace_bytes else 0, *launch.after,
        )  # fmt: skip
        return output

    return plan


def as_launched(cell: Cell, operands: tuple) -> Iterator[torch.Tensor | None]:
    """Operands as a launch takes them: dense in the problem's layout, the weight in any."""
    for position, operand in enumerate(operands):
        if operand is None or operand.dim() != 4 or position > 0:
            yield operand
        else:
            yield dense(operand, cell.problem.layout)


def check_cell(
    cell: Cell, monkeypatch: pytest.MonkeyPatch, device: str = "cpu", thread_counts: tuple[int, ...] = (1, 2)
) -> None:
    """Run the cell on tensors of a device: right, the same at every run and with any number of threads, operands left
    alone. ``device`` is where the tensors are, which for a CPU twin is not the problem's."""
    problem = cell.problem
    if reasons := cell.refusals():
        pytest.skip(f"{cell.kernel} refuses: {'; '.join(reasons)}")
    for data in cell.data:
        geometry = problem.replace(dtype="f64", layout="nchw", device="cpu")
        wide, right = values(geometry, problem.dtype, data, cell.memory == "expanded")
        operands = placed(cell, wide, device)
        before = [None if operand is None else operand.clone() for operand in operands]
        answer = run_guarded(monkeypatch, cell.plan(), operands)
        result = results_of(answer)[0]
        exact = comes_out_exact(cell, data)
        check(problem, result.cpu(), right, cell.tier, exact)
        if right.indices is not None:
            assert torch.equal(answer[1].cpu(), right.indices)
            assert answer[1].stride() == result.stride()
        for threads in thread_counts:
            again = run_guarded(monkeypatch, cell.plan(threads), operands)
            if threads > 1 and problem.op == "conv2d_grad_weight":  # an untied one sums over images only
                check(problem, again, right, cell.tier, exact)
            else:
                assert identical(answer, again), f"another result at the next run, with {threads} threads"
        if device == "cpu" and (plan := launched(cell)) is not None:
            again = run_guarded(monkeypatch, plan, tuple(as_launched(cell, operands)))
            assert identical(result, again), "another result on raw addresses"
        for operand, copy in zip(operands, before, strict=True):
            assert copy is None or torch.equal(bits(operand), bits(copy)), "an operand was written to"
