"""The kernel of bfloat16 pairs: the twins of its instructions, the kernel on both of them, and who may choose it.

The generated tests run it on the instructions of this processor, or on the twin of AMX where it has none.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable

import cells
import child
import numpy as np
import pytest
import torch
from cells import Cell
from compare import bits

import spatialconv
from spatialconv import dispatch, errors
from spatialconv.backends.base import Context
from spatialconv.backends.extension import dots, loader, structs
from spatialconv.backends.extension.kernels import handles
from spatialconv.problem import parse

LEVELS = tuple(loader.load().levels())
OPS = ("conv2d", "conv2d_grad_input")
TWINS = tuple(f"{name}_twin" for name in dots.SETS)
lacking = pytest.mark.skipif(bool(dots.offered()), reason="this processor has the instructions")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    listed = [(op, "extension:dots", LEVELS[-1]) for op in OPS]
    cells.parametrize(metafunc, lambda: cells.sampled(listed, share=2), lambda: cells.whole(listed))


@pytest.mark.parametrize("twin", TWINS)
def test_a_cell_on_each_twin(cell: Cell, twin: str, monkeypatch: pytest.MonkeyPatch, record_property) -> None:
    record_property("kernel", f"{cell.kernel} {twin}")
    monkeypatch.setattr(dots, "instructions", lambda level: twin)
    cells.check_cell(cell, monkeypatch)


def multiply(instructions: str, a: torch.Tensor, b: torch.Tensor, level: str = LEVELS[-1]) -> torch.Tensor:
    """a @ b by a 1x1 convolution of pixels that are the rows of ``a``, in bfloat16 at the end."""
    pixels, depth, columns = *a.shape, b.shape[1]
    x = a.T.reshape(1, depth, 1, pixels).contiguous(memory_format=torch.channels_last)
    w = b.T.reshape(columns, depth, 1, 1).contiguous()
    y = torch.empty(1, columns, 1, pixels, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    fields = dict(n=1, g=1, ic=depth, ih=1, iw=pixels, oc=columns, oh=1, ow=pixels, kh=1, kw=1, sh=1, sw=1, ph=0, pw=0)
    fields |= dict(dh=1, dw=1, activation=0, accumulate=0)
    strides = (depth * pixels, 1, depth * pixels, depth), w.stride(), (columns * pixels, 1, columns * pixels, columns)
    struct = structs.conv2d_struct(fields, *strides)
    module, handle = loader.load(), handles(level)["conv2d", f"dots_{instructions}", "bf16"]
    address = ctypes.addressof(struct)
    workspace = torch.empty(module.workspace_bytes(handle, address, 1) + 64, dtype=torch.uint8)
    aligned = -(-workspace.data_ptr() // 64) * 64
    assert module.run(handle, address, x.data_ptr(), w.data_ptr(), y.data_ptr(), 0, aligned, 1, 0) == 0
    return y[0, :, 0].T.contiguous()


def flushed(values: np.ndarray) -> np.ndarray:
    return np.where(np.abs(values) < 2.0**-126, np.copysign(0.0, values), values)


def multiply_add(a: np.ndarray, b: np.ndarray, total: np.ndarray) -> np.ndarray:
    """In float64, in which what the tests multiply and add is exact."""
    return flushed((flushed(a) * flushed(b) + flushed(total)).astype(np.float32).astype(np.float64))


def tiles_model(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """TDPBF16PS over a whole depth, 32 numbers at a time."""
    total = np.zeros((a.shape[0], b.shape[1]))
    for start in range(0, a.shape[1], 32):
        sums = [np.zeros_like(total), np.zeros_like(total)]
        for k in range(start, min(start + 32, a.shape[1])):
            sums[k % 2] = multiply_add(a[:, k : k + 1], b[k : k + 1], sums[k % 2])
        pair = multiply_add(sums[0], np.ones(1), sums[1])
        total = multiply_add(total, np.ones(1), pair)
    return total


def vectors_model(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """VDPBF16PS pair by pair: of each the second number first."""
    total = np.zeros((a.shape[0], b.shape[1]))
    for k in range(0, a.shape[1], 2):
        for place in (k + 1, k):
            total = multiply_add(a[:, place : place + 1], b[place : place + 1], total)
    return total


MODELS: dict[str, Callable] = {"amx_bf16": tiles_model, "avx512_bf16": vectors_model}


Operands = tuple[torch.Tensor, torch.Tensor]


def cancelling(rows: int, depth: int, columns: int) -> Operands:
    """Every product stands there with both signs: what remains of a sum is what its order has rounded away."""
    generator = torch.Generator().manual_seed(depth)
    half = depth // 2
    left, right = (
        2.0 ** torch.randint(0, 14, shape, generator=generator).double() for shape in ((rows, half), (half, columns))
    )
    order = torch.randperm(depth, generator=generator)
    return torch.cat([left, left], 1)[:, order].bfloat16(), torch.cat([right, -right])[order].bfloat16()


def subnormal(rows: int, depth: int, columns: int) -> Operands:
    """Numbers around the smallest normal one, whose products are too."""
    generator = torch.Generator().manual_seed(depth)
    left = 1.5 * 2.0 ** torch.randint(-132, -120, (rows, depth), generator=generator).double()
    right = 2.0 ** torch.randint(-4, 3, (depth, columns), generator=generator).double()
    return left.bfloat16(), right.bfloat16()


def normal(rows: int, depth: int, columns: int) -> Operands:
    generator = torch.Generator().manual_seed(depth)
    left, right = (torch.randn(shape, generator=generator) for shape in ((rows, depth), (depth, columns)))
    return left.bfloat16(), right.bfloat16()


@pytest.mark.parametrize("made", [cancelling, subnormal])
@pytest.mark.parametrize("name", dots.SETS)
@pytest.mark.parametrize("level", LEVELS)
def test_a_twin_computes_what_the_manual_says(level: str, name: str, made: Callable) -> None:
    plain = []
    for depth in (2, 32, 62, 70, 600):
        a, b = made(19, depth, 21)
        right = torch.from_numpy(MODELS[name](a.double().numpy(), b.double().numpy())).bfloat16()
        assert torch.equal(bits(multiply(f"{name}_twin", a, b, level)), bits(right)), depth
        plain.append(torch.equal((a.double() @ b.double()).bfloat16(), right))
    assert not all(plain), "the operands show nothing of what the instructions do"


def test_the_models_differ_in_the_order_of_their_sums() -> None:
    a, b = (operand.double().numpy() for operand in cancelling(19, 62, 21))
    assert not np.array_equal(tiles_model(a, b), vectors_model(a, b))


@pytest.mark.parametrize("made", [cancelling, subnormal, normal])
@pytest.mark.parametrize("name", dots.SETS)
def test_instructions_and_twins_give_the_same_bits(name: str, made: Callable) -> None:
    if name not in dots.offered() or "avx512" not in LEVELS:
        pytest.skip(f"this processor lacks {name}")
    for shape in ((1, 2, 1), (33, 62, 17), (65, 1100, 40)):
        a, b = made(*shape)
        one, other = multiply(name, a, b, "avx512"), multiply(f"{name}_twin", a, b, "avx512")
        assert torch.equal(bits(one), bits(other))


PROBLEM = "conv2d n1 ic32 ih8 iw8 oc32 kh3 kw3 ph1 pw1 bf16 nhwc"


@lacking
def test_without_the_instructions_it_says_what_is_missing() -> None:
    code = f"from spatialconv import dispatch; print(dispatch.explain_problem({PROBLEM!r}, 'extension:dots'))"
    drop = ("SPATIALCONV_EMULATE_DOTS", "SPATIALCONV_BACKEND")
    words = child.printed("-c", code, drop=drop)
    assert "needs amx_bf16 or avx512_bf16, which this processor or this system lacks" in words
    assert "SPATIALCONV_EMULATE_DOTS=amx_bf16 runs a twin" in words
    assert "chosen:  extension:dots" in child.printed("-c", code, drop=drop, SPATIALCONV_EMULATE_DOTS="avx512_bf16")
    words = child.printed("-c", code, drop=drop, SPATIALCONV_EMULATE_DOTS="sse")
    assert "SPATIALCONV_EMULATE_DOTS='sse' is no instruction set, known: amx_bf16, avx512_bf16" in words


@pytest.mark.parametrize("request_", ["auto", "extension"])
def test_only_its_name_chooses_it(request_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dots, "instructions", lambda level: TWINS[0])
    for op in OPS:
        text = PROBLEM.replace("conv2d", op)
        assert dispatch.explain_problem(text, request_).chosen != "extension:dots"
        assert dispatch.explain_problem(text, "extension:dots").chosen == "extension:dots"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": "f32"}, "computes in bf16, the problem is in f32"),
        ({"g": 8}, "groups have 4 and 36"),
        ({"g": 32}, "groups have 1 and 9"),
        ({"g": 2, "ic": 4, "kh": 1, "kw": 1, "ph": 0, "pw": 0}, "groups have 16 and 2"),
    ],
)
def test_it_says_what_it_does_not_take(change: dict, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dots, "instructions", lambda level: TWINS[0])
    context = Context(isa=LEVELS[-1])
    assert dispatch.kernel("extension:dots").refusals(parse(PROBLEM), context) == []
    (told,) = dispatch.kernel("extension:dots").refusals(parse(PROBLEM).replace(**change), context)
    assert reason in told


@lacking
def test_a_call_by_name_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dots, "instructions", lambda level: None)
    monkeypatch.setattr("spatialconv.settings.emulate_dots", lambda: None)
    image, weight = torch.zeros(1, 3, 5, 6, dtype=torch.bfloat16), torch.zeros(4, 3, 3, 3, dtype=torch.bfloat16)
    with pytest.raises(errors.UnsupportedProblemError, match="needs amx_bf16 or avx512_bf16"):
        spatialconv.conv2d(image, weight, backend="extension:dots")
    monkeypatch.setattr(dots, "offered", lambda: ("amx_bf16",))
    told = dispatch.reasons_against("extension:dots", parse(PROBLEM), Context(isa="avx2"))
    assert told == ("needs instructions of amx_bf16, which level avx2 of this build has not",)


def test_the_inner_loops_load_what_the_blocking_says() -> None:
    """Read from the machine code: 4 loads for 4 products of tiles, and vectors that stay in their registers."""
    if shutil.which("objdump") is None or "avx512" not in loader.build_info()["levels"]:
        pytest.skip("needs objdump, and a build with AVX-512")
    command = ["objdump", "-d", "--no-show-raw-insn", loader.load().__file__]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    loops = list(bodies(code))
    tiles = [loop for loop in loops if loop.count("tdpbf16ps") == 4]
    vectors = [loop for loop in loops if loop.count("vdpbf16ps") == 16]
    assert tiles and vectors
    for loop in tiles:
        assert loop.count("tileloadd") == 4 and "(%rsp" not in loop and "(%rbp" not in loop
    for loop in vectors:
        assert loop.count("vpbroadcastd") == 8 and not re.search(r"vmov\w+ +(%zmm\d+,.*\(%rsp|.*\(%rsp.*%zmm)", loop)


def bodies(code: str):
    """The innermost loops that multiply pairs."""
    lines = code.splitlines()
    near = {place for hit, line in enumerate(lines) if "dpbf16ps" in line for place in range(hit - 100, hit + 100)}
    found = [re.match(r" +([0-9a-f]+):\t(.*)", lines[place]) for place in sorted(near) if 0 <= place < len(lines)]
    lines = [(int(line[1], 16), line[2]) for line in found if line]
    places = {address: number for number, (address, _) in enumerate(lines)}
    for number, (_, text) in enumerate(lines):
        jump = re.match(r"j\w+ +([0-9a-f]+)", text)
        first = places.get(int(jump[1], 16), number) if jump else number
        body = [line for _, line in lines[first : number + 1]]
        inner = any(re.match(r"j\w+ ", line) for line in body[:-1])
        if body and not inner and any("dpbf16ps" in line for line in body[:-1]):
            yield "\n".join(body)
