"""Each sm_80 instruction that our kernels use, by itself, against the PTX manual's words written in numpy: its CPU
twin, which every emulated test rests on, and where there is a GPU, the instruction."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from emulated import build

from spatialconv.backends.extension import cuda_build

SOURCE = Path(__file__).with_name("instructions.cu")
LANES = np.arange(32)
QUAD, PLACE = LANES // 4, LANES % 4  # the manual's groupID and threadID_in_group


class Instructions:
    """The functions of instructions.cu over numpy arrays."""

    def __init__(self, library: Path, device: str) -> None:
        self._library, self._device = ctypes.CDLL(str(library)), device

    def run(self, name: str, result: np.ndarray, *operands: np.ndarray | int) -> np.ndarray:
        tensors = [torch.from_numpy(o).to(self._device) if isinstance(o, np.ndarray) else o for o in operands]
        output = torch.from_numpy(result.copy()).to(self._device)
        arguments = [ctypes.c_void_p(t.data_ptr()) if isinstance(t, torch.Tensor) else t for t in [*tensors, output]]
        assert getattr(self._library, name)(*arguments) == 0
        return output.cpu().numpy()


@pytest.fixture(scope="module", params=[*build.COPIES, "gpu"])
def instructions(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Instructions:
    library = tmp_path_factory.mktemp("instructions") / "instructions.so"
    include, target = f"-I{build.ROOT / 'csrc'}", ["-shared", "-o", str(library), str(SOURCE)]
    if request.param == "gpu":
        if not torch.cuda.is_available():
            pytest.skip("no GPU")
        if cuda_build.nvcc_command() is None:
            pytest.skip("no nvcc to build the instructions with")
        command = [*cuda_build.nvcc_command(), *cuda_build.flags(SOURCE), "-cudart=static", include, *target]
    else:
        if build.compiler() is None:
            pytest.skip("no C++ compiler to build the emulated instructions with")
        command = [build.compiler(), *build.COMMON, *build.COPIES[request.param], include, "-x", "c++", *target]
    subprocess.run(command, check=True)
    return Instructions(library, "cuda" if request.param == "gpu" else "cpu")


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(5)


def test_copies_arrive_with_their_group_and_zeros_where_not_valid(instructions, random) -> None:
    chunks = random.integers(1, 1 << 31, (64, 4), dtype=np.uint32)
    valid = random.integers(0, 2, 64, dtype=np.int32)
    copied = instructions.run("run_copies", np.zeros_like(chunks), chunks, valid)
    expected = chunks * valid[:, None].astype(np.uint32)
    np.testing.assert_array_equal(copied[:32], expected[:32])
    np.testing.assert_array_equal(copied[32:], np.roll(expected[32:], -1, axis=0))


@pytest.mark.parametrize("transposed", [False, True])
def test_matrices(instructions, random, transposed: bool) -> None:
    """Lane 8i + r addresses row r of matrix i; lane l receives element pair l of each matrix, row by row."""
    rows = random.integers(0, 1 << 16, (32, 8), dtype=np.uint16)
    order = np.concatenate([8 * matrix + random.permutation(8) for matrix in random.permutation(4)]).astype(np.int32)
    words = instructions.run("run_matrices", np.zeros((32, 4), np.uint32), int(transposed), rows, order)
    matrices = rows[order].reshape(4, 8, 8)
    if transposed:
        matrices = matrices.transpose(0, 2, 1)
    np.testing.assert_array_equal(words, np.ascontiguousarray(matrices).view(np.uint32).reshape(4, 32).T)


def test_words(instructions, random) -> None:
    values = random.integers(0, 1 << 32, 32, dtype=np.uint32)
    order = random.permutation(32).astype(np.int32)
    np.testing.assert_array_equal(instructions.run("run_words", np.zeros_like(values), values, order), values[order])


def nearest_tf32(values: np.ndarray) -> np.ndarray:
    """The nearest multiple of the spacing of 10-bit mantissas, ties away from zero."""
    spacing = np.exp2(np.floor(np.log2(np.maximum(np.abs(values), 2.0**-126))) - 10)
    return np.sign(values) * np.floor(np.abs(values) / spacing + 0.5) * spacing


def test_rounding_to_tf32(instructions, random) -> None:
    """The 13 low bits of a tf32 register are no part of its value."""
    ties = np.float32([1 + 2.0**-11, -1 - 2.0**-11, 1 + 3 * 2.0**-11, 1.5 - 2.0**-11, 2 - 2.0**-11, 3e-39, 0, -0.0])
    values = np.concatenate(
        [ties, random.standard_normal(24).astype(np.float32) * np.float32(10) ** random.integers(-30, 30, 24)]
    )
    values = values.astype(np.float32)
    rounded = instructions.run("run_rounded", np.zeros(32, np.uint32), values.view(np.uint32))
    kept = (rounded & np.uint32(0xFFFFE000)).view(np.float32)
    np.testing.assert_array_equal(kept.astype(np.float64), nearest_tf32(values.astype(np.float64)))


def test_rounding_to_tf32_keeps_what_is_not_finite(instructions) -> None:
    values = np.float32([np.inf, -np.inf, np.nan, -np.nan] * 8)
    rounded = instructions.run("run_rounded", np.zeros(32, np.uint32), values.view(np.uint32))
    np.testing.assert_array_equal((rounded & np.uint32(0xFFFFE000)).view(np.float32), values)


def as_words(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values in a dtype that holds them, pairs of 16-bit ones in a word."""
    if dtype == "f32":
        return np.ascontiguousarray(values, np.float32).view(np.uint32)
    if dtype == "f16":
        return np.ascontiguousarray(values.astype(np.float16)).view(np.uint32)
    upper = np.ascontiguousarray(values, np.float32).view(np.uint32) >> np.uint32(16)
    return np.ascontiguousarray(upper.astype(np.uint16)).view(np.uint32)


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
def test_product(instructions, random, dtype: str) -> None:
    """Fragments as drawn for m16n8k16 (16-bit elements) and m16n8k8 (tf32); sums of integers are exact."""
    pair = 1 if dtype == "f32" else 2  # elements of a word
    depth = 8 * pair
    a, b = random.integers(-8, 9, (16, depth)), random.integers(-8, 9, (depth, 8))
    c = random.integers(-8, 9, (16, 8))
    k = [np.stack([PLACE * pair + e + half * depth // 2 for e in range(pair)], 1) for half in range(2)]
    # Words of a: (row, low k), (row + 8, low k), (row, high k), (row + 8, high k); of b: low k, high k.
    left = np.concatenate([a[QUAD[:, None] + 8 * (word % 2), k[word // 2]] for word in range(4)], 1)
    right = np.concatenate([b[k[half], QUAD[:, None]] for half in range(2)], 1)
    rows = np.stack([QUAD, QUAD, QUAD + 8, QUAD + 8], 1)
    columns = np.stack([2 * PLACE, 2 * PLACE + 1] * 2, 1)
    sums = instructions.run(
        f"run_product_{dtype}", np.zeros((32, 4), np.float32), as_words(left, dtype), as_words(right, dtype),
        c[rows, columns].astype(np.float32),
    )  # fmt: skip
    np.testing.assert_array_equal(sums, (a @ b + c)[rows, columns])
