"""The emulated CUDA kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer, and planted
mistakes that each of them has to find."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cells import Cell
from emulated import build
from emulated.test_cells_emulated import collected

from spatialconv import dispatch
from spatialconv.backends.extension.kernels import conv_structs
from spatialconv.backends.extension.pooling import pool_struct
from spatialconv.problem import Conv2dProblem

pytestmark = pytest.mark.full
# Too many threads would each wait for the others' clocks; the sample under ThreadSanitizer is smaller.
SHARE = {"address": 1, "thread": 6}


def line_of(cell: Cell) -> str:
    """A problem as ``driver.cpp`` reads it."""
    problem = cell.problem
    convolution = isinstance(problem, Conv2dProblem)
    struct = conv_structs(problem)[cell.weight_layout == "nhwc"] if convolution else pool_struct(problem)
    aux = problem.bias if convolution else problem.indices or problem.offsets
    words = memoryview(bytes(struct)).cast("q").tolist()
    name = dispatch.kernel(cell.kernel).name
    return " ".join(map(str, (problem.op, name, problem.dtype, 3, int(aux), *words)))


def lines(copies: str, share: int = 1) -> list[str]:
    cells = [cell for mode, cell in collected(False) if mode == copies and not cell.problem.empty]
    return sorted({line_of(cell) for cell in cells[::share]})


def run(program: Path, problems: list[str], seconds: int = 1500) -> subprocess.CompletedProcess[str]:
    given = "\n".join(problems) + "\n"
    return subprocess.run([program], input=given, capture_output=True, text=True, timeout=seconds, check=False)


@pytest.mark.parametrize("sanitizer", SHARE)
@pytest.mark.parametrize("copies", build.COPIES)
def test_nothing_is_found(copies: str, sanitizer: str) -> None:
    problems = lines(copies, SHARE[sanitizer])
    answer = run(build.program(copies, sanitizer), problems)
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[:6000]
    assert f"{len(problems)} ran, 0 wrong" in answer.stdout
    assert not answer.stderr


@dataclass(frozen=True)
class Planted:
    """A mistake made in a copy of a source, and where and by what words it has to be found."""

    file: str
    right: str
    wrong: str
    copies: str
    sanitizer: str
    words: str


PLANTED = {
    "a missing test of bounds": Planted(
        "conv_mma_correlate.h",
        "static_cast<uint32_t>(y[i] + move_y) < static_cast<uint32_t>(source_h) &&",
        "static_cast<uint32_t>(y[i] + move_y) <= static_cast<uint32_t>(source_h) &&",
        "eager",
        "address",
        "heap-buffer-overflow",
    ),
    "a product of 32 bits": Planted(
        "conv_mma_correlate.h",
        "(first_channel + line) * weight_row;",
        "static_cast<int32_t>(first_channel + line + 1000) * static_cast<int32_t>(weight_row + 10000000);",
        "eager",
        "address",
        "signed integer overflow",
    ),
    "a missing barrier": Planted(
        "conv_mma_tile.h",
        "__syncthreads();  // this stage is there",
        "// this stage is there",
        "eager",
        "thread",
        "data race",
    ),
    "a weak wait": Planted(
        "conv_mma_tile.h",
        "copy_wait<kStages - 2>();",
        "copy_wait<kStages - 1>();",
        "lazy",
        "none",
        "WRONG conv2d cuda_mma",
    ),
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_found(mistake: str, tmp_path: Path) -> None:
    planted = PLANTED[mistake]
    folder = Path(shutil.copytree(build.ROOT / "csrc", tmp_path / "csrc")) / "cuda"
    source = folder / planted.file
    assert source.read_text().count(planted.right) == 1, "the source has changed: plant the mistake elsewhere"
    source.write_text(source.read_text().replace(planted.right, planted.wrong))
    for other in set(folder.glob("*.cu")) - {folder / "conv_mma.cu", folder / "tables.cu"}:
        other.unlink()
    tables = (folder / "tables.cu").read_text()
    listed = re.compile(r"(#define SPATIALCONV_CUDA_TABLES\(_\)).*?\n\n", re.DOTALL)
    (folder / "tables.cu").write_text(listed.sub(r"\1 _(conv_mma_table)\n\n", tables))
    program = build.program(planted.copies, planted.sanitizer, tmp_path, tmp_path)
    answer = run(program, [line for line in lines("eager") if line.startswith("conv2d cuda_mma ")])
    assert answer.returncode != 0
    assert planted.words in answer.stdout + answer.stderr
    assert planted.sanitizer == "none" or "conv_mma" in answer.stderr, "found elsewhere than in the kernel"
