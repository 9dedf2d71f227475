"""What GPU kernels are compiled to, read without a GPU: ``python benchmarks/compile_report.py [OUT.json]``.

Registers, stack (spills), shared memory and the instructions that decide the speed, for every shipped kernel and
target, and what misses the kernel's own expectations.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import metadata
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from spatialconv import settings
from spatialconv.backends.extension import cuda_build
from spatialconv.backends.triton import ahead, machine_code

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("source", "target", "kernel", "registers", "stack", "shared", "tensor core", "async copies", "16-byte loads",
           "FMA", "instructions", "problems")  # fmt: skip
# What was compiled by what, and in which ways it misses what its kernel expects.
Row = tuple[str, ahead.Report, list[str]]


def triton_rows(targets: list[str], only: str) -> Iterator[Row]:
    """Every variant that a module of ``spatialconv.backends.triton`` ships and whose name contains ``only``."""
    names = [variant.name for module in ahead.listing_modules() for variant in ahead.shipped(module)]
    for target in targets:
        for report in ahead.in_new_process([target], [name for name in names if only in name]):
            yield f"triton {metadata.version('triton')}", report, ahead.problems(report)


def cuda_rows(targets: list[str], only: str) -> Iterator[Row]:
    """Every kernel of ``csrc/cuda`` whose file's name contains ``only``, where nvcc is. ptxas knows the static shared
    memory alone; the rest is asked for at launch."""
    if cuda_build.nvcc_command() is None:
        return
    folder = settings.cache_folder() / "nvcc"
    files = [source for source in cuda_build.sources(ROOT) if only in source.name]
    for source, log in cuda_build.compile_logs(ROOT, folder, files).items():
        instructions = machine_code.read_objects(cuda_build.compiled_object(ROOT, folder, source))
        slow = cuda_build.performance_warnings(log)
        for usage in cuda_build.usages(log):
            if usage.architecture.removesuffix("a") not in targets:
                continue
            counts = instructions.get((usage.architecture, usage.kernel), {})
            spills = [f"{usage.spill_bytes} bytes of spills"] if usage.spill_bytes else []
            report = ahead.Report(f"{source.stem} {plain_name(usage.kernel)}", usage.architecture, [], usage.registers)
            report.stack, report.shared, report.instructions = usage.stack_bytes, usage.shared_bytes, counts
            yield "nvcc", report, spills + [line for line in slow if usage.kernel in line]


def plain_name(mangled: str) -> str:
    """The kernel's name and template arguments as c++filt writes them; the symbol itself without that tool."""
    if shutil.which("c++filt") is None:
        return mangled
    words = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout.strip()
    words = re.sub(r"spatialconv::|cuda::|\(anonymous namespace\)::|^void ", "", words)
    depth = 0
    for place, letter in enumerate(words):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            return words[:place]
    return words


SOURCES: tuple[Callable[[list[str], str], Iterator[Row]], ...] = (triton_rows, cuda_rows)


def cells(source: str, report: ahead.Report, problems: list[str]) -> list[str]:
    """The row as the table shows it; counts of instructions are those in the code, not those that run."""
    count = Counter(report.instructions)
    tensor_core = [f"{count[name]} {name}" for name in ("HGMMA", "HMMA", "DMMA", "v_mfma") if count[name]]
    wide, loads = ahead.global_loads(report)
    asynchronous, fused = count["LDGSTS"] + count["UTMALDG"], count["FFMA"] + count["DFMA"] + count["v_fma"]
    return [
        source, report.target, report.name, str(report.registers), str(report.stack), str(report.shared),
        ", ".join(tensor_core), str(asynchronous), f"{wide} of {loads}", str(fused), str(count["all"]),
        "; ".join(problems),
    ]  # fmt: skip


def main(
    out: Annotated[Path | None, typer.Argument(help="where to keep the figures, as JSON")] = None,
    target: Annotated[list[str] | None, typer.Option(help=f"of {', '.join(ahead.TARGETS)}; all by default")] = None,
    only: Annotated[str, typer.Option(help="kernels whose name contains this")] = "",
    source: Annotated[str, typer.Option(help="triton or cuda; both by default")] = "",
) -> None:
    table = Table(*COLUMNS, title="machine code of the GPU kernels")
    asked = [rows_of for rows_of in SOURCES if rows_of.__name__.startswith(source)]
    rows = [row for rows_of in asked for row in rows_of(target or list(ahead.TARGETS), only)]
    for row in rows:
        table.add_row(*cells(*row))
    Console(width=240).print(table)
    if out is not None:
        kept = [dumps({"source": source, **asdict(report), "problems": found}) for source, report, found in rows]
        out.write_text("[\n" + ",\n".join(kept) + "\n]\n")
    raise typer.Exit(1 if any(found for _, _, found in rows) else 0)


if __name__ == "__main__":
    typer.run(main)
