"""The Numba backend as a guest in the process: threads, processes, the interpreter's lock, compiling and its cache."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import child
import pytest
import torch
import torch.nn.functional as F
from calls import CALLS, assert_same, flat
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import spatialconv
from spatialconv import dispatch, errors, threads
from spatialconv.backends import load
from spatialconv.backends.base import Context
from spatialconv.backends.numba.correlation import forward_correlation
from spatialconv.backends.numba.staging import staging_of
from spatialconv.bench.suites import fit
from spatialconv.bench.suites import load as load_suite
from spatialconv.problem import parse

numba = pytest.importorskip("numba", reason="numba is not installed")
KERNELS = [(op, name) for op, names in dispatch.TABLE.items() for name in names if name.startswith("numba:")]


def fresh(code: str, folder: Path, given: str = "", **variables: str) -> subprocess.CompletedProcess:
    """The code in a new process with its own cache folder; it reads what is given."""
    drop, environment = ("NUMBA_CACHE_DIR", "SPATIALCONV_BACKEND"), {"SPATIALCONV_CACHE": str(folder), **variables}
    done = child.python("-c", code, drop=drop, given=given, **environment)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def thread_count() -> Iterator[None]:
    before = torch.get_num_threads()
    dispatch.forget_choices()
    yield
    torch.set_num_threads(before)
    dispatch.forget_choices()


def system_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def test_every_pass_stays_with_the_backend() -> None:
    for case in CALLS:
        tensors = case.tensors(torch.float64, requires_grad=True)
        ours = flat(case.ours(*tensors, backend="numba"))[0]
        judge = flat(case.ours(*tensors, backend="reference"))[0]
        assert_same(ours.detach(), judge.detach())
        seed = torch.randn(ours.shape, dtype=ours.dtype, generator=torch.Generator().manual_seed(0))
        first = torch.autograd.grad(ours, tensors, seed, create_graph=True)
        second = torch.autograd.grad(judge, tensors, seed, create_graph=True)
        for one, other in zip(first, second, strict=True):
            assert_same(one.detach(), other.detach())


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_torchs_number_of_threads_is_obeyed(thread_count: None) -> None:
    """The kernels run in as many threads as torch says, and start none of their own."""
    problem = parse("conv2d n4 ic32 ih28 iw28 oc32 kh3 kw3 ph1 pw1")
    image, weight = torch.rand(problem.input_shape), torch.rand(problem.weight_shape)
    torch.set_num_threads(2)
    F.conv2d(image, weight)
    before = system_threads()
    from spatialconv.backends.numba import compiler

    shares: list[tuple[int, int]] = []

    def pool(begin, end, grain, body, context):
        shares.append((end - begin, grain))
        return original(begin, end, grain, body, context)

    original = compiler.ParallelFor(threads.parallel_for_address())
    for count in (2, 1):
        torch.set_num_threads(count)
        shares.clear()
        choice = dispatch.choose(problem, "numba:gemm")
        assert choice.context.threads == count
        function = compiler.compiled("gemm_staged", "correlate", "f32")
        kept = function._pool
        function._pool = pool
        try:
            choice.plan(image, weight, None)
        finally:
            function._pool = kept
        # One thread never asks the pool; two ask for two slabs.
        assert shares == ([(2, 1)] if count == 2 else [])
    assert system_threads() == before
    assert "numba.np.ufunc.omppool" not in sys.modules and "numba.np.ufunc.workqueue" not in sys.modules


def test_without_a_pool_it_runs_serially(monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialconv.backends.numba import compiler

    problem = parse("conv2d n2 ic32 ih28 iw28 oc32 kh3 kw3 ph1 pw1")
    image, weight = torch.rand(problem.input_shape), torch.rand(problem.weight_shape)
    plan = dispatch.kernel("numba:gemm").plan(problem, Context(threads=2))
    expected = plan(image, weight, None)
    for module, name in (("gemm", "pack_weights"), ("gemm_staged", "correlate")):
        monkeypatch.setattr(compiler.compiled(module, name, "f32"), "_pool", None)
    assert torch.equal(plan(image, weight, None), expected)


def test_a_failure_of_the_pool_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialconv.backends.numba import compiler

    problem = parse("conv2d n2 ic32 ih28 iw28 oc32 kh3 kw3 ph1 pw1")
    plan = dispatch.kernel("numba:gemm").plan(problem, Context(threads=2))
    monkeypatch.setattr(compiler.compiled("gemm_staged", "correlate", "f32"), "_pool", lambda *args: 7)
    with pytest.raises(RuntimeError, match="thread pool failed"):
        plan(torch.rand(problem.input_shape), torch.rand(problem.weight_shape), None)


def test_kernels_release_the_interpreter() -> None:
    problem = parse("conv2d n8 ic64 ih56 iw56 oc64 kh3 kw3 ph1 pw1")
    image, weight = torch.rand(problem.input_shape), torch.rand(problem.weight_shape)
    plan = dispatch.kernel("numba:gemm").plan(problem, Context(threads=1))
    plan(image, weight, None)
    steps, stop = [], threading.Event()

    def count() -> None:
        while not stop.is_set():
            steps.append(time.perf_counter())
            time.sleep(0)

    thread = threading.Thread(target=count)
    thread.start()
    while not steps:
        time.sleep(0.001)
    begin = time.perf_counter()
    plan(image, weight, None)
    end = time.perf_counter()
    stop.set()
    thread.join()
    inside = sum(begin + (end - begin) * 0.1 < moment < end - (end - begin) * 0.1 for moment in steps)
    assert inside > 3, f"another thread took {inside} steps while a kernel ran {end - begin:.3f} s"


def test_four_python_threads_at_once() -> None:
    work: list[tuple[Callable[[], Tensor], Tensor]] = []
    image = torch.randn(2, 16, 20, 23)
    weight, narrow = torch.randn(24, 16, 3, 3), torch.randn(16, 1, 3, 3)
    for run in (
        lambda: spatialconv.conv2d(image, weight, padding=1, backend="numba"),
        lambda: spatialconv.conv2d(image, weight, padding=1, backend="numba:direct"),
        lambda: spatialconv.conv2d(image, narrow, padding=1, groups=16, backend="numba"),
        lambda: spatialconv.max_pool2d(image, 3, 2, 1, backend="numba"),
        lambda: spatialconv.avg_pool2d(image, 3, 2, 1, backend="numba"),
    ):
        work.append((run, run()))
    start, failures = threading.Barrier(4), []

    def repeat(offset: int) -> None:
        start.wait()
        for step in range(60):
            run, expected = work[(step + offset) % len(work)]
            if not torch.equal(run(), expected):
                failures.append(step)

    workers = [threading.Thread(target=repeat, args=(offset,)) for offset in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not failures and not any(worker.is_alive() for worker in workers)


class Images(Dataset):
    """Items that are computed by the backend, in the worker process."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        image = torch.full((2, 3, 8, 8), float(index + 1))
        pooled = spatialconv.max_pool2d(image, 2, backend="numba")
        return spatialconv.conv2d(pooled, torch.ones(4, 3, 3, 3), backend="numba").flatten()


