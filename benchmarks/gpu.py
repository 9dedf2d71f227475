"""Everything that a GPU is needed for, in one call, without network and within a time limit.

    python3 benchmarks/gpu.py OUT [--seconds 570] [--suite resnet50 ...]

spatialconv has to be installed, with its CUDA kernels, and pytest. Steps, in order: what is installed; the GPU's
instructions one by one, as their CPU twins have them; streams, graphs and the test matrix; compute-sanitizer on a
sample; then layers of real networks against cuDNN. ``OUT`` holds ``summary.json`` (steps,
versions, driver, clocks; rewritten after every step), ``log.txt`` (their output), ``bench.json`` (in the format of
``spatialconv bench``, whole after every row, so that an interruption loses one row) and ``worst.txt``, the rows with
the lowest ratio first.

Against cuDNN means: the same layout and dtype, ``cudnn.benchmark`` on, bias as the suite says, time inside a CUDA
graph, operands rotating through more memory than the L2 cache ('rotate', as inside a network) or one copy ('hot').
"""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import typer

ROOT = Path(__file__).resolve().parents[1]
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
# One process, also where pytest-xdist is missing: a second one would share the GPU.
PYTEST += ["--rootdir", str(ROOT), "-o", "addopts=--import-mode=importlib -m 'not full'"]
# Suites and dtypes in the order in which they are measured, until the time is over.
PLAN = (
    ("resnet50", "bf16", "nhwc"),
    ("resnet50", "f16", "nhwc"),
    ("mobilenetv2", "bf16", "nhwc"),
    ("pool2d", "bf16", "nhwc"),
    ("convnext_t", "bf16", "nhwc"),
    ("resnext50_32x4d", "bf16", "nhwc"),
    ("sd15_unet", "bf16", "nhwc"),
    ("resnet50", "f32", "nhwc"),
    ("resnet50", "bf16", "nchw"),
    ("replknet31b", "bf16", "nhwc"),
)
# What the steps before the benchmark may take together, as a share of the whole time.
TESTS_SHARE = 0.45


class Run:
    """The steps so far, written to disk after each."""

    def __init__(self, out: Path, seconds: float) -> None:
        self.out, self.end = out, time.monotonic() + seconds
        self.summary: dict = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "seconds": seconds, "steps": []}
        (out / "log.txt").write_text("")

    def left(self) -> float:
        return self.end - time.monotonic()

    def note(self, name: str, **facts) -> None:
        self.summary["steps"].append({"step": name, **facts})
        self.save()
        print(f"{name}: {facts.get('status')} ({facts.get('seconds', 0):.0f} s, {self.left():.0f} s left)", flush=True)

    def save(self) -> None:
        (self.out / "summary.json").write_text(json.dumps(self.summary, indent=1) + "\n")

    def command(self, name: str, words: list[str], limit: float, **environment: str) -> str:
        """Run a command for at most so long; its last lines go to the summary, all of its output to the log."""
        start, limit = time.monotonic(), max(min(limit, self.left() - 15), 1)
        try:
            with subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=self.out,
                env=os.environ | environment, start_new_session=True,
            ) as process:  # fmt: skip
                text, late = _output(process, limit)
            status = f"stopped after {limit:.0f} s" if late else f"exit {process.returncode}"
            status = "ok" if not late and process.returncode == 0 else status
        except OSError as error:
            text, status = "", f"could not be started: {error}"
        with open(self.out / "log.txt", "a") as log:
            log.write(f"\n===== {name}: {' '.join(words)}\n{text}\n")
        self.note(name, status=status, seconds=time.monotonic() - start, tail=text.strip().splitlines()[-8:])
        return text


def _output(process: subprocess.Popen, limit: float) -> tuple[str, bool]:
    """All that it writes, and whether it was stopped at the limit: politely first, so that pytest reports what it
    found, and with all processes it started, which else would go on using the GPU."""
    try:
        return process.communicate(timeout=limit)[0], False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
    try:
        text = process.communicate(timeout=10)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0], True
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return text, True


