"""Is every kernel right on this machine: results, gradients, translation equivariance, judged by torch in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from . import dispatch
from .bench import gate, operands, tolerance
from .bench.peers import ours
from .bench.suites import Cell as Layer
from .ops.derivatives import bias_gradient, local_bias_gradient
from .problem import CONV_OPS, LOCAL_OPS, OPS, Conv2dProblem, Problem, parse
from .shapes import memory_format

PARTS = ("correctness", "gradients", "equivariance")
DTYPES = ("f32", "f64", "bf16", "f16")

# Small, and each with something that kernels get wrong: sizes around vector and tile edges, odd channels, groups, every
# multiplier, dilation, unequal sizes, padding, a filter as large as the input.
CONV_CASES = (
    "n2 ic3 ih19 iw23 oc18 kh7 kw7 sh2 sw2 ph3 pw3",
    "n1 ic33 ih9 iw17 oc35 kh3 kw3 ph1 pw1 bias",
    "n2 ic64 ih7 iw7 oc48 bias",
    "n1 ic40 ih15 iw14 oc24 sh2 sw2",
    "n1 ic16 ih11 iw13 oc20 kh3 kw5 sh2 sw1 ph2 pw1 dh2 dw1",
    "n2 ic12 ih10 iw9 oc18 kh3 kw3 ph1 pw1 g3",
    "n1 ic19 ih12 iw18 oc19 kh3 kw3 ph1 pw1 g19 bias",
    "n1 ic16 ih13 iw33 oc32 kh5 kw5 sh2 sw2 ph2 pw2 g16",
    "n3 ic5 ih4 iw6 oc7 kh4 kw6",
)
MAX_POOL_CASES = (
    "n2 ic19 ih15 iw17 kh3 kw3 sh2 sw2 ph1 pw1",
    "n1 ic16 ih12 iw34 kh2 kw2",
    "n1 ic5 ih13 iw11 kh3 kw2 sh2 sw1 ph1 pw0 ceil",
    "n1 ic8 ih14 iw15 kh3 kw3 sh1 sw1 dh2 dw2",
)
AVG_POOL_CASES = (
    "n2 ic19 ih15 iw17 kh3 kw3 sh2 sw2 ph1 pw1",
    "n1 ic16 ih12 iw34 kh2 kw2",
    "n1 ic5 ih13 iw11 kh3 kw2 sh2 sw1 ph1 pw0 ceil exclude_pad",
    "n1 ic8 ih9 iw9 kh3 kw3 sh1 sw1 ph1 pw1 divisor5",
)
ADAPTIVE_CASES = ("n2 ic19 ih7 iw9 oh1 ow1", "n1 ic16 ih7 iw10 oh3 ow4", "n1 ic4 ih3 iw3 oh5 ow5")


@dataclass(frozen=True)
class Outcome:
    """What one cell found; ``refused`` are the reasons of cases that the kernel does not take."""

    part: str
    kernel: str
    op: str
    dtype: str
    layout: str
    passed: int
    refused: tuple[str, ...]
    failures: tuple[str, ...]


@dataclass(frozen=True)
class CheckCell:
    """One kernel (in the part 'gradients' one backend), one op, one dtype, one layout."""

    part: str
    kernel: str
    op: str
    dtype: str
    layout: str
    device: str = "cpu"

    def run(self) -> Outcome:
        """Run every case of the cell; exceptions are failures of their case."""
        passed, refused, failures = 0, [], []
        for problem in cases(self.op, self.dtype, self.layout, self.part, self.device):
            reasons = _refusals(problem, self.kernel, self.part)
            if reasons:
                refused += [reason for reason in reasons if reason not in refused]
                continue
            try:
                wrong = _RUN[self.part](problem, self.kernel)
            except Exception as error:
                wrong = f"{type(error).__name__}: {error}"
            if wrong:
                failures.append(f"{problem}: {wrong}")
            else:
                passed += 1
        return Outcome(
            self.part, self.kernel, self.op, self.dtype, self.layout, passed, tuple(refused), tuple(failures)
        )


def cases(op: str, dtype: str, layout: str, part: str = "correctness", device: str = "cpu") -> list[Problem]:
    """The problems that an op is checked on; adaptive windows depend on the input's size, so they cannot be shifted."""
    if op in CONV_OPS or op in LOCAL_OPS:
        forward = op in ("conv2d", "local_conv2d")
        texts = [f"{op} {case if forward else case.removesuffix(' bias')}" for case in CONV_CASES]
    else:
        texts = [f"{op} {case}" for case in (AVG_POOL_CASES if op.startswith("avg") else MAX_POOL_CASES)]
        texts += [f"adaptive_{op} {case}" for case in ADAPTIVE_CASES if part != "equivariance"]
        with_indices = [f"{text} indices" for text in texts] if op == "max_pool2d" else []
        if op.startswith("max") and part == "correctness":
            with_indices += [f"{text} offsets" for text in texts if not text.startswith("adaptive")]
        texts += with_indices
    return [parse(f"{text} {dtype} {layout} {device}") for text in texts]


