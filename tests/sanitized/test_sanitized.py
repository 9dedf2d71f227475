"""Every C++ kernel at every level, and with the tiles of AVX-512 on any machine, under AddressSanitizer,
UndefinedBehaviorSanitizer and ThreadSanitizer, its results compared with torch's; and planted mistakes that each of
them has to find."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cells
import pytest
import torch
from cells import Cell
from compare import check
from operands import values
from sanitized import build
from test_kernels import LEVELS, kernels
from torch import Tensor

from spatialconv import dispatch
from spatialconv.backends.base import DTYPES
from spatialconv.backends.extension.kernels import conv_structs
from spatialconv.backends.extension.local import LocalKernel
from spatialconv.backends.extension.pooling import pool_struct
from spatialconv.problem import LOCAL_OPS, Conv2dProblem, Problem
from spatialconv.shapes import memory_format

pytestmark = [
    pytest.mark.full(cost=3),
    pytest.mark.xdist_group("sanitized"),
    pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler to build the kernels with"),
]
TENSORS = ("x", "w", "y", "aux")
# The tensors that a plan's operands are, and those that its results are.
OPERANDS = {
    "conv2d": ("x", "w", "aux"),
    "conv2d_grad_input": ("y", "w"),
    "conv2d_grad_weight": ("y", "x"),
    "max_pool2d": ("x",),
    "max_pool2d_scatter": ("y", "aux"),
    "max_pool2d_gather": ("x", "aux"),
    "avg_pool2d": ("x",),
    "avg_pool2d_grad_input": ("y",),
}
OPERANDS |= {op: OPERANDS[op.removeprefix("local_")] for op in LOCAL_OPS}
RESULTS = {
    "conv2d": ("y",),
    "conv2d_grad_input": ("x",),
    "conv2d_grad_weight": ("w",),
    "max_pool2d": ("y", "aux"),
    "max_pool2d_scatter": ("x",),
    "max_pool2d_gather": ("y",),
    "avg_pool2d": ("y",),
    "avg_pool2d_grad_input": ("x",),
}
RESULTS |= {op: RESULTS[op.removeprefix("local_")] for op in LOCAL_OPS}


def entries(level: str) -> list[cells.Listed]:
    """The C++ kernels. What the package lacks has those of the strongest level that it has: refusals are the same."""
    known = level if level in LEVELS else LEVELS[-1]
    return [entry for entry in kernels(False) if entry[2] == known]


def tails(listed: list[cells.Listed]) -> list[Cell]:
    """Every tail of channels, in both layouts."""
    convolutions = [entry for entry in listed if entry[0].startswith("conv2d")]
    return [cell for entry in convolutions for layout in cells.LAYOUTS for cell in cells.tails(entry, layout)]


def taken(found: list[Cell]) -> list[Cell]:
    """What the compiled kernels compute themselves: an activation that they do not fuse is applied behind them."""
    return [
        cell
        for cell in found
        if not cell.problem.empty
        and getattr(cell.problem, "activation", None) in (None, *dispatch.kernel(cell.kernel).fuses)
        and not cell.refusals()
    ]


def stored(tensor: Tensor, dtype: torch.dtype, layout: str) -> bytes:
    """The elements as they lie in memory."""
    tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
    tensor = tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 and layout == "nhwc" else tensor
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def loaded(content: bytes, shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> Tensor:
    flat = torch.frombuffer(bytearray(content), dtype=dtype)
    if layout == "nchw":
        return flat.view(shape)
    n, c, h, w = shape
    return flat.view(n, h, w, c).permute(0, 3, 1, 2)


@dataclass
class Task:
    """A cell as ``driver.cpp`` takes it, and how its answer is read."""

    cell: Cell
    threads: int

    def __post_init__(self) -> None:
        problem, self.layouts = self.cell.problem, dict.fromkeys(TENSORS, self.cell.problem.layout)
        if problem.op in ("conv2d", "conv2d_grad_input"):
            self.layouts["w"] = self.cell.weight_layout
        elif problem.op in LOCAL_OPS:
            self.layouts["w"] = "nchw"
        geometry = problem.replace(dtype="f64", layout="nchw", device="cpu")
        wide, self.right = values(geometry, problem.dtype, self.cell.data[0], False)
        self.given = {
            name: stored(tensor, DTYPES[problem.dtype], self.layouts[name])
            for name, tensor in zip(OPERANDS[problem.op], wide, strict=True)
            if tensor is not None
        }
        size = torch.Size(problem.result_shape).numel()
        self.sizes = {name: 8 if name == "aux" else DTYPES[problem.dtype].itemsize for name in RESULTS[problem.op]}
        self.sizes = {name: size * item for name, item in self.sizes.items()}

    @property
    def line(self) -> str:
        problem = self.cell.problem
        roles = "".join("r" if name in self.given else "w" if name in self.sizes else "-" for name in TENSORS)
        bytes_of = [len(self.given.get(name, b"")) or self.sizes.get(name, 0) for name in TENSORS]
        words = memoryview(bytes(struct_of(problem, self.layouts["w"]))).cast("q").tolist()
        name = dispatch.kernel(self.cell.kernel).compiled_name(self.cell.context())
        return " ".join(map(str, (problem.op, name, problem.dtype, self.threads, roles, *bytes_of, *words)))

    @property
    def operands(self) -> bytes:
        return b"".join(self.given[name] for name in TENSORS if name in self.given)

    def check(self, results: Iterator[bytes]) -> None:
        for _ in range(self.answers):
            self.check_answer(results)

    @property
    def answers(self) -> int:
        """A forward convolution is computed again from a packed weight."""
        return 2 if self.cell.problem.op == "conv2d" else 1

    def check_answer(self, results: Iterator[bytes]) -> None:
        problem = self.cell.problem
        answer = {
            name: loaded(
                next(results),
                problem.result_shape,
                torch.int64 if name == "aux" else DTYPES[problem.dtype],
                self.layouts[name],
            )
            for name in TENSORS
            if name in self.sizes
        }
        exact = cells.comes_out_exact(self.cell, self.cell.data[0])
        result = answer[RESULTS[problem.op][0]]
        if result.dim() == 4:
            result = result.contiguous(memory_format=memory_format(problem.layout))
        check(problem, result, self.right, self.cell.tier, exact)
        assert "aux" not in answer or torch.equal(answer["aux"], self.right.indices)


def struct_of(problem: Problem, weight_layout: str):
    if problem.op in LOCAL_OPS:
        return LocalKernel().struct(problem)
    if isinstance(problem, Conv2dProblem):
        return conv_structs(problem)[weight_layout == "nhwc"]
    return pool_struct(problem)


def run(program: Path, tasks: list[Task], folder: Path) -> subprocess.CompletedProcess[str]:
    """The program's answer to the tasks; what it computed is in the file ``results`` of the folder."""
    (folder / "operands").write_bytes(b"".join(task.operands for task in tasks))
    return subprocess.run(
        [program, folder / "operands", folder / "results"],
        input="".join(f"{task.line}\n" for task in tasks),
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )


