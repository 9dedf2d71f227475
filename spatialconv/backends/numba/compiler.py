"""Compiles a kernel on its first use, one element type at a time, and keeps the machine code on disk.

A kernel is a plain function ``f(begin, end, context)`` of one of this folder's modules. ``context`` points to the int64
fields of ``fields.py``; its declared element type, float32 or float64, is that of the tensors.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from ... import settings, threads

__all__ = ["Compiled", "cache_folder", "compiled", "unavailable"]

Body = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
ParallelFor = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p
)
OLDEST = (0, 61)
_logger = logging.getLogger("spatialconv")
_lock = threading.RLock()


@functools.cache
def unavailable() -> str | None:
    """Why nothing can be compiled in this process, in a sentence; None where it can."""
    if find_spec("numba") is None:
        return "numba is not installed: pip install 'spatialconv[all]'"
    try:
        numba = import_module("numba")
    except Exception as error:  # numba refuses versions of numpy and Python with errors of several types
        return f"numba is installed but cannot be imported: {error}"
    if tuple(map(int, numba.__version__.split(".")[:2])) < OLDEST:
        return f"numba {numba.__version__} is too old, {'.'.join(map(str, OLDEST))} is the oldest that serves"
    return None


@functools.cache
def cache_folder() -> Path | None:
    """Where machine code is kept: one folder per state of the sources and version of numba, since numba itself notices
    only a change of the file that holds a kernel's outermost function. None where the user's own NUMBA_CACHE_DIR rules.
    """
    numba = import_module("numba")
    if numba.config.CACHE_DIR:
        return None
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return settings.cache_folder() / "numba" / digest.hexdigest()[:16]


def _can_keep(folder: Path | None) -> bool:
    """Whether machine code may be kept. Numba would turn to other folders, in which code of older sources may lie."""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return True


@contextmanager
def _cached_below(folder: Path | None) -> Iterator[None]:
    """Functions decorated in the block are cached in the folder, all others where they were."""
    config = import_module("numba").config
    before = config.CACHE_DIR
    if folder is not None:
        config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before


def _alone(folder: Path | None, name: str) -> AbstractContextManager:
    """Of processes that first use a kernel at the same time, as the ranks of a training do, one compiles it and the
    others wait for its code; where files cannot be locked each compiles its own."""
    if folder is None:
        return nullcontext()
    lock = FileLock(folder / f"{name}.lock")
    try:
        return lock.acquire()
    except (OSError, NotImplementedError):
        return nullcontext()


class Compiled:
    """A compiled kernel: ``run(tasks, grain, context)`` over torch's thread pool, without the interpreter's lock."""

    def __init__(self, function: object) -> None:
        self.function = function  # keeps the machine code alive
        self.address: int = function.address
        self._body = Body(self.address)
        pool = threads.parallel_for_address()
        self._pool = ParallelFor(pool) if pool is not None else None

    def run(self, tasks: int, grain: int, context: int) -> None:
        """Runs every task of [0, tasks), at least ``grain`` of them in one thread. Raises RuntimeError with the pool's
        words where it fails."""
        if self._pool is None or tasks <= grain:
            self._body(0, tasks, context)
            return
        code = self._pool(0, tasks, grain, self.address, context)
        if code:
            threads.check(code)


@functools.cache
def _first_use() -> None:
    folder = cache_folder()
    where = "NUMBA_CACHE_DIR" if folder is None else folder
    _logger.warning("spatialconv: numba kernels are compiled on first use, once; machine code is kept in %s", where)


@functools.cache
def _compile(module: str, name: str, dtype: str) -> Compiled:
    numba = import_module("numba")
    element = {"f32": numba.types.float32, "f64": numba.types.float64}[dtype]
    integer = numba.types.int64
    signature = numba.types.void(integer, integer, numba.types.CPointer(element))
    began = time.perf_counter()
    folder = cache_folder()
    keeps = _can_keep(folder)
    with _cached_below(folder), _alone(folder, f"{module}.{name}.{dtype}") if keeps else nullcontext():
        function: Callable = getattr(import_module(f".{module}", __package__), name)
        try:
            made = numba.cfunc(signature, cache=keeps, error_model="numpy", fastmath={"contract"})(function)
        except RuntimeError:  # neither the user's folder nor any other can be written to
            made = numba.cfunc(signature, error_model="numpy", fastmath={"contract"})(function)
    if not getattr(made, "cache_hits", 0):
        _first_use()
        _logger.info("spatialconv: compiled numba:%s %s in %.1f s", name, dtype, time.perf_counter() - began)
    return Compiled(made)


def compiled(module: str, name: str, dtype: str) -> Compiled:
    """The function of that name in that module of this folder, compiled for an element type ('f32' or 'f64')."""
    with _lock:
        return _compile(module, name, dtype)