def plan(
    requests: Sequence[str],
    ops: Sequence[str],
    dtypes: Sequence[str],
    layouts: Sequence[str],
    parts: Sequence[str],
    device: str = "cpu",
) -> list[CheckCell]:
    """The cells of a check; empty requests or ops mean all. ValueError lists the known words."""
    for word, known, name in (
        *((op, OPS, "op") for op in ops),
        *((dtype, DTYPES, "dtype") for dtype in dtypes),
        *((layout, ("nchw", "nhwc"), "layout") for layout in layouts),
        *((part, PARTS, "part") for part in parts),
    ):
        if word not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, got {word!r}")
    for request in requests:
        dispatch.check_request(request)
    cells = []
    for part in PARTS:
        if part not in parts:
            continue
        for op in ops or OPS:
            forward = op in ("conv2d", "local_conv2d", "max_pool2d", "avg_pool2d")
            if part != "correctness" and not forward:
                continue
            # Filters that differ from place to place answer differently to the same pattern.
            if part == "equivariance" and op in LOCAL_OPS:
                continue
            names = [name for request in requests or ("auto",) for name in dispatch.candidates(op, request)]
            if part == "gradients":
                names = [name.partition(":")[0] for name in names]
            for name in dict.fromkeys(names):
                cells += [CheckCell(part, name, op, dtype, layout, device) for dtype in dtypes for layout in layouts]
    return cells


def _refusals(problem: Problem, request: str, part: str) -> list[str]:
    """Why a case does not run; a gradient needs every pass's kernel."""
    problems = [problem, *(_gradients(problem) if part == "gradients" else ())]
    context = dispatch.current_context(problem.device)
    for one in problems:
        names = dispatch.candidates(one.op, request)
        found = [dispatch.reasons_against(name, one, context) for name in names]
        if all(found):
            return [reason for reasons in found for reason in reasons] or [f"{request} has no kernel for {one.op}"]
    return []


def _gradients(problem: Problem) -> list[Problem]:
    if isinstance(problem, Conv2dProblem):
        return [
            problem.replace(op=f"{problem.op}_{name}", bias=False, activation=None)
            for name in ("grad_input", "grad_weight")
        ]
    op = {"max_pool2d": "max_pool2d_scatter", "avg_pool2d": "avg_pool2d_grad_input"}[problem.op]
    return [problem.replace(op=op, indices=False, offsets=False)]


def _correctness(problem: Problem, kernel: str) -> str | None:
    given = operands.make(problem)
    choice = dispatch.choose(problem, kernel)
    with torch.no_grad():
        return gate.judge(problem, choice.plan(*given), gate.truth(problem, given), choice.kernel.tier).reason


def _public(problem: Problem, request: str) -> Callable[..., object]:
    """The public function with this problem's arguments."""
    return ours(Layer(problem, problem, "forward"), request)


