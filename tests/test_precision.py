"""Every convolution kernel stands in its precision tier, measured per output against float64.

The error is taken relative to the local sum of absolute products, so one large pixel hides nothing. *ieee*: at most 4
times the error of torch's worse layout. *tf32*, *bf16*: no worse than operands rounded to that type.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import operands as operands_module
import pytest
import torch
from cells import on_cpu
from compare import convolution
from torch import Tensor

from spatialconv import dispatch
from spatialconv.activations import FUNCTIONS
from spatialconv.backends.base import DTYPES, Context
from spatialconv.backends.extension import loader
from spatialconv.problem import CONV_OPS, Conv2dProblem, parse

LEVELS = loader.load().levels() if loader.unavailable() is None else [""]
INPUTS = ("normal", "rectified", "mean-10", "one-pixel")
GEOMETRIES = (
    "n2 ic64 ih14 iw14 oc32 kh3 kw3 ph1 pw1",
    "n1 ic256 ih7 iw9 oc24",
    "n1 ic3 ih40 iw41 oc8 kh7 kw7 sh2 sw2 ph3 pw3",
    "n2 ic24 ih15 iw17 oc24 kh5 kw5 ph2 pw2 g24",
    "n1 ic32 ih12 iw12 oc48 kh3 kw3 ph1 pw1 g4",
)
# The long ones among the activations, on a short sum and a long one, where the kernel's own arithmetic shows.
ACTIVATED = tuple(
    f"{text} {word}"
    for text in ("n1 ic2 ih12 iw24 oc16", "n1 ic64 ih9 iw9 oc16 kh3 kw3", "n1 ic16 ih9 iw17 oc16 kh3 kw3 g16")
    for word in ("hardswish", "silu", "gelu")
)
IEEE_FACTOR = 4.0


def rounded(tensor: Tensor, tier: str) -> Tensor:
    """float32 values with the significand of the tier's type, rounded to nearest even."""
    dropped = {"tf32": 13, "bf16": 16}[tier]
    whole = tensor.float().view(torch.int32)
    half = (1 << (dropped - 1)) - 1
    return (((whole + half + (whole >> dropped & 1)) >> dropped) << dropped).view(torch.float32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with operands_module.one_thread():
        yield


@lru_cache(maxsize=64)
def operands(problem: Conv2dProblem, kind: str) -> tuple[Tensor, Tensor]:
    """Contiguous operands: ``kind`` says what the one that is walked over holds, image or gradient."""
    generator = torch.Generator().manual_seed(5)
    shapes = {
        "conv2d": (problem.input_shape, problem.weight_shape),
        "conv2d_grad_input": (problem.output_shape, problem.weight_shape),
        "conv2d_grad_weight": (problem.output_shape, problem.input_shape),
    }[problem.op]
    made = [torch.randn(shape, generator=generator) for shape in shapes]
    marked = 1 if problem.op == "conv2d_grad_weight" else 0
    if kind == "rectified":
        made[marked] = made[marked].relu()
    elif kind == "mean-10":
        made[marked] = made[marked] + 10
    elif kind == "one-pixel":
        made[marked][..., 3, 4] *= 1000
    dtype = DTYPES[problem.dtype]
    return made[0].to(dtype), made[1].to(dtype)


def error(problem: Conv2dProblem, kind: str, result: Tensor) -> float:
    right, size = truth(problem, kind)
    distance = (result.double() - right).abs()
    return float((distance / size).masked_fill(distance == 0, 0).max())


@lru_cache(maxsize=64)
def truth(problem: Conv2dProblem, kind: str) -> tuple[Tensor, Tensor]:
    first, second = (operand.double() for operand in operands(problem, kind))
    return torchs(problem, first, second), convolution(problem, first.abs(), second.abs())


def torchs(problem: Conv2dProblem, first: Tensor, second: Tensor) -> Tensor:
    """What torch computes in the operands' dtype, the activation behind the convolution."""
    output = convolution(problem, first, second)
    return output if problem.activation is None else FUNCTIONS[problem.activation](output)


def torch_error(problem: Conv2dProblem, kind: str, layout: torch.memory_format) -> float:
    first, second = (operand.contiguous(memory_format=layout) for operand in operands(problem, kind))
    return error(problem, kind, torchs(problem, first, second))


@lru_cache(maxsize=256)
def limit(problem: Conv2dProblem, kind: str, tier: str) -> float:
    """The largest error that a kernel of the tier may make; never below where roundings
    of the result alone decide."""
    if tier == "ieee":
        layouts = (torch.contiguous_format, torch.channels_last)
        return max(IEEE_FACTOR * max(torch_error(problem, kind, layout) for layout in layouts), noise(problem))
    first, second = (rounded(operand, tier).double() for operand in operands(problem, kind))
    # Operands rounded to the tier, and then a sum as the ieee tier makes it.
    return error(problem, kind, torchs(problem, first, second)) + limit(problem, kind, "ieee")


def noise(problem: Conv2dProblem) -> float:
    return 2 * torch.finfo(DTYPES[problem.dtype]).eps


def context(name: str, level: str) -> Context:
    return Context(isa=level, precision=dispatch.kernel(name).tier)


def cases(interpreted: bool) -> list:
    """Kernels that are interpreted are tried on everything only where everything is asked for."""
    found = [
        (op, name, level, text, dtype)
        for op in CONV_OPS
        for name in on_cpu(op, interpreted)
        for level in (LEVELS if name.startswith("extension:") else ("",))
        for text in (GEOMETRIES if op != "conv2d" else GEOMETRIES + ACTIVATED)
        for dtype in ("f32", "bf16", "f16")
        if not dispatch.reasons_against(name, parse(f"{op} {text} {dtype}"), context(name, level))
    ]
    marks = [pytest.mark.full] if interpreted else []
    return [pytest.param(*case, id="{1}@{2} {0} {3} {4}".format(*case), marks=marks) for case in found]


@pytest.mark.parametrize(("op", "name", "level", "text", "dtype"), cases(False) + cases(True))
def test_a_kernel_stands_in_its_tier(op: str, name: str, level: str, text: str, dtype: str) -> None:
    problem = parse(f"{op} {text} {dtype}")
    kernel = dispatch.kernel(name)
    for layout in ("nchw", "nhwc"):
        plan = kernel.whole_plan(problem.replace(layout=layout), context(name, level))
        for kind in INPUTS:
            made = operands(problem, kind)
            result = plan(*made, None) if op == "conv2d" else plan(*made)
            got = error(problem, kind, result)
            assert got <= limit(problem, kind, kernel.tier), f"{layout}, {kind}"


@pytest.mark.parametrize("tier", ["tf32", "bf16"])
@pytest.mark.parametrize("kind", INPUTS)
def test_a_lower_tier_is_told_from_ieee(tier: str, kind: str) -> None:
    """Rounded operands pass their own tier and fail ieee, on every kind of input."""
    problem = parse(f"conv2d {GEOMETRIES[0]} f32")
    first, second = (rounded(operand, tier) for operand in operands(problem, kind))
    found = error(problem, kind, convolution(problem, first.double(), second.double()))
    assert found <= limit(problem, kind, tier)
    assert found > limit(problem, kind, "ieee")


def test_rounding_to_a_tier_is_to_nearest() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rounded(values, "bf16"), values.bfloat16().float())
    assert float(((rounded(values, "tf32") - values) / values).abs().max()) <= 2.0**-11
