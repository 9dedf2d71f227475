"""Which kernel runs a problem, and why: one ordered table, one choice, one explanation."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from . import backends as _backends
from . import gpu_order, settings, tuned
from .backends.base import Context, Kernel, Plan
from .backends.empty import empty_plan
from .errors import BackendUnavailableError, ReferenceFallbackWarning, UnsupportedProblemError
from .problem import Conv2dProblem, Problem, parse

_CUDA_CONV = (
    "extension:cuda_depthwise", "extension:cuda_wgmma", "extension:cuda_mma", "extension:cuda_mma_tf32",
    "extension:cuda_simt",
)  # fmt: skip
# For every op the kernels in the order in which they are asked, the universal one last. A new kernel is one word here
# and one entry in its backend's `kernels`; tests, benchmark and `check` find it from this table.
TABLE: dict[str, tuple[str, ...]] = {
    "conv2d": (
        "extension:depthwise", "extension:inner", "extension:winograd4", "extension:winograd", "extension:dots",
        "extension:gemm", "extension:direct",
        *_CUDA_CONV,
        "numba:depthwise", "numba:gemm", "numba:direct",
        "triton:depthwise", "triton:implicit_gemm_tf32", "triton:implicit_gemm", "triton:implicit_gemm_tf32x3",
        "reference:im2col",
    ),
    "conv2d_grad_input": (
        "extension:depthwise", "extension:winograd4", "extension:winograd", "extension:dots", "extension:gemm",
        "extension:direct",
        *_CUDA_CONV,
        "numba:depthwise", "numba:gemm", "numba:direct",
        "triton:depthwise", "triton:implicit_gemm_tf32", "triton:implicit_gemm", "triton:implicit_gemm_tf32x3",
        "reference:im2col",
    ),
    "conv2d_grad_weight": (
        "extension:depthwise", "extension:gemm", "extension:direct",
        *_CUDA_CONV,
        "numba:depthwise", "numba:gemm", "numba:direct",
        "triton:depthwise", "triton:implicit_gemm_tf32", "triton:implicit_gemm", "triton:implicit_gemm_tf32x3",
        "reference:im2col",
    ),
    "local_conv2d": ("extension:local", "numba:local", "reference:im2col"),
    "local_conv2d_grad_input": ("extension:local", "numba:local", "reference:im2col"),
    "local_conv2d_grad_weight": ("extension:local", "numba:local", "reference:im2col"),
    "max_pool2d": (
        "extension:rows", "extension:cuda_windows", "numba:rows", "triton:windows", "reference:taps",
    ),
    "max_pool2d_scatter": (
        "extension:planes", "extension:cuda_windows", "numba:planes", "triton:windows", "reference:taps",
    ),
    "max_pool2d_gather": (
        "extension:planes", "extension:cuda_windows", "numba:planes", "triton:windows", "reference:taps",
    ),
    "avg_pool2d": (
        "extension:rows", "extension:cuda_windows", "numba:rows", "triton:windows", "reference:taps",
    ),
    "avg_pool2d_grad_input": (
        "extension:rows", "extension:cuda_windows", "numba:planes", "triton:windows", "reference:taps",
    ),
}  # fmt: skip

AUTO = "auto"
_MEMO_LIMIT = 4096
# Kernels that were asked in vain, each with all its reasons.
Refused = tuple[tuple[str, tuple[str, ...]], ...]


class _Local(threading.local):
    """What use_backend asks for in this thread. Every thread gets the attribute, for a failing look-up is slow."""

    def __init__(self) -> None:
        self.request: str | None = None


local = _Local()


@dataclass(frozen=True)
class Choice:
    """A kernel bound to a problem; ``refused`` are the kernels asked before it, each with its reasons."""

    problem: Problem
    context: Context
    kernel: Kernel
    plan: Plan
    refused: Refused
    tuned: bool = False


@dataclass(frozen=True)
class BackendInfo:
    """Whether a backend can run in this process, the reason where not, and its kernels by op."""

    name: str
    available: bool
    reason: str | None
    kernels: dict[str, tuple[str, ...]]


def known_requests() -> list[str]:
    """Every word that backend= understands."""
    kernels = dict.fromkeys(name for row in TABLE.values() for name in row)
    return [AUTO, *_backends.NAMES, *kernels]


def check_request(request: str, source: str = "backend") -> str:
    """The request itself; ValueError names the source and lists the known ones where it is none of them."""
    if request in _KNOWN:
        return request
    raise ValueError(f"spatialconv: {source}: expected one of {', '.join(known_requests())}, got {request!r}")


# A constant, since code that torch.compile traces reads it; a value remembered later would make it compile anew.
_KNOWN = frozenset(known_requests())


@contextmanager
def use_backend(request: str) -> Iterator[None]:
    """Within the block, and in this thread only, calls without ``backend=`` use this backend or kernel.

    The gradients of a call made in the block stay with it, wherever and whenever backward runs. ``request`` is
    'auto', a backend ('extension') or one kernel ('extension:gemm'); on entering, ValueError lists the known ones.
    Blocks nest, and ``@use_backend("extension")`` makes a function one. The block belongs to its thread, not to a
    task: one that is left open by ``yield`` or ``await`` also holds for what runs in between.
    """
    before = local.request
    local.request = check_request(request)
    try:
        yield
    finally:
        local.request = before


def requested(backend: str | None) -> str:
    """The request in force: the argument, else use_backend, else SPATIALCONV_BACKEND, else 'auto'."""
    if backend is not None:
        return check_request(backend)
    return local.request or check_request(settings.DEFAULT_BACKEND, "SPATIALCONV_BACKEND")


def gradient_request(request: str) -> str:
    """What a forward request means for its gradients: a kernel binds the forward pass, then its backend."""
    return request.partition(":")[0]


_PRECISION = {"none": "ieee", "ieee": "ieee", "tf32": "tf32", "bf16": "bf16"}


def precision(device: str) -> str:
    """The tier that torch's own switch for convolution asks for on a device."""
    if device == "cuda":
        return _PRECISION[torch.backends.cudnn.conv.fp32_precision]
    return _PRECISION[torch.backends.mkldnn.conv.fp32_precision]


