"""The report of the generated tests: how many cells ran and were skipped, kernel by kernel, and why; and --sample.

Without a GPU Triton's kernels run in its interpreter, which has to be said before anything imports triton; without the
instructions of ``extension:dots`` that runs on a twin of them.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from zlib import crc32


def prepare_environment() -> None:
    """What libraries read as they are imported."""
    # Two processes test at a time: a pool that spins while it waits would take the other's core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")
    told = Path("/proc/cpuinfo")
    flags = told.read_text() if told.exists() else ""
    if "amx_bf16" not in flags and "avx512_bf16" not in flags:
        os.environ.setdefault("SPATIALCONV_EMULATE_DOTS", "amx_bf16")


prepare_environment()


def pytest_addoption(parser) -> None:
    parser.addoption(
        "--sample", type=int, default=1, metavar="K", help="run one test in K (of dear ones fewer), always the same"
    )


def pytest_collection_modifyitems(config, items) -> None:
    """``@pytest.mark.full(cost=C)``: dear tests, of which a sample of one in K takes one in K times C."""
    step = config.getoption("--sample")
    if step > 1:
        kept, left = [], []
        for item in items:
            mark = item.get_closest_marker("full")
            share = step * (mark.kwargs.get("cost", 1) if mark else 1)
            (left if crc32(item.nodeid.encode()) % share else kept).append(item)
        config.hook.pytest_deselected(items=left)
        items[:] = kept


def pytest_terminal_summary(terminalreporter) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    reasons: Counter[str] = Counter()
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            kernel = dict(report.user_properties).get("kernel") if hasattr(report, "user_properties") else None
            if kernel is None or (outcome != "skipped" and report.when != "call"):
                continue
            counts[kernel, outcome] += 1
            if outcome == "skipped":
                reasons[report.longrepr[2].removeprefix("Skipped: ").partition(", the problem")[0]] += 1
    if not counts:
        return
    terminalreporter.section("generated cells")
    for kernel in sorted({kernel for kernel, _ in counts}):
        ran = counts[kernel, "passed"] + counts[kernel, "failed"]
        failed = f", {counts[kernel, 'failed']} failed" if counts[kernel, "failed"] else ""
        terminalreporter.write_line(f"{kernel}: {ran} ran{failed}, {counts[kernel, 'skipped']} skipped")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"skipped {count}: {reason}")