def _gradients_right(problem: Problem, request: str) -> str | None:
    """First derivatives through autograd, and in float64 on a small problem the second ones."""
    given = operands.make(problem)
    leaves = [None if tensor is None else tensor.detach().clone().requires_grad_() for tensor in given]
    result = _public(problem, request)(*leaves)
    values = result[0] if isinstance(result, tuple) else result
    generator = torch.Generator().manual_seed(1)
    grad_output = torch.randn(values.shape, generator=generator).to(values)
    found = torch.autograd.grad(values, [leaf for leaf in leaves if leaf is not None], grad_output)
    for gradient, got in zip(_gradients(problem), found, strict=False):
        if isinstance(gradient, Conv2dProblem):
            other = given[1] if gradient.pass_name == "grad_input" else given[0]
            truth = gate.truth(gradient, (grad_output, other))
        elif gradient.op == "max_pool2d_scatter":
            truth = gate.truth(gradient, (grad_output, operands.indices(gradient, given[0])))
        else:
            truth = gate.truth(gradient, (grad_output,))
        tier = dispatch.choose(gradient, request).kernel.tier
        reason = gate.judge(gradient, got, truth, tier, check_layout=False).reason
        if reason:
            return f"{gradient.pass_name}: {reason}"
    if isinstance(problem, Conv2dProblem) and problem.bias:
        add = local_bias_gradient if problem.untied else bias_gradient
        wide = grad_output.double()
        terms = problem.replace(op=f"{problem.op}_grad_weight", bias=False, activation=None).reduction
        allowed = add(wide.abs()) * tolerance.relative(problem.dtype, "ieee", terms)
        if not ((found[2].double() - add(wide)).abs() <= allowed).all():
            return "grad_bias: not the sum of grad_output"
    return _second_derivatives(problem, request) if problem.dtype == "f64" else None


# float64 second derivatives are checked numerically, which takes a run per input element: only on problems this small.
_SMALL = 1200


def _second_derivatives(problem: Problem, request: str) -> str | None:
    given = operands.make(problem)
    if sum(tensor.numel() for tensor in given if tensor is not None) > _SMALL:
        return None
    leaves = tuple(tensor.detach().clone().requires_grad_() for tensor in given if tensor is not None)
    call = _public(problem, request)

    def values(*tensors: torch.Tensor) -> torch.Tensor:
        arguments = (*tensors, *[None] * (len(given) - len(tensors)))
        result = call(*arguments)
        return result[0] if isinstance(result, tuple) else result

    try:
        torch.autograd.gradgradcheck(values, leaves, fast_mode=True)
    except torch.autograd.gradcheck.GradcheckError as error:
        return f"second derivatives: {str(error).splitlines()[0]}"
    return None


def _equivariance(problem: Problem, kernel: str) -> str | None:
    """A shifted input gives the shifted output: bitwise where the kernel promises it, else within its tier."""
    steps = 2
    down, across = steps * problem.sh, steps * problem.sw
    height = problem.ih + 2 * down + problem.dh * (problem.kh - 1)
    width = problem.iw + 2 * across + problem.dw * (problem.kw - 1)
    problem = problem.replace(ih=height, iw=width, oh=0, ow=0)
    choice = dispatch.choose(problem, kernel)
    whole, *rest = operands.make(problem.replace(ih=height + down, iw=width + across, oh=0, ow=0))
    still, moved = whole[:, :, :height, :width], whole[:, :, down:, across:]
    with torch.no_grad():
        views = [view.clone(memory_format=memory_format(problem.layout)) for view in (still, moved)]
        first, second = (_values(choice.plan(view, *rest)) for view in views)
    rows, columns = (range(axis.start, axis.stop - steps) for axis in _interior(problem))
    if not rows or not columns:
        return "no interior output is left to compare"
    first = first[:, :, rows.start + steps : rows.stop + steps, columns.start + steps : columns.stop + steps]
    second = second[:, :, rows.start : rows.stop, columns.start : columns.stop]
    if choice.kernel.shift_exact or problem.op == "max_pool2d":
        return None if torch.equal(first, second) else "the response differs bitwise where the pattern is shifted"
    magnitude = first.double().abs().amax(1, keepdim=True).clamp_min(1.0)
    allowed = 4.0 * magnitude * tolerance.relative(problem.dtype, choice.kernel.tier, problem.reduction)
    near = ((first.double() - second.double()).abs() <= allowed).all()
    return None if near else "the response differs beyond its tier where the pattern is shifted"


def _values(result: object) -> torch.Tensor:
    return result[0] if isinstance(result, tuple) else result


def _interior(problem: Problem) -> tuple[range, range]:
    """Output rows and columns whose whole window lies inside the input."""

    def axis(size: int, kernel: int, stride: int, before: int, dilation: int) -> range:
        return range(-(-before // stride), (size - dilation * (kernel - 1) - 1 + before) // stride + 1)

    rows = axis(problem.ih, problem.kh, problem.sh, problem.ph, problem.dh)
    return rows, axis(problem.iw, problem.kw, problem.sw, problem.pw, problem.dw)


_RUN = {"correctness": _correctness, "gradients": _gradients_right, "equivariance": _equivariance}