def current_context(device: str, index: int | None = None) -> Context:
    """The context of a call made now, in this thread; ``index``: of the GPU whose tensors it takes, the current one
    where it is None."""
    on_cpu = device == "cpu"
    return Context(
        threads=torch.get_num_threads() if on_cpu else 1,
        isa=_cpu_isa() if on_cpu else _gpu_isa(index) if device == "cuda" else "",
        precision=precision(device),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )


def _gpu_isa(index: int | None) -> str:
    """A GPU's architecture as compilers name it, 'sm_90'; empty without a device."""
    if not torch.cuda.is_available():
        return ""
    major, minor = torch.cuda.get_device_capability(index)
    return f"sm_{major}{minor}"


def _cpu_isa() -> str:
    backend = _backends.load("extension")
    return "" if backend.unavailable() else backend.level()


_memo: dict[tuple[Problem, str, Context], Choice] = {}


def choose(problem: Problem, request: str, context: Context | None = None, index: int | None = None) -> Choice:
    """The kernel for a problem; ``index``: of the GPU that its tensors are on.

    An explicit request that cannot be met raises: BackendUnavailableError when nothing of the backend runs here, else
    UnsupportedProblemError with every reason. 'auto' takes this machine's measured choice, else the first of the table.
    """
    if context is None:
        context = current_context(problem.device, index)
    key = (problem, request, context)
    found = _memo.get(key)
    if found is None:
        found = _choose(problem, request, context)
        if len(_memo) >= _MEMO_LIMIT:
            _memo.clear()
        _memo[key] = found
    return found


def candidates(op: str, request: str = AUTO) -> tuple[str, ...]:
    """The kernels of an op that a request allows, in the table's order."""
    names = TABLE[op]
    if request == AUTO:
        return names
    if ":" in request:
        return tuple(name for name in names if name == request)
    return tuple(name for name in names if name.partition(":")[0] == request)


def kernel(full_name: str) -> Kernel:
    """The kernel of that name, 'backend:kernel'; an available backend is assumed."""
    backend_name, _, name = full_name.partition(":")
    for entry in _backends.load(backend_name).kernels:
        if entry.name == name:
            return entry
    raise LookupError(f"{full_name} stands in the table but not among the kernels of {backend_name}")


def reasons_against(full_name: str, problem: Problem, context: Context) -> tuple[str, ...]:
    """All reasons against one kernel: that its backend is missing, or the kernel's own."""
    missing = _backends.load(full_name.partition(":")[0]).unavailable()
    if missing:
        return (missing,)
    return tuple(kernel(full_name).refusals(problem, context))


@dataclass(frozen=True)
class _Asked:
    """The kernels in the order in which they are asked, and what those before the first that takes it refused for."""

    names: tuple[str, ...]
    measured: str | None
    refused: Refused

    @property
    def chosen(self) -> str | None:
        return self.names[len(self.refused)] if len(self.refused) < len(self.names) else None


def _ask(problem: Problem, request: str, context: Context) -> _Asked:
    names = candidates(problem.op, request)
    if not names:
        return _Asked((), None, ((request, (f"has no kernel for {problem.op}",)),))
    measured = tuned.lookup(problem, context) if request == AUTO else None
    names = ordered(problem, names, context)
    if measured in names:
        names = (measured, *(name for name in names if name != measured))
    refused: list[tuple[str, tuple[str, ...]]] = []
    for name in names:
        reasons = reasons_against(name, problem, context)
        if request == AUTO and not reasons:
            reasons = tuple(kernel(name).refuse_automatic())
        if not reasons:
            break
        refused.append((name, reasons))
    return _Asked(names, measured if measured in names else None, tuple(refused))


