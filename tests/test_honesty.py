"""Kernels do their own work: no convolution, pooling or matrix product of torch's or of a vendor's library in them."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from operands import place, values
from torch.utils._python_dispatch import TorchDispatchMode

from spatialconv import dispatch
from spatialconv.backends import allocation
from spatialconv.backends.base import DTYPES
from spatialconv.backends.extension import loader
from spatialconv.problem import parse

VIEWS = {"as_strided", "view", "reshape", "_unsafe_view", "expand", "permute", "transpose", "t", "slice", "select"}
VIEWS |= {"unsqueeze", "squeeze", "alias", "detach", "unfold", "flatten", "mT", "numpy_T", "split", "unbind"}
MEMORY = {"empty", "empty_strided", "empty_like", "new_empty", "copy_", "clone", "contiguous", "_to_copy", "to", "pad"}
MEMORY |= {"constant_pad_nd", "new_empty_strided"}
# Functions of each element, which a plan may apply in place to what its kernel has stored.
EPILOGUES = {"relu_", "hardtanh_", "hardswish_", "silu_", "gelu_"}
ALLOWED = {
    "extension": VIEWS | MEMORY,
    "numba": VIEWS | MEMORY,
    # Triton's interpreter looks at its operands through tensors set to their memory.
    "triton": VIEWS | MEMORY | {"set_"},
    "reference": VIEWS | MEMORY | {
        "mm", "bmm", "matmul", "sum", "add", "add_", "mul", "div", "zeros", "new_zeros", "zero_", "fill_", "new_full",
        "full", "full_like", "zeros_like", "ones_like", "scalar_tensor", "lift_fresh", "where", "gt", "ne", "eq",
        "bitwise_and", "bitwise_or", "index", "index_add", "gather", "scatter_add", "im2col", "col2im", "minimum",
    },
}  # fmt: skip
CONV = "n2 ic4 ih7 iw9 oc6 kh3 kw3 sh2 ph1 pw1 g2"
DEPTHWISE = "n2 ic6 ih7 iw9 oc6 kh3 kw3 ph1 pw1 g6"
POOL = "n2 ic3 ih8 iw9 kh3 kw3 sh2 sw2 ph1 pw1"
# The CUDA kernels are watched where they run: emulated/test_cells_emulated.py.
KERNELS = [
    (op, name) for op, names in dispatch.TABLE.items() for name in names if not name.startswith("extension:cuda_")
]


class Calls(TorchDispatchMode):
    """The names of the aten ops that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


