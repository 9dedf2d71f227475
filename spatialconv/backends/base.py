"""What a backend is: kernels that say which problems they take, and plans that run one problem.

A kernel answers with *all* its reasons against a problem, an empty list when it takes it; raising, explaining and
skipping tests are built on that one list. Reasons used by several kernels are phrased once, here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..activations import IN_PLACE
from ..problem import Conv2dProblem, Problem

DTYPES = {
    "f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16, "f16": torch.float16,
    "c32": torch.complex32, "c64": torch.complex64, "c128": torch.complex128,
    "i64": torch.int64, "i32": torch.int32, "i16": torch.int16, "i8": torch.int8, "u8": torch.uint8,
}  # fmt: skip
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Context:
    """What beside the problem decides a choice. ``precision`` is the tier asked for: 'ieee', 'tf32' or 'bf16'; ``isa``
    a CPU's instruction-set level ('avx512') or a GPU's architecture ('sm_90')."""

    threads: int = 1
    isa: str = ""
    precision: str = "ieee"
    prepacked: bool = False
    deterministic: bool = False


# A plan runs one problem. By op it is called as
#   conv2d(input, weight, bias or None), conv2d_grad_input(grad_output, weight), conv2d_grad_weight(grad_output, input),
#   and their untied forms local_conv2d, .. with the same operands,
#   max_pool2d(input) -> (values, indices or None), max_pool2d_scatter(grad_output, indices),
#   max_pool2d_gather(input, indices), avg_pool2d(input), avg_pool2d_grad_input(grad_output)
# where indices are int64, or uint8 window offsets where the problem says `offsets`,
# with tensors of the problem's shapes, dtype and device and any strides; it returns new tensors that are dense in the
# problem's layout (an untied weight's gradient: contiguous), a convolution's with its activation applied.
Plan = Callable[..., object]


class Launch(NamedTuple):
    """A forward plan on raw addresses, for those who keep the memory themselves: ``call(*before, input, weight, output,
    bias, workspace, *after)`` gives an error code, 0 for none. Operands are dense in the problem's layout; the weight
    is ``weight``, of which nothing may be freed before the launch is; the bias's and the workspace's addresses may be
    0 where there are none. With ``kept`` alive, the arguments stay good."""

    call: Callable[..., int]
    before: tuple[int, ...]
    after: tuple[int, ...]
    workspace_bytes: int
    weight: torch.Tensor | None
    kept: object


class Kernel(ABC):
    """One algorithm of a backend.

    ``shift_exact``: bitwise the same forward response wherever the pattern stands. ``integer_exact``: small integers
    come out without an error. ``devices``: where its tensors may lie. ``fuses``: the activations that its own stores
    apply; after the others the output is walked over once more.
    """

    backend: str
    name: str
    ops: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu",)
    shift_exact: bool = False
    integer_exact: bool = True
    deterministic: bool = True
    tier: str = "ieee"
    fuses: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        return f"{self.backend}:{self.name}"

    @abstractmethod
    def refusals(self, problem: Problem, context: Context) -> list[str]:
        """Every reason against running the problem here, in words; empty when the kernel takes it."""

    def refuse_geometry(self, problem: Problem) -> list[str]:
        """The reasons against the sizes of a problem whose op the kernel computes."""
        return []

    def unprofitable(self, problem: Problem, context: Context) -> str | None:
        """Why the other kernels of the backend are asked before this one, which would be slower here, or None."""
        return None

    def refuse_automatic(self) -> list[str]:
        """Why the kernel should not run unless it is asked for by name."""
        return []

    @abstractmethod
    def plan(self, problem: Problem, context: Context) -> Plan:
        """A callable that runs the problem, whose activation, if any, is one that the kernel fuses; called only where
        ``refusals`` is empty. ``whole_plan`` is the one for every problem."""

    def whole_plan(self, problem: Problem, context: Context) -> Plan:
        """The plan of a problem with any activation: fused, or applied to the finished output in place."""
        activation = problem.activation if isinstance(problem, Conv2dProblem) else None
        if activation is None or activation in self.fuses:
            return self.plan(problem, context)
        return activated(self.plan(problem.replace(activation=None), context), activation)

    def packed_weight(self, problem: Problem, context: Context, weight: torch.Tensor) -> torch.Tensor | None:
        """The weight as a plan of a prepacked context wants it, or None where this kernel has no such form."""
        return None

    def accumulates(self, problem: Problem) -> bool:
        """Whether a launch can add the problem's convolution to what the output's memory holds."""
        return False

    def launch(
        self, problem: Problem, context: Context, weight: torch.Tensor | None = None, accumulate: bool = False
    ) -> Launch | None:
        """The forward plan of a problem that is not empty, on raw addresses; None where this kernel has no such form.
        ``weight``: of a convolution, in the form that the context says; ``accumulate``: the convolution is added to
        what the output's memory holds, before the activation."""
        return None


class Backend(ABC):
    """A family of kernels that need the same thing to be there."""

    name: str
    kernels: tuple[Kernel, ...]

    @abstractmethod
    def unavailable(self) -> str | None:
        """Why nothing of this backend can run in this process, or None. Asked once."""


def activated(plan: Plan, activation: str) -> Plan:
    """The plan of a convolution with an activation behind it."""
    apply = IN_PLACE[activation]
    return lambda input, weight, bias: apply(plan(input, weight, bias))


def refuse_device(problem: Problem, *devices: str) -> list[str]:
    if problem.device in devices:
        return []
    return [f"runs on {' and '.join(devices)} tensors, the problem is on {problem.device}"]


def refuse_dtype(problem: Problem, *dtypes: str) -> list[str]:
    if problem.dtype in dtypes:
        return []
    return [f"computes in {', '.join(dtypes)}, the problem is in {problem.dtype}"]


def refuse_op(problem: Problem, kernel: Kernel) -> list[str]:
    if problem.op in kernel.ops:
        return []
    return [f"computes {', '.join(kernel.ops)}, not {problem.op}"]


def refuse_nondeterministic(kernel: Kernel, context: Context) -> list[str]:
    if kernel.deterministic or not context.deterministic:
        return []
    return ["sums in an order that varies, and torch.use_deterministic_algorithms(True) is on"]


_TIERS = ("ieee", "tf32", "bf16")


def refuse_precision(problem: Problem, kernel: Kernel, context: Context) -> list[str]:
    """A kernel that rounds float32 operands further than torch's switch for convolution allows."""
    if problem.dtype != "f32" or _TIERS.index(kernel.tier) <= _TIERS.index(context.precision):
        return []
    switch = f"torch.backends.{'cudnn' if problem.device == 'cuda' else 'mkldnn'}.conv.fp32_precision"
    return [f"rounds float32 operands to {kernel.tier}, and {switch} asks for {context.precision}"]


def refuse_offsets(problem: Problem) -> list[str]:
    if not getattr(problem, "offsets", False):
        return []
    return ["keeps int64 indices, the problem asks for uint8 window offsets"]


def common_refusals(
    problem: Problem, kernel: Kernel, context: Context, device: str, dtypes: tuple[str, ...]
) -> list[str]:
    """All reasons of a kernel that computes some dtypes on one device, its own against the geometry among them. Another
    op or device is reason enough."""
    return (
        refuse_op(problem, kernel)
        or refuse_device(problem, device)
        or [
            *refuse_dtype(problem, *dtypes),
            *refuse_precision(problem, kernel, context),
            *refuse_nondeterministic(kernel, context),
            *kernel.refuse_geometry(problem),
        ]
    )