def pieces(content: bytes, tasks: list[Task]) -> Iterator[bytes]:
    """The results one after the other, in the order of the tensors."""
    begin = 0
    for task in tasks:
        for name in TENSORS * task.answers:
            if name in task.sizes:
                yield content[begin : begin + task.sizes[name]]
                begin += task.sizes[name]
    assert begin == len(content)


def check_run(program: Path, tasks: list[Task], folder: Path) -> None:
    answer = run(program, tasks, folder)
    found = f"{answer.stdout[-2000:]}\n{answer.stderr[-20000:]}"
    assert answer.returncode == 0 and f"{len(tasks)} ran, 0 wrong" in answer.stdout, found
    results = pieces((folder / "results").read_bytes(), tasks)
    for task in tasks:
        try:
            task.check(results)
        except AssertionError as error:
            raise AssertionError(f"{task.cell}, {task.threads} threads: {error}") from error
    assert next(results, None) is None


@pytest.mark.parametrize("level", [*LEVELS, build.WIDE])
def test_nothing_touches_what_is_not_its_own(level: str, tmp_path: Path) -> None:
    """Everything, alone and in threads by turns."""
    found = taken(cells.whole(entries(level), all_data=False) + tails(entries(level)))
    tasks = [Task(cell, 1 + 2 * (number % 2)) for number, cell in enumerate(found)]
    check_run(build.program(level, "address"), tasks, tmp_path)