def watched_empty(shape: tuple[int, ...], steps: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """What allocates below all modes, as an op that they see."""
    return torch.empty_strided(shape, steps, dtype=dtype)


def seen_ops(op: str, name: str, text: str, dtype: str, layout: str, memory: str) -> set[str]:
    problem = parse(f"{op} {text} {dtype} {layout}")
    if op == "max_pool2d":
        problem = problem.replace(indices=True)
    context = replace(dispatch.current_context("cpu"), precision=dispatch.kernel(name).tier)
    if dispatch.reasons_against(name, problem, context):
        return set()
    wide, _ = values(problem.replace(dtype="f64", layout="nchw"), dtype, "normal", False)
    operands = [
        tensor if tensor is None or tensor.dtype == torch.int64 else place(tensor, DTYPES[dtype], layout, memory)
        for tensor in wide
    ]
    plan = dispatch.kernel(name).plan(problem, context)
    with Calls() as calls, pytest.MonkeyPatch.context() as patch:
        patch.setattr(allocation, "empty_strided", watched_empty)
        plan(*operands)
    assert calls.names, "nothing was seen: the plan was not watched"
    return calls.names


@pytest.mark.parametrize(("op", "name"), KERNELS, ids=[" ".join(pair) for pair in KERNELS])
def test_a_kernel_calls_only_what_its_backend_may(op: str, name: str) -> None:
    seen = set()
    texts = (
        [CONV, DEPTHWISE, "n1 ic4 ih5 iw5 oc6", "n2 ic4 ih5 iw7 oc6 kh3 kw3 ph1 pw1"]
        if "conv2d" in op
        else [POOL, "n2 ic3 ih7 iw7 kh2 kw2 ceil"]
    )
    for text in texts:
        for dtype in ("f32", "bf16"):
            for layout in ("nchw", "nhwc"):
                for memory in ("dense", "transposed"):
                    seen |= seen_ops(op, name, text, dtype, layout, memory)
    assert seen and seen <= ALLOWED[name.partition(":")[0]], seen - ALLOWED[name.partition(":")[0]]


@pytest.mark.parametrize("vendor", ["conv2d", "max_pool2d", "avg_pool2d", "linear"])
def test_a_vendor_kernel_would_be_seen(vendor: str) -> None:
    x = torch.randn(1, 2, 6, 6)
    functional = torch.nn.functional
    calls = {
        "conv2d": lambda: functional.conv2d(x, torch.randn(3, 2, 3, 3)),
        "max_pool2d": lambda: functional.max_pool2d(x, 2),
        "avg_pool2d": lambda: functional.avg_pool2d(x, 2),
        "linear": lambda: functional.linear(x, torch.randn(3, 6)),
    }
    with Calls() as seen:
        calls[vendor]()
    assert not seen.names <= ALLOWED["extension"]


def elf_dynamics(path: Path) -> tuple[set[str], set[str]]:
    """The undefined symbols and the needed libraries of a 64-bit little-endian ELF file."""
    data = path.read_bytes()
    assert data[:6] == b"\x7fELF\x02\x01"
    offset, size, count = struct.unpack_from("<Q", data, 40)[0], *struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, offset + index * size) for index in range(count)]

    def text(table: int, start: int) -> str:
        begin = sections[table][4] + start
        return data[begin : data.index(b"\0", begin)].decode()

    undefined, needed = set(), set()
    for _, kind, _, _, start, length, link, _, _, _ in sections:
        if kind == 11:
            for position in range(start, start + length, 24):
                name, _, _, section = struct.unpack_from("<IBBH", data, position)
                if section == 0 and name:
                    undefined.add(text(link, name))
        elif kind == 6:
            for position in range(start, start + length, 16):
                tag, value = struct.unpack_from("<QQ", data, position)
                if tag == 1:
                    needed.add(text(link, value))
    return undefined, needed


FORBIDDEN = (
    "blas",
    "mkl",
    "dnnl",
    "torch",
    "c10",
    "aten",
    "gomp",
    "omp_",
    "kmp",
    "cudnn",
    "cublas",
    "openblas",
    "sgemm",
)


def forbidden(names: set[str]) -> set[str]:
    return {name for name in names if any(word in name.lower() for word in FORBIDDEN)}


def test_the_compiled_module_needs_nothing_of_a_vendor() -> None:
    """It links no library but the C and C++ runtime, and no symbol of a vendor's, torch's or OpenMP's stands open."""
    path = Path(loader.load().__file__)
    if path.read_bytes()[:4] != b"\x7fELF":
        pytest.skip("reads ELF files only, and this platform has another format")
    undefined, needed = elf_dynamics(path)
    assert "PyModuleDef_Init" in undefined
    assert forbidden(undefined) == set()
    assert {name.partition(".so")[0] for name in needed} <= {"libc", "libm", "libpthread", "libdl", "ld-linux-x86-64"}
    strange = {name for name in undefined if "gomp" in name.lower() or name.startswith("_ZN2at")}
    assert not strange


def test_a_vendors_symbol_would_be_found() -> None:
    library = next(iter(Path(torch.__file__).parent.glob("lib/libtorch_python.so")), None)
    if library is None:
        pytest.skip("this torch has no libtorch_python.so to read")
    undefined, needed = elf_dynamics(library)
    assert forbidden(undefined) and forbidden(needed)
