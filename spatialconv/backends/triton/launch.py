"""Whether Triton runs here, the modules of kernels on first use, and launches that are cheap when repeated.

A module that defines kernels imports triton; everything else in this folder is imported without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

OLDEST = (3, 6)
Grid = tuple[int, ...]


@cache
def unavailable() -> str | None:
    """Why no kernel can run in this process, in a sentence; None where it can."""
    if find_spec("triton") is None:
        return "triton is not installed: pip install triton"
    try:
        triton = import_module("triton")
    except Exception as error:  # a wheel of another platform or Python fails with errors of several types
        return f"triton is installed but cannot be imported: {error}"
    if tuple(map(int, triton.__version__.split(".")[:2])) < OLDEST:
        return f"triton {triton.__version__} is too old, {'.'.join(map(str, OLDEST))} is the oldest that serves"
    if interpreting() or torch.cuda.is_available():
        return None
    return "torch sees no CUDA device; with TRITON_INTERPRET=1 in the environment the kernels run, slowly, on the CPU"


@cache
def interpreting() -> bool:
    """Whether Triton interprets kernels on CPU tensors. Asked once: it is settled when a kernel is defined."""
    return bool(import_module("triton").knobs.runtime.interpret)


def device() -> str:
    """Where the tensors have to be."""
    return "cpu" if interpreting() else "cuda"


@cache
def module(name: str) -> ModuleType:
    """A module of this folder that defines kernels."""
    if interpreting():
        import_module(f"{__package__}.interpreter").mend()
    return import_module(f"{__package__}.{name}")


class Launch:
    """A kernel with everything bound but its tensors, with which it is called.

    The kernel takes its tensors first, then integers, then constants. Of what decides which machine code serves, only
    the device and the tensors' alignment to 16 bytes can change between calls, so Triton's own way to the code, which
    looks at every argument and takes longer than small problems run, is gone once for each of their combinations.
    """

    def __init__(
        self,
        function: Callable,
        grid: Grid,
        integers: tuple[int, ...],
        constants: Mapping[str, object],
        num_warps: int,
        num_stages: int,
    ) -> None:
        names = function.arg_names[-len(constants) :] if constants else []
        self.function = function
        self.grid = (*grid, *[1] * (3 - len(grid)))
        self.integers = integers
        self.constants = tuple(constants[name] for name in names)
        self.options = {"num_warps": num_warps, "num_stages": num_stages}
        self._compiled: dict[tuple, Callable] = {}

    def specialization(self, *types: str | None) -> tuple[dict[str, str], dict[str, object], list[str]]:
        """What Triton compiles for a call with tensors of these pointer types at multiples of 16 bytes: the types of
        the arguments, those that are constants, and those that are multiples of 16."""
        integers = len(types) + len(self.integers)
        names = self.function.arg_names
        tensors = dict(zip(names, types, strict=False))
        numbers = dict(zip(names[len(types) : integers], self.integers, strict=True))
        signature = {name: pointer for name, pointer in tensors.items() if pointer is not None}
        signature |= {name: "i32" if value < 2**31 else "i64" for name, value in numbers.items() if value != 1}
        constants = dict(zip(names[integers:], self.constants, strict=True))
        constants |= {name: value for name, value in (tensors | numbers).items() if value is None or value == 1}
        aligned = [name for name in signature if name in tensors or numbers[name] % 16 == 0]
        return signature, constants, aligned

    def __call__(self, *tensors: Tensor | None) -> None:
        first = tensors[0]
        if not first.is_cuda:
            self.function[self.grid](*tensors, *self.integers, *self.constants, **self.options)
            return
        index = first.get_device()
        if index == torch.cuda.current_device():
            self._launch(index, tensors)
        else:
            with torch.cuda.device(index):
                self._launch(index, tensors)

    def _launch(self, index: int, tensors: tuple[Tensor | None, ...]) -> None:
        key = (index, *[tensor is not None and tensor.data_ptr() % 16 == 0 for tensor in tensors])
        run = self._compiled.get(key)
        if run is not None:
            run(*tensors, *self.integers, *self.constants)
            return
        compiled = self.function[self.grid](*tensors, *self.integers, *self.constants, **self.options)
        self._compiled[key] = compiled[self.grid]