def test_data_loading_processes() -> None:
    """Forked after the parent has used the kernels in several threads."""
    spatialconv.conv2d(torch.rand(4, 3, 32, 32), torch.rand(8, 3, 3, 3), backend="numba")
    batches = list(DataLoader(Images(), batch_size=4, num_workers=2, multiprocessing_context="fork", timeout=60))
    rows = torch.cat(batches)
    assert_same(rows, torch.arange(1, 9).reshape(8, 1).mul(27.0).expand(8, rows.shape[1]))


USE = """
import numba, torch, spatialconv
before = numba.config.CACHE_DIR
print(spatialconv.adaptive_avg_pool2d(torch.arange(16.0).reshape(1, 1, 4, 4), 2, backend="numba").flatten().tolist())
print(numba.config.CACHE_DIR == before)
"""
ANSWER = "[2.5, 4.5, 10.5, 12.5]\nTrue\n"


def test_the_first_use_says_that_it_compiles_and_the_next_process_finds_it_done(tmp_path: Path) -> None:
    """And functions that are not ours are cached where they always were."""
    first = fresh(USE, tmp_path)
    assert first.stdout == ANSWER
    assert re.fullmatch(r"spatialconv: numba kernels are compiled on first use, once;.*\n", first.stderr)
    assert str(tmp_path) in first.stderr
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")}
    assert written
    second = fresh(USE, tmp_path)
    assert second.stdout == ANSWER and second.stderr == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")} == written


