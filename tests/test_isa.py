"""Every instruction-set level that this machine can run computes the same kernels."""

from __future__ import annotations

import ctypes
import subprocess

import child
import pytest
import torch
import torch.nn.functional as F

from spatialconv.backends.extension import dots, loader, structs

LEVELS = loader.load().levels() if loader.unavailable() is None else ()
DTYPES = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16, "f16": torch.float16}


def level_in_a_fresh_process(asked: str) -> subprocess.CompletedProcess[str]:
    code = "from spatialconv.backends.extension import loader; print(loader.level())"
    return child.python("-c", code, SPATIALCONV_CPU_ISA=asked)


def direct(level: str, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, padding: int) -> torch.Tensor:
    """A dense convolution with stride 1 by the direct kernel of one level, its output and workspace poisoned before."""
    module = loader.load()
    dtype = next(name for name, dtype in DTYPES.items() if dtype == x.dtype)
    handle = next(h for op, name, d, h in module.kernels(level) if (op, name, d) == ("conv2d", "direct", dtype))
    n, ic, ih, iw = x.shape
    oc, _, kh, kw = w.shape
    oh, ow = ih + 2 * padding - kh + 1, iw + 2 * padding - kw + 1
    nhwc = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    y = torch.full((n, oc, oh, ow), torch.nan, dtype=x.dtype)
    y = y.contiguous(memory_format=torch.channels_last) if nhwc else y
    fields = dict(n=n, g=1, ic=ic, ih=ih, iw=iw, oc=oc, oh=oh, ow=ow, kh=kh, kw=kw, sh=1, sw=1)
    fields |= dict(ph=padding, pw=padding, dh=1, dw=1, activation=0, accumulate=0)
    problem = structs.conv2d_struct(fields, x.stride(), w.stride(), y.stride())
    address = ctypes.addressof(problem)
    workspace = torch.full((module.workspace_bytes(handle, address, 1) + 64,), 255, dtype=torch.uint8)
    aligned = -(-workspace.data_ptr() // 64) * 64
    offset = 0 if bias is None else bias.data_ptr()
    assert module.run(handle, address, x.data_ptr(), w.data_ptr(), y.data_ptr(), offset, aligned, 1, 0) == 0
    return y


def test_there_is_a_level() -> None:
    assert LEVELS and LEVELS[0] == "baseline"


def test_structs_are_those_of_the_compiled_part() -> None:
    assert loader.load().struct_sizes() == (ctypes.sizeof(structs.Conv2d), ctypes.sizeof(structs.Pool2d))


@pytest.mark.parametrize("level", LEVELS)
def test_the_environment_chooses_the_level(level: str) -> None:
    assert level_in_a_fresh_process(level).stdout.strip() == level


def test_an_unknown_level_is_refused_with_the_known_ones() -> None:
    refused = level_in_a_fresh_process("sse9")
    assert refused.returncode != 0
    assert "SPATIALCONV_CPU_ISA='sse9' is no instruction-set level; known: baseline, avx2, avx512" in refused.stderr


def test_every_level_has_the_same_kernels() -> None:
    """But for those of instructions that one level alone can have; their twins are in all."""
    own = {f"dots_{name}" for name in dots.SETS}
    names = {level: sorted(row[:3] for row in loader.load().kernels(level) if row[1] not in own) for level in LEVELS}
    assert all(rows == names["baseline"] for rows in names.values())
    assert len(set(names["baseline"])) == len(names["baseline"])


@pytest.mark.parametrize(
    "name",
    ["levels", "kernels", "dots", "run", "workspace_bytes", "packed_bytes", "pack", "multiply_adds", "struct_sizes"],
)
def test_a_wrong_number_of_arguments_is_a_type_error(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}\(\) takes exactly \d arguments \(12 given\)"):
        getattr(loader.load(), name)(*range(12))


def test_arguments_must_be_integers() -> None:
    with pytest.raises(TypeError):
        loader.load().run("handle", 0, 0, 0, 0, 0, 0, 1, 0)


@pytest.mark.parametrize("level", LEVELS)
def test_rounds_of_multiply_adds_are_whole_vectors_of_operations(level: str) -> None:
    module = loader.load()
    single, double = (module.multiply_adds(level, dtype, 1) for dtype in ("f32", "f64"))
    assert single == 2 * double and single % 8 == 0
    assert module.multiply_adds(level, "f32", 1000) == 1000 * single


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", LEVELS)
def test_conversions_round_to_nearest_even(level: str, dtype: str) -> None:
    """A 1x1 convolution by 1 with a bias is one addition in compute type and one rounding, as torch's own addition."""
    x = torch.linspace(-300, 300, 4001, dtype=torch.float64).to(DTYPES[dtype]).reshape(1, 1, 1, -1)
    w = torch.ones(1, 1, 1, 1, dtype=x.dtype)
    bias = torch.tensor([1 / 3], dtype=torch.float64).to(x.dtype)
    torch.testing.assert_close(direct(level, x, w, bias, 0), x + bias, rtol=0, atol=0)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", LEVELS)
def test_small_integers_come_out_exact(level: str, dtype: str, layout: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-2, 3, (2, 9, 5, 37), generator=generator).to(torch.float64)
    w = torch.randint(-1, 2, (5, 9, 3, 3), generator=generator).to(torch.float64)
    expected = F.conv2d(x, w, padding=1)
    memory = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    got = direct(level, x.to(DTYPES[dtype]).contiguous(memory_format=memory), w.to(DTYPES[dtype]), None, 1)
    assert torch.equal(got.double(), expected)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("level", LEVELS)
def test_the_response_moves_bitwise_with_the_pattern(level: str, dtype: str, layout: str) -> None:
    """The same pattern at every column of a row wider than any register tile, into the last, partial vector."""
    generator = torch.Generator().manual_seed(0)
    memory = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    pattern = torch.randn(1, 19, 3, 3, generator=generator).to(DTYPES[dtype])
    w = torch.randn(6, 19, 3, 3, generator=generator).to(DTYPES[dtype])
    responses = []
    for column in range(71):
        x = torch.zeros(1, 19, 3, 73, dtype=pattern.dtype).contiguous(memory_format=memory)
        x[..., column : column + 3] = pattern
        responses.append(direct(level, x, w, None, 0)[..., column])
    assert all(torch.equal(response, responses[0]) for response in responses)