def sanitizer() -> str | None:
    return shutil.which("compute-sanitizer") or next(
        map(str, Path("/usr/local").glob("cuda*/bin/compute-sanitizer")), None
    )


def main(
    out: Path = typer.Argument(..., help="Folder for the results; made where it is missing."),
    seconds: float = typer.Option(570.0, min=30, help="Time in all; what was measured until then is kept."),
    suite: list[str] = typer.Option([], help="Measure these suites only (bf16, channels_last)."),
    skip_tests: bool = typer.Option(False, help="Go to the benchmark at once."),
) -> None:
    """Check and measure this machine's GPU."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    run = Run(out, seconds)
    tests_seconds = run.left() * TESTS_SHARE
    run.command("info", [sys.executable, "-m", "spatialconv", "info"], 60)
    import torch

    if not torch.cuda.is_available():
        run.note("device", status="this torch sees no CUDA device: nothing was run on one")
        raise typer.Exit(1)
    from spatialconv.info import gpu_facts

    run.summary["gpu"] = gpu_facts()
    run.save()
    if not skip_tests:
        test_steps(run, tests_seconds)
    measure(run, [(name, "bf16", "nhwc") for name in suite] or list(PLAN))
    run.summary["gpu_at_the_end"] = gpu_facts()
    run.save()


def test_steps(run: Run, seconds: float) -> None:
    tests = ROOT / "tests"
    run.command("instructions", [*PYTEST, str(tests / "emulated"), "-k", "instructions and gpu"], 0.2 * seconds)
    # With -m "" also the tests that a plain run leaves out.
    run.command("device", [*PYTEST, "-m", "", str(tests / "gpu" / "test_device.py")], 0.25 * seconds)
    run.command("matrix", [*PYTEST, str(tests / "gpu" / "test_kernels_gpu.py")], 0.4 * seconds)
    tool = sanitizer()
    if tool is None:
        run.note("sanitizer", status="compute-sanitizer was not found")
        return
    sample = [*PYTEST, str(tests / "gpu" / "test_kernels_gpu.py"), "-k", "test_cell and extension", "--sample", "60"]
    words = [tool, "--tool", "memcheck", "--error-exitcode", "9", "--target-processes", "all", *sample]
    run.command("sanitizer", words, 0.15 * seconds, PYTORCH_NO_CUDA_MEMORY_CACHING="1")


def measure(run: Run, plan: list[tuple[str, str, str]]) -> None:
    """Row by row until the time is over; a failing row is a row that says so."""
    from spatialconv.bench import results, roofline, runner, table

    limits = roofline.measure({dtype for _, dtype, _ in plan}, "cuda")
    settings = [
        runner.Settings(
            suites=(name,), backends=("extension", "triton"), dtypes=(dtype,), layouts=(layout,), batch=None,
            device="cuda", clock="graph", budget=0.05, cache=cache,
        )
        for cache in ("rotate", "hot")
        for name, dtype, layout in plan
    ]  # fmt: skip
    head = results.head(settings[0].as_dict() | {"suites": [one.suites[0] for one in settings]}, limits.as_dict())
    store = results.Store(run.out / "bench.json", head, resume=True)
    start, last = time.monotonic(), ""
    for one in settings:
        bench = runner.Bench(one, limits)
        works = [work for work in runner.plan(one) if not store.done(work.key)]
        for done, work in enumerate(works):
            if run.left() < 20:
                last = (
                    f"out of time in {one.suites[0]} {one.dtypes[0]} {one.cache}, {len(works) - done} rows left of it"
                )
                break
            store.add(bench.row(work))
        if last:
            break
    rows = list(store.rows.values())
    text = table.worst_first(rows)
    (run.out / "worst.txt").write_text(text)
    counts = {status: sum(row["status"] == status for row in rows) for status in {row["status"] for row in rows}}
    run.note("bench", status=last or "all measured", seconds=time.monotonic() - start, rows=counts)
    print(text, flush=True)


if __name__ == "__main__":
    typer.run(main)