@pytest.mark.full(cost=2)
def test_of_processes_that_start_together_one_compiles(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        processes = list(pool.map(lambda _: fresh(USE, tmp_path), range(3)))
    assert [process.stdout for process in processes] == [ANSWER] * 3
    assert sum("compiled on first use" in process.stderr for process in processes) == 1


def compiled_functions() -> Iterator[Callable]:
    """Every function that a kernel may be made of, those inside functions included."""
    seen, waiting = set(), []
    for source in (Path(spatialconv.__file__).parent / "backends" / "numba").glob("*.py"):
        waiting += vars(import_module(f"spatialconv.backends.numba.{source.stem}")).values()
    while waiting:
        function = getattr(waiting.pop(), "py_func", None)
        if function is None or function in seen:
            continue
        seen.add(function)
        waiting += [cell.cell_contents for cell in function.__closure__ or ()]
        yield function


def test_no_two_functions_have_one_name() -> None:
    """Pieces of cached machine code are linked by name: averages would be computed by the function for maxima."""
    names = Counter((function.__module__, function.__qualname__) for function in compiled_functions())
    assert len(names) > 80
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.full(cost=2)
def test_the_users_own_cache_folder_rules(tmp_path: Path) -> None:
    done = fresh(USE, tmp_path / "ours", NUMBA_CACHE_DIR=str(tmp_path / "users"))
    assert done.stdout == ANSWER
    assert list((tmp_path / "users").rglob("*.nbi")) and not (tmp_path / "ours").exists()


def test_a_folder_that_cannot_be_written_to_costs_the_cache_only(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    sources = Path(spatialconv.__file__).parent / "backends" / "numba"
    before = set(sources.rglob("*.nb*"))
    assert fresh(USE, blocked / "below").stdout == ANSWER
    assert set(sources.rglob("*.nb*")) == before, "code was kept where numba notices no change of what is called"


def test_asking_compiles_nothing(tmp_path: Path) -> None:
    code = """
import sys, spatialconv
assert "numba" not in sys.modules
print(spatialconv.explain("conv2d n1 ic4 ih8 iw8 oc4 kh3 kw3 f32 nchw cpu", backend="numba").chosen)
print(spatialconv.explain("conv2d n1 ic4 ih8 iw8 oc4 kh3 kw3 f32 nchw cpu").chosen)
"""
    done = fresh(code, tmp_path)
    assert done.stdout.split()[0] == "numba:gemm" and done.stderr == ""
    assert not list(tmp_path.rglob("*.nb*"))


HIDDEN = """
import importlib.util, torch, spatialconv
from spatialconv import errors
find = importlib.util.find_spec
hide = lambda name, *rest: None if name == "numba" else find(name, *rest)
importlib.util.find_spec = hide
from spatialconv.backends.numba import compiler
compiler.find_spec = hide
image, weight = torch.rand(1, 2, 5, 5), torch.rand(3, 2, 3, 3)
try:
    spatialconv.conv2d(image, weight, backend="numba")
except errors.BackendUnavailableError as error:
    print(error)
print(spatialconv.backends()["numba"].available, spatialconv.backends()["numba"].reason)
print(tuple(spatialconv.conv2d(image, weight).shape))
"""


NARROWER = """
import torch, spatialconv, sys
from spatialconv import dispatch
from spatialconv.bench import operands
from spatialconv.problem import parse
from spatialconv.backends.numba import vectors
print(vectors.VECTOR_BYTES)
for text in sys.stdin.read().splitlines():
    problem = parse(text)
    given = operands.make(problem)
    ours, judge = (dispatch.choose(problem, name).plan(*given) for name in ("numba", "reference"))
    ours, judge = (answer[0] if isinstance(answer, tuple) else answer for answer in (ours, judge))
    error = (ours - judge).abs().max() / judge.abs().max()
    print(problem, float(error)) if not error < 1e-5 else None
"""
LAYERS = """
conv2d n1 ic5 ih17 iw30 oc19 kh3 kw3 ph1 pw1
conv2d n2 ic12 ih31 iw29 oc9 kh3 kw5 sh2 sw2 ph1 pw2 g3 bias
conv2d_grad_input n1 ic6 ih20 iw33 oc8 kh3 kw3 ph1 pw1
conv2d_grad_weight n2 ic6 ih20 iw21 oc8 kh3 kw3 ph1 pw1
conv2d n1 ic20 ih15 iw23 oc20 kh3 kw3 sh2 sw2 ph1 pw1 g20
conv2d n1 ic9 ih15 iw15 oc9 kh5 kw5 ph2 pw2 g9
max_pool2d n1 ic11 ih20 iw37 kh3 kw3 sh2 sw2 ph1 pw1
avg_pool2d n1 ic11 ih20 iw37 kh3 kw3 sh1 sw1
adaptive_avg_pool2d n1 ic11 ih7 iw7 oh1 ow1
"""


@pytest.mark.full
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names levels of x86-64")
@pytest.mark.parametrize(
    ("cpu", "features", "width"),
    [("haswell", "+avx2,+avx,+fma,+bmi,+bmi2,+sse4.2", 32), ("nehalem", "+sse4.2,+sse4.1,+ssse3", 16)],
)
def test_machines_with_narrower_vectors(cpu: str, features: str, width: int, tmp_path: Path) -> None:
    texts = [f"{line} f32 {layout} cpu" for line in LAYERS.split("\n") if line for layout in ("nchw", "nhwc")]
    names = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    assert fresh(NARROWER, tmp_path, given="\n".join(texts), **names).stdout == f"{width}\n"


def problems_of(suite: str) -> list[str]:
    return [
        str(fit(layer, 8, "f32", layout, "cpu").problem)
        for layer in load_suite(suite)
        for layout in ("nchw", "nhwc")
        if layer.problem.op == "conv2d" and not layer.problem.depthwise
    ]


@pytest.mark.parametrize("text", problems_of("resnet50"))
def test_a_staged_band_holds_what_its_tiles_read(text: str) -> None:
    """The layers with filters of more than a point are read from a staged band, inside of it; the others are packed."""
    problem, lanes, tall_rows, wide_vectors = parse(text), 16, 14, 3
    correlation = forward_correlation(problem)
    staging = staging_of(correlation, 4, lanes, tall_rows, wide_vectors)
    wide_enough = problem.ow >= 14 or (problem.layout == "nchw" and problem.ow >= 7)
    assert (staging is not None) == (problem.kh * problem.kw > 1 and wide_enough)
    if staging is None:
        return
    assert staging.band * staging.bands >= problem.oh > staging.band * (staging.bands - 1)
    assert len(staging.offsets) * staging.run == correlation.depth
    if problem.layout == "nhwc":
        place = (staging.band - 1) * problem.sh * staging.row_pitch
        place += (problem.ow - 1) * problem.sw * staging.pixel_pitch + staging.run
    else:
        run = (staging.band - 1) * staging.row_pitch + problem.ow
        place = (staging.run - 1) * staging.channel_pitch + -(-run // lanes) * lanes
    assert max(staging.offsets) + place <= staging.size


def test_without_numba_everything_else_works(tmp_path: Path) -> None:
    done = fresh(HIDDEN, tmp_path)
    assert "numba is not installed: pip install 'spatialconv[all]'" in done.stdout
    assert "\nFalse numba is not installed" in done.stdout
    assert done.stdout.splitlines()[-1] == "(1, 3, 3, 3)"


@pytest.mark.parametrize(("version", "answer"), [("0.50.1", "too old"), ("0.68.1", None)])
def test_an_old_numba_is_refused(version: str, answer: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialconv.backends.numba import compiler

    monkeypatch.setattr(numba, "__version__", version)
    reason = compiler.unavailable.__wrapped__()
    assert reason is None if answer is None else answer in reason


def test_refusals_are_words() -> None:
    with pytest.raises(errors.UnsupportedProblemError, match="computes in f32, f64, bf16, f16"):
        spatialconv.conv2d(
            torch.ones(1, 1, 3, 3, dtype=torch.int64), torch.ones(1, 1, 1, 1, dtype=torch.int64), backend="numba"
        )
    with pytest.raises(errors.UnsupportedProblemError, match="needs one input channel a group"):
        spatialconv.conv2d(torch.ones(1, 2, 3, 3), torch.ones(1, 2, 1, 1), backend="numba:depthwise")


def test_machine_code_calls_nothing_of_a_vendor() -> None:
    """What a kernel leaves to other libraries: moves of memory, and numba's own way to report an error."""
    from spatialconv.backends.numba import gemm

    integer, element = numba.types.int64, numba.types.CPointer(numba.types.float32)
    signature = numba.types.void(integer, integer, element)
    code = numba.cfunc(signature, error_model="numpy", fastmath={"contract"})(gemm.correlate).inspect_llvm()
    declared = set(re.findall(r"^declare [^@]*@\"?([\w.$]+)\"?\(", code, re.MULTILINE))
    called = {name for name in declared if not name.startswith("llvm.")}
    assert "llvm.fmuladd.v" in code
    assert not {name for name in called if not re.match(r"(Py|_Py|numba_|NRT_|mem(cpy|set|move)$)", name)}


def test_no_kernel_starts_numbas_own_threads() -> None:
    assert {name for _, name in KERNELS} == {f"numba:{kernel.name}" for kernel in load("numba").kernels}
    for path in (Path(spatialconv.__file__).parent / "backends" / "numba").glob("*.py"):
        assert not re.search(r"prange|parallel=True", path.read_text()), path
