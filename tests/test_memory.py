"""What a call allocates at its peak, and what a process keeps after thousands of calls on ever new shapes."""

from __future__ import annotations

import sys

import cells
import child
import pytest
import torch
from cells import LAYOUTS, Cell, results_of
from compare import aten
from operands import values
from test_kernels import LEVELS, kernels
from torch.profiler import ProfilerActivity, profile

from spatialconv import dispatch

CONVOLUTIONS = (
    "n2 ic24 ih20 iw21 oc40 kh3 kw3 ph1 pw1",
    "n2 ic24 ih19 iw22 oc24 kh5 kw5 sh2 sw2 ph2 pw2 g24",
    "n3 ic40 ih14 iw14 oc21",
    "n3 ic40 ih1 iw1 oc21",
)
WINDOWS = ("n2 ic24 ih20 iw21 kh3 kw3 sh2 sw2 ph1 pw1",)


def peak(call) -> tuple[int, object]:
    """The most bytes that torch's allocator lent at a time during a call, and the call's answer."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        answer = call()
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    lent = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        lent += event.nbytes()
        most = max(most, lent)
    return most, answer


def test_the_peak_counts_what_is_given_back() -> None:
    def call():
        torch.empty(1000, dtype=torch.uint8)
        return torch.empty(300, dtype=torch.uint8), torch.empty(400, dtype=torch.uint8)

    assert peak(call)[0] == 1000
    assert peak(lambda: aten.add(torch.zeros(250), torch.zeros(250)))[0] == 3000


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("op", "name"),
    sorted({entry[:2] for entry in kernels(False) if entry[1].startswith("extension:")}),
)
def test_a_call_takes_its_result_and_the_workspace_that_it_states(
    op: str, name: str, layout: str, threads: int
) -> None:
    """torch's call takes the result too, so it never takes less but for the workspace."""
    geometries = CONVOLUTIONS if "conv2d" in op else WINDOWS
    dtype = dispatch.kernel(name).dtypes[0]
    problems = [cells.problem_of(f"{op} {text}", dtype, layout, "cpu") for text in geometries]
    dense = [Cell(name, LEVELS[-1], problem, layout, ("normal",), "dense") for problem in problems]
    taken = [cell for cell in dense if not cell.refusals()]
    assert taken
    for cell in taken:
        wide, _ = values(cell.problem.replace(dtype="f64", layout="nchw"), dtype, "normal", False)
        operands, plan = cells.placed(cell, wide, "cpu"), cell.plan(threads)
        most, answer = peak(lambda plan=plan, operands=operands: plan(*operands))
        allowed = dispatch.kernel(name).workspace_bytes(cell.problem, cell.context(threads))
        allowed += sum(result.nbytes for result in results_of(answer) if result is not None)
        assert most <= allowed, f"{cell} takes {most} bytes, its result and workspace {allowed}"


def test_a_copy_of_an_operand_would_show() -> None:
    cell = Cell(
        "extension:direct",
        LEVELS[-1],
        cells.problem_of("conv2d n1 ic8 ih9 iw9 oc8", "f32", "nchw", "cpu"),
        "nchw",
        ("normal",),
        "transposed",
    )
    wide, _ = values(cell.problem.replace(dtype="f64"), "f32", "normal", False)
    operands, plan = cells.placed(cell, wide, "cpu"), cell.plan()
    most, answer = peak(lambda: plan(*operands))
    assert most >= answer.nbytes + operands[0].nbytes


# Calls of every kind forward and backward on 1,000 shapes no two of which are the same. Blocks above the threshold go
# back to the system at once, so what the process keeps is what somebody still holds.
_CHILD = """
import gc, itertools, sys
import torch
import spatialconv as sc
from spatialconv import dispatch, eager

backend, leak = sys.argv[1], sys.argv[2] == "leak"
dispatch._MEMO_LIMIT = eager._MEMO_LIMIT = 64
torch.set_num_threads(1)
kept = []

def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def step(number, shape):
    format = torch.channels_last if number % 2 else torch.contiguous_format
    x = torch.rand(shape).contiguous(memory_format=format).requires_grad_()
    c = shape[1]
    call = number // 2 % 4
    if call == 0:
        y = sc.conv2d(x, torch.rand(c, c, 3, 3, requires_grad=True), padding=1, backend=backend)
    elif call == 1:
        y = sc.conv2d(x, torch.rand(c, 1, 3, 3, requires_grad=True), padding=1, groups=c, backend=backend)
    elif call == 2:
        y = sc.max_pool2d(x, 3, 1, 1, backend=backend)
    else:
        y = sc.avg_pool2d(x, 3, 1, 1, backend=backend)
    y.sum().backward()
    if leak and number % 10 == 0:
        kept.append(y.detach())

shapes = [(1, 4, 60 + i % 40, 80 + i // 40) for i in range(1250)]
for number, shape in enumerate(shapes[:250]):
    step(number, shape)
before = resident()
for number, shape in enumerate(shapes[250:]):
    step(number, shape)
sizes = [len(dispatch._memo), len(eager._memo)]
print(resident() - before, *sizes)
"""
# An output is 77 to 177 KB here; a hundred of them, one in ten calls, are more than twice this.
GROWTH = 5 * 10**6


def growth(backend: str, mistake: str) -> tuple[int, list[int]]:
    """Bytes that a process grew by over 1,000 calls, and the sizes of its memos."""
    threshold = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    bytes_grown, *sizes = map(int, child.printed("-c", _CHILD, backend, mistake, **threshold).split())
    return bytes_grown, sizes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("backend", ["extension", "numba"])
def test_new_shapes_leave_nothing_behind(backend: str) -> None:
    grown, sizes = growth(backend, "none")
    assert grown < GROWTH
    assert max(sizes) <= 64


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_one_output_kept_in_ten_calls_would_show() -> None:
    grown, _ = growth("extension", "leak")
    assert grown > 2 * GROWTH
