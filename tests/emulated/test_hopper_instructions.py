"""Each sm_90a instruction that our kernels use against the PTX manual's words written in numpy: its CPU twin, which the
emulated tests of the wgmma kernels rest on, and where there is such a GPU, the instruction."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from emulated import build

from spatialconv.backends.extension import cuda_build

SOURCE = Path(__file__).with_name("hopper_instructions_sm90a.cu")
THREADS = np.arange(128)


class Instructions:
    """The functions of hopper_instructions_sm90a.cu: tables of integers stay on the host, operands go to the device."""

    def __init__(self, library: Path, device: str) -> None:
        self._library, self._device = ctypes.CDLL(str(library)), device

    def run(self, name: str, result: np.ndarray, host: list, *operands: np.ndarray) -> np.ndarray:
        tensors = [_aligned(torch.from_numpy(operand)).to(self._device) for operand in operands]
        output = torch.from_numpy(result.copy()).to(self._device)
        arguments = [h.ctypes.data_as(ctypes.c_void_p) if isinstance(h, np.ndarray) else h for h in host]
        addresses = [ctypes.c_void_p(tensor.data_ptr()) for tensor in [*tensors, output]]
        assert getattr(self._library, name)(*arguments, *addresses) == 0
        return output.cpu().numpy()


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of torch's own, whose address the copy engine takes."""
    return torch.empty_like(tensor).copy_(tensor)


@pytest.fixture(scope="module", params=[*build.COPIES, "gpu"])
def instructions(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Instructions:
    library = tmp_path_factory.mktemp("hopper_instructions") / "instructions.so"
    include, target = f"-I{build.ROOT / 'csrc'}", ["-shared", "-o", str(library), str(SOURCE)]
    if request.param == "gpu":
        if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
            pytest.skip("no GPU of compute capability 9.0")
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


def unswizzled(rows: np.ndarray) -> np.ndarray:
    """Rows of 128 bytes: chunk i of 16 bytes of row r lies where chunk i ^ (r % 8) would."""
    chunks = rows.reshape(-1, 8, 8)
    order = np.arange(8)[None, :] ^ (np.arange(len(chunks)) % 8)[:, None]
    return np.take_along_axis(chunks, order[:, :, None], axis=1).reshape(-1, 64)


# n h w c, corners (lower h w, upper h w), strides, pixels; then channel, number of the first position, tap offsets
IM2COL = [
    ((2, 7, 9, 64), (-1, -1, -1, -1), (1, 1), 64, (0, 0, 0, 0)),
    ((2, 7, 9, 64), (-1, -1, -1, -1), (1, 1), 64, (0, 70, 2, 1)),
    ((3, 5, 6, 72), (-2, -1, 0, 3), (2, 1), 128, (64, 5, 3, 0)),
    ((1, 11, 13, 8), (-3, -2, -5, -1), (3, 2), 64, (0, 2, 1, 4)),
    ((4, 3, 2, 128), (0, 0, 0, 0), (1, 1), 128, (64, 3, 0, 0)),
    ((2, 4, 5, 64), (-128, -7, 127, 4), (8, 5), 64, (0, 3, 130, 6)),
]


@pytest.mark.parametrize("shape, corners, strides, pixels, place", IM2COL)
def test_im2col(instructions, random, shape, corners, strides, pixels, place) -> None:
    """Pixels come in the order of the bounding box's positions, columns first; what lies outside is zero."""
    (n, h, w, c), (channel, first, offset_h, offset_w) = shape, place
    values = random.integers(1, 1 << 15, shape, dtype=np.int16)
    rows = np.arange(corners[0], h + corners[2], strides[0])
    columns = np.arange(corners[1], w + corners[3], strides[1])
    expected, places = [], []
    for start in (first, 0):
        number = start + np.arange(pixels)
        image, row = number // (len(rows) * len(columns)), rows[number // len(columns) % len(rows)]
        column = columns[number % len(columns)]
        places.append([channel, column[0], row[0], image[0], offset_w, offset_h])
        block = np.zeros((pixels, 64), np.int16)
        for pixel, (i, y, x) in enumerate(zip(image, row + offset_h, column + offset_w, strict=True)):
            if i < n and 0 <= y < h and 0 <= x < w:
                block[pixel, : min(64, c - channel)] = values[i, y, x, channel : channel + 64]
        expected.append(block)
    table = np.array([n, h, w, c, *corners, *strides, pixels], np.int64)
    loaded = instructions.run(
        "run_im2col", np.zeros((2, pixels, 64), np.int16), [table, np.array(places, np.int32)], values
    )
    np.testing.assert_array_equal([unswizzled(block) for block in loaded], expected)


TILES = [
    ((96, 40), (64, 64), [(0, 0), (64, 24)]),
    ((72, 200), (64, 128), [(8, 100), (64, 190)]),
    ((72, 5, 30), (64, 1, 64), [(0, 4, 0), (64, 2, 17)]),
    ((64, 9, 300), (64, 1, 128), [(0, 0, 200), (0, 8, 128)]),
]


@pytest.mark.parametrize("size, box, corners", TILES)
def test_tile(instructions, random, size, box, corners) -> None:
    """A box of a dense tensor, its first axis the fastest; what lies outside is zero."""
    values = random.integers(1, 1 << 15, size[::-1], dtype=np.int16)
    around = np.pad(values, [(0, side) for side in box[::-1]])
    cut = [tuple(slice(at, at + side) for at, side in zip(corner, box, strict=True))[::-1] for corner in corners]
    expected = [around[window].reshape(-1, 64) for window in cut]
    three = [(*numbers, 1)[:3] for numbers in (size, box)]
    table = np.array([len(size), *three[0], *three[1]], np.int64)
    places = np.array([[*(*corner, 0)[:3], 0, 0, 0] for corner in corners], np.int32)
    loaded = instructions.run("run_tile", np.zeros((2, len(expected[0]), 64), np.int16), [table, places], values)
    np.testing.assert_array_equal([unswizzled(block) for block in loaded], expected)


def bits(values: np.ndarray, is_bf16: bool) -> np.ndarray:
    if not is_bf16:
        return values.astype(np.float16).view(np.int16)
    return (values.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16).view(np.int16)


@pytest.mark.parametrize("is_bf16", [True, False])
@pytest.mark.parametrize("columns", [64, 128, 256])
@pytest.mark.parametrize("a_mn, b_mn", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("first, count", [(0, 1), (3, 1), (0, 4)])
def test_products(instructions, random, is_bf16, columns, a_mn, b_mn, first, count) -> None:
    """Sums of integers are exact; who holds which is the manual's figure of the accumulator of m64nNk16."""
    a, b = random.integers(-8, 9, (64, 64)), random.integers(-8, 9, (64, columns))  # [m][k], [k][n]
    sums = random.integers(-8, 9, (64, columns)).astype(np.float32)
    in_order = [np.ascontiguousarray(bits(v, is_bf16)) for v in (a.T if a_mn else a, b if b_mn else b.T)]
    register = np.arange(columns // 2)
    row = (16 * (THREADS // 32) + THREADS % 32 // 4)[:, None] + 8 * (register // 2 % 2)
    column = 2 * (THREADS % 4)[:, None] + 8 * (register // 4) + register % 2
    terms = slice(16 * first, 16 * (first + count))
    found = instructions.run(
        "run_products", np.zeros((128, columns // 2), np.float32),
        [int(is_bf16), columns, a_mn, b_mn, first, count], *in_order, sums[row, column],
    )  # fmt: skip
    np.testing.assert_array_equal(found, (sums + a[:, terms] @ b[terms])[row, column])