def test_threads_share_nothing_that_is_written(tmp_path: Path) -> None:
    """At one level: which thread does what does not depend on it."""
    tasks = [Task(cell, 3) for cell in taken(cells.sampled(entries(LEVELS[0])))]
    check_run(build.program(LEVELS[0], "thread"), tasks, tmp_path)


@dataclass(frozen=True)
class Planted:
    """A mistake made in a copy of a header, and by what words it has to be found; ``table`` is the kernel file that
    includes it."""

    table: str
    header: str
    op: str
    right: str
    wrong: str
    level: str
    sanitizer: str
    words: str


PLANTED = {
    "one column too many": Planted(
        "max_pool",
        "max_pool_scatter.h",
        "max_pool2d_gather",
        "for (int64_t ow = 0; ow < p.ow; ++ow) {\n          const bool any",
        "for (int64_t ow = 0; ow <= p.ow; ++ow) {\n          const bool any",
        LEVELS[0],
        "address",
        "heap-buffer-overflow",
    ),
    "a product of 32 bits": Planted(
        "max_pool",
        "max_pool_scatter.h",
        "max_pool2d_scatter",
        "return {image * p.x_stride[0] +",
        "return {static_cast<int32_t>(image + 100000) * static_cast<int32_t>(p.x_stride[0] + 100000) +",
        LEVELS[0],
        "address",
        "signed integer overflow",
    ),
    "a workspace that threads share": Planted(
        "max_pool",
        "max_pool_scatter.h",
        "max_pool2d_scatter",
        "begin, end, static_cast<char*>(buffers.workspace) + slab * slot);",
        "begin, end, static_cast<char*>(buffers.workspace) + slab / (slab + 1) * slot);",
        LEVELS[0],
        "thread",
        "data race",
    ),
    "a column read behind the image": Planted(
        "dots",
        "dots_stage.h",
        "conv2d",
        "const int64_t high = inside ? clamped(valid_end - at.w, low, n) : 0;",
        "const int64_t high = inside ? clamped(valid_end - at.w + 3, low, n) : 0;",
        LEVELS[0],
        "address",
        "heap-buffer-overflow",
    ),
    "a twin that takes one number of a pair twice": Planted(
        "dots",
        "dots.h",
        "conv2d",
        "multiply_add(left[2 * k + 1], right[2 * j + 1], second[j])",
        "multiply_add(left[2 * k + 1], right[2 * j], second[j])",
        build.WIDE,
        "address",
        "extension:dots@",
    ),
    "a row left out of a tile that only AVX-512 has": Planted(
        "gemm",
        "gemm_tile.h",
        "conv2d_grad_weight",
        "case 13: return tile<Compute, 13, vectors>(call);",
        "case 13: return tile<Compute, 12, vectors>(call);",
        build.WIDE,
        "address",
        "extension:gemm@",
    ),
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_found(mistake: str, tmp_path: Path) -> None:
    planted = PLANTED[mistake]
    csrc = Path(shutil.copytree(build.ROOT / "csrc", tmp_path / "csrc"))
    source = csrc / "cpu" / planted.header
    assert source.read_text().count(planted.right) == 1, "the source has changed: plant the mistake elsewhere"
    source.write_text(source.read_text().replace(planted.right, planted.wrong))
    for other in (csrc / "cpu").glob("*.cpp"):
        if other.stem not in (planted.table, "isa", "peak"):
            other.unlink()
    tables = (csrc / "cpu/isa.cpp").read_text()
    only = re.sub(r"(kTables\[\] = \{)[^}]*\}", rf"\1&{planted.table}_table}}", tables)
    (csrc / "cpu/isa.cpp").write_text(only)
    compiled = [f"extension:{name}" for name in {"max_pool": ("rows", "planes")}.get(planted.table, [planted.table])]
    listed = [entry for entry in entries(planted.level) if entry[0] == planted.op and entry[1] in compiled]
    tasks = [Task(cell, 3) for cell in taken(cells.sampled(listed))]
    with pytest.raises(AssertionError) as found:
        check_run(build.program(planted.level, planted.sanitizer, csrc), tasks, tmp_path)
    assert planted.words in str(found.value)
    assert planted.level == build.WIDE or planted.header in str(found.value), "found elsewhere than in the kernel"
