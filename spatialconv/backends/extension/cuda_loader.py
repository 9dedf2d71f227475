"""Loads the module of the CUDA kernels on first use, and says why where it cannot."""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

from . import loader, structs

__all__ = ["load", "multiprocessors", "stream_of", "unavailable", "use"]


class _Stand:
    """The module that stands in for the built one, and the number of multiprocessors of its device."""

    module: ModuleType | None = None
    multiprocessors: int = 0


@functools.cache
def _load() -> ModuleType | str:
    record = loader.build_info().get("cuda", {"built": False, "reason": "install spatialconv again"})
    if not record["built"]:
        return f"The CUDA kernels are not built: {record['reason']}."
    try:
        module = importlib.import_module("._CUDA", __package__)
    except ImportError as error:
        return f"The CUDA kernels cannot be loaded: {error}. Install spatialconv again."
    if module.struct_sizes() != (ctypes.sizeof(structs.Conv2d), ctypes.sizeof(structs.Pool2d)):
        return "The CUDA kernels were built from other sources than this Python package. Install spatialconv again."
    return module


@functools.cache
def _device_missing() -> str | None:
    """Why the module that is built and loaded finds no device, or None."""
    module = _load()
    assert not isinstance(module, str)
    driver, runtime = module.driver()
    if driver == 0:
        return "This machine has no CUDA driver."
    # Within one major version any driver runs what any runtime was built for.
    if driver // 1000 < runtime // 1000:
        return (
            f"The CUDA driver is too old: it is of CUDA {_version(driver)}, the kernels were built with "
            f"{_version(runtime)}. Install a newer driver, or build with an older nvcc."
        )
    if not torch.cuda.is_available():
        built = f"torch was built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch was built without it"
        return f"torch has no CUDA device here: {built}."
    return None


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def unavailable() -> str | None:
    """Why the CUDA kernels cannot be used, in a sentence; None where they can."""
    if _Stand.module is not None:
        return None
    module = _load()
    return module if isinstance(module, str) else _device_missing()


def load() -> ModuleType:
    """The module of the CUDA kernels.

    Raises:
        ImportError: With the sentence :func:`unavailable` returns.
    """
    if _Stand.module is not None:
        return _Stand.module
    if reason := unavailable():
        raise ImportError(reason)
    return _load()


def multiprocessors(index: int) -> int:
    """How many multiprocessors a device has."""
    return _Stand.multiprocessors or _multiprocessors(index)


@functools.cache
def _multiprocessors(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count


def stream_of(tensor: torch.Tensor) -> tuple[int, int]:
    """The device of a tensor and torch's current stream there, as numbers; (0, 0) for the CPU tensors of a twin."""
    if not tensor.is_cuda:
        return 0, 0
    index = tensor.get_device()
    return index, torch._C._cuda_getCurrentRawStream(index)


@contextmanager
def use(module: ModuleType, multiprocessors: int) -> Iterator[None]:
    """For tests: within the block the kernels are those of another build, such as one over the emulator, whose
    operands are CPU tensors. Plans made before keep their module."""
    before = _Stand.module, _Stand.multiprocessors
    _Stand.module, _Stand.multiprocessors = module, multiprocessors
    try:
        yield
    finally:
        _Stand.module, _Stand.multiprocessors = before
