"""The Triton backend: the mended interpreter, who is told what where nothing can run, and the public functions."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import child
import pytest
import torch
from calls import CONVOLUTIONS, POOLS, TRANSPOSED, assert_same, flat

import spatialconv
from spatialconv import errors
from spatialconv.backends.triton import launch

# Functions of interpreted.py, each of which shows one trap of the interpreter, and what it says where it is not mended.
TRAPS = {
    "bfloat16_arithmetic": "ValueError: expected",
    "bfloat16_dot": "ValueError: error",
    "bfloat16_comparison": "ValueError: expected",
    "bfloat16_reduction": "ValueError: error",
    "bfloat16_constant": "get_bf16",
    "float32_to_bfloat16_and_back": "ValueError: expected",
    "float64_to_bfloat16": "ValueError: expected",
    "integer_to_bfloat16": "ValueError: expected",
    "mask_of_block_and_scalar": "mask has unsupported dtype",
    "range_of_runtime_value": "only 0-dimensional arrays",
    "dot_in_tf32": "ValueError: error 0",
    "maximum_of_number_and_nan": "ValueError: expected",
    "masked_lane_without_other": "ValueError: expected",
    "load_out_of_bounds": "ValueError: no error",
    "load_from_another_tensor": "ValueError: no error",
    "store_out_of_bounds": "ValueError: no error",
    "language_after_a_launch": "stays patched",
}
installed = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
running = pytest.mark.skipif(launch.unavailable() is not None, reason=str(launch.unavailable()))
interpreted = pytest.mark.skipif(
    launch.unavailable() is None and not launch.interpreting(), reason="kernels are compiled in this process"
)


def fresh(*arguments: str, **variables: str) -> str:
    """What a new Python process prints; TRITON_INTERPRET is set only where it is given."""
    return child.printed(*arguments, drop=("TRITON_INTERPRET", "SPATIALCONV_BACKEND"), **variables)


@cache
def outcomes(interpreter: str) -> dict[str, str]:
    script = Path(__file__).with_name("interpreted.py")
    return json.loads(fresh("-W", "ignore", str(script), interpreter, *TRAPS).splitlines()[-1])


@installed
@pytest.mark.parametrize("trap", TRAPS)
def test_the_mended_interpreter_computes_what_a_gpu_would(trap: str) -> None:
    assert outcomes("mended")[trap] == ""


@installed
@pytest.mark.parametrize(("trap", "words"), TRAPS.items())
def test_the_trap_is_there_without_the_mend(trap: str, words: str) -> None:
    if outcomes("upstream")[trap] == "":
        pytest.skip("this triton with this numpy does not have the trap")
    assert words in outcomes("upstream")[trap]


@installed
def test_the_names_that_the_mend_replaces_are_there() -> None:
    from spatialconv.backends.triton import interpreter

    assert interpreter.missing_names() == []


MENDING = """
from triton.runtime import interpreter as upstream
from spatialconv.backends.triton import interpreter

def state():
    builder = upstream.InterpreterBuilder
    return [upstream._interpreter, upstream.GridExecutor.__call__, builder.binary_op, builder.cast_impl]

before = state()
interpreter.mend()
once = state()
interpreter.mend()
print(once == before, state() == once)
"""


@installed
def test_mending_twice_is_mending_once() -> None:
    assert fresh("-c", MENDING, TRITON_INTERPRET="1").split() == ["False", "True"]


@installed
def test_nothing_is_mended_where_kernels_are_compiled() -> None:
    assert fresh("-c", MENDING).split() == ["True", "True"]


LACKING = """
import torch, spatialconv
from spatialconv import errors
try:
    spatialconv.conv2d(torch.rand(1, 2, 4, 4), torch.rand(2, 2, 3, 3), backend="triton")
except errors.BackendUnavailableError as error:
    print(error)
"""


@installed
def test_without_a_gpu_and_without_the_interpreter_it_says_so() -> None:
    words = fresh("-c", LACKING, CUDA_VISIBLE_DEVICES="")
    assert "torch sees no CUDA device" in words and "TRITON_INTERPRET=1" in words, words


def test_without_triton_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    assert launch.unavailable.__wrapped__() == "triton is not installed: pip install triton"


def test_a_triton_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        __version__ = "2.3.1"

    monkeypatch.setattr(launch, "find_spec", lambda name: name)
    monkeypatch.setattr(launch, "import_module", lambda name: Old)
    assert launch.unavailable.__wrapped__() == "triton 2.3.1 is too old, 3.6 is the oldest that serves"


def on_device(tensors: list[torch.Tensor], requires_grad: bool = False) -> list[torch.Tensor]:
    return [tensor.to(launch.device()).requires_grad_(requires_grad) for tensor in tensors]


@running
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(
    "case", [CONVOLUTIONS[1], CONVOLUTIONS[2], TRANSPOSED[1], POOLS[0], POOLS[3], POOLS[7]], ids=str
)
def test_forward_and_backward_are_torchs(case, layout: str) -> None:
    ours, theirs = (on_device(case.tensors(torch.float64, layout), requires_grad=True) for _ in range(2))
    output, expected = flat(case.ours(*ours, backend="triton"))[0], flat(case.theirs(*theirs))[0]
    assert_same(output, expected)
    weight = torch.rand_like(expected)
    assert_same(
        torch.autograd.grad((output * weight).sum(), ours), torch.autograd.grad((expected * weight).sum(), theirs)
    )


@running
def test_first_and_second_derivatives() -> None:
    image, weight = on_device([torch.rand(1, 2, 3, 3).double(), torch.rand(2, 2, 2, 2).double()], requires_grad=True)

    def run(image, weight):
        return spatialconv.conv2d(image, weight, padding=1, stride=2, backend="triton")

    assert torch.autograd.gradcheck(run, (image, weight), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (image, weight), fast_mode=True)


@running
def test_explain_names_the_kernel() -> None:
    image, weight = on_device([torch.rand(1, 4, 5, 5), torch.rand(4, 4, 3, 3)])
    words = str(spatialconv.explain(spatialconv.conv2d, image, weight, backend="triton"))
    assert "triton:implicit_gemm" in words, words


@running
def test_what_no_kernel_takes_is_refused_with_reasons() -> None:
    image, weight = on_device([torch.ones(1, 2, 4, 4, dtype=torch.int32), torch.ones(2, 2, 3, 3, dtype=torch.int32)])
    with pytest.raises(errors.UnsupportedProblemError, match="triton:implicit_gemm.*i32"):
        spatialconv.conv2d(image, weight, backend="triton")


@interpreted
@running
def test_interpreted_kernels_take_no_cuda_tensors() -> None:
    words = str(spatialconv.explain("conv2d n1 ic4 ih5 iw5 oc4 f32 nchw cuda", backend="triton"))
    assert "runs on cpu tensors, the problem is on cuda" in words, words
