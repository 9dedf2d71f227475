"""torch's own thread pool, for kernels that are not torch's: the C function ``torch_parallel_for`` of libtorch.

Kernels that run on it obey ``torch.set_num_threads`` and never compete with torch's operators for the processor. Its
address is obtained here alone.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from pathlib import Path

import torch

__all__ = ["check", "missing_reason", "parallel_for_address"]


@functools.cache
def _libtorch() -> ctypes.CDLL | str:
    """The library torch has already loaded, or why it cannot be opened."""
    name = {"darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}.get(sys.platform, "libtorch_cpu.so")
    path = Path(torch.__file__).parent / "lib" / name
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        return f"{path} cannot be opened: {error}"


@functools.cache
def parallel_for_address() -> int | None:
    """The address of ``torch_parallel_for``; None where torch has none, and kernels then run serially."""
    library = _libtorch()
    if isinstance(library, str) or not hasattr(library, "torch_parallel_for"):
        return None
    return ctypes.cast(library.torch_parallel_for, ctypes.c_void_p).value


def missing_reason() -> str | None:
    """Why there is no thread pool, or None where there is one."""
    if parallel_for_address() is not None:
        return None
    library = _libtorch()
    return library if isinstance(library, str) else f"torch {torch.__version__} has no function torch_parallel_for"


def check(rc: int) -> None:
    """Raises RuntimeError, in torch's own words where it tells them, unless ``rc`` is 0.

    Args:
        rc: What ``torch_parallel_for`` returned in this thread.
    """
    if rc == 0:
        return
    library = _libtorch()
    if not isinstance(library, str) and hasattr(library, "torch_exception_get_what_without_backtrace"):
        what = library.torch_exception_get_what_without_backtrace
        what.restype = ctypes.c_char_p
        if text := what():
            raise RuntimeError(f"torch's thread pool failed: {text.decode(errors='replace')}")
    raise RuntimeError(f"torch's thread pool failed with code {rc}")