def ordered(problem: Problem, names: tuple[str, ...], context: Context) -> tuple[str, ...]:
    """The table's order, but a kernel that would be slower on the problem than others comes last of its backend, and on
    a GPU those come first that were measured to be faster than other backends' kernels."""
    backend_names = [name.partition(":")[0] for name in names]

    def place(name: str) -> tuple[int, bool]:
        last = len(names) > 1 and kernel(name).unprofitable(problem, context) is not None
        return backend_names.index(name.partition(":")[0]), last

    first = tuple(name for name in gpu_order.asked_first(problem) if name in names)
    return first + tuple(name for name in sorted(names, key=place) if name not in first)


def _choose(problem: Problem, request: str, context: Context) -> Choice:
    asked = _ask(problem, request, context)
    if asked.chosen is None:
        raise _refusal(problem, request, asked.refused)
    chosen = kernel(asked.chosen)
    if request == AUTO and chosen.backend == "reference":
        _warn_reference(problem, asked.refused)
    plan = empty_plan(problem) if problem.empty else chosen.whole_plan(problem, context)
    return Choice(problem, context, chosen, plan, asked.refused, asked.chosen == asked.measured)


def _refusal(problem: Problem, request: str, refused: Refused) -> Exception:
    lines = [f"spatialconv.{problem.printed_op}: backend {request!r} cannot run this", f"  problem: {problem}"]
    lines += _reason_lines(refused)
    if request != AUTO:
        lines.append("  try: backend='auto', or spatialconv.explain(...) to see what it would pick")
    backend_name = request.partition(":")[0]
    if backend_name in _backends.NAMES and _backends.load(backend_name).unavailable():
        return BackendUnavailableError("\n".join(lines))
    return UnsupportedProblemError("\n".join(lines))


def _reason_lines(refused: Refused) -> list[str]:
    return [f"  - {name}: {reason}" for name, reasons in refused for reason in reasons]


_warned: set[tuple[str, str, str]] = set()


def _warn_reference(problem: Problem, refused: Refused) -> None:
    key = (problem.printed_op, problem.dtype, problem.device)
    if key in _warned or torch.compiler.is_compiling():
        return
    _warned.add(key)
    lines = [f"spatialconv.{problem.printed_op} runs on the slow reference backend", f"  problem: {problem}"]
    warnings.warn("\n".join(lines + _reason_lines(refused)), ReferenceFallbackWarning, stacklevel=2)


def forget_choices() -> None:
    """Drop remembered choices, as after a change of the measured table."""
    _memo.clear()
    tuned.forget()


def backends() -> dict[str, BackendInfo]:
    """Every backend: whether it runs here, why not, and its kernels by op."""
    listed = {}
    for name in _backends.NAMES:
        reason = _backends.load(name).unavailable()
        kernels = {op: candidates(op, name) for op in TABLE}
        listed[name] = BackendInfo(name, reason is None, reason, {op: row for op, row in kernels.items() if row})
    return listed


@dataclass(frozen=True)
class Explanation:
    """What would run and why; ``str()`` of it is the text."""

    problem: Problem
    context: Context
    request: str
    chosen: str | None
    refused: Refused
    not_asked: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"problem: {self.problem}", f"context: {self.context}", f"request: {self.request}"]
        lines.append(f"chosen:  {self.chosen or 'nothing takes it'}")
        lines += _reason_lines(self.refused)
        lines += [f"  - {name}: not asked, an earlier kernel takes it" for name in self.not_asked]
        lines += [f"note:    {note}" for note in self.notes]
        return "\n".join(lines)


def explain_problem(
    problem: Problem | str, backend: str | None = None, context: Context | None = None, notes: tuple[str, ...] = ()
) -> Explanation:
    """Which kernel would run a problem, which refuse it and why, in the words of the exceptions; nothing runs."""
    if isinstance(problem, str):
        problem = parse(problem)
    request = requested(backend)
    context = context or current_context(problem.device)
    asked = _ask(problem, request, context)
    if asked.measured:
        notes = (*notes, f"{asked.measured} was measured to be the fastest on this machine (spatialconv tune)")
    if isinstance(problem, Conv2dProblem):
        notes = (*notes, f"precision tier asked for: {context.precision}")
    if problem.empty and asked.chosen:
        notes = (*notes, "an operand holds no element: the result is filled and no kernel runs")
    not_asked = asked.names[len(asked.refused) + 1 :]
    for name in not_asked:
        if (reason := kernel(name).unprofitable(problem, context)) and not reasons_against(name, problem, context):
            notes = (*notes, f"{name} is asked later: {reason}")
    return Explanation(problem, context, request, asked.chosen, asked.refused, not_asked, notes)
