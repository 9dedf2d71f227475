"""Loads the compiled part on first use, and says why where it cannot."""

from __future__ import annotations

import ctypes
import functools
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from ... import settings, threads
from . import structs

__all__ = ["build_info", "level", "load", "unavailable"]

LEVELS = ("baseline", "avx2", "avx512")


@functools.cache
def build_info() -> dict[str, Any]:
    """What the installation recorded of its build.

    Keys: ``built``, ``reason`` (None where built), ``version``, and where a compiler was found ``compiler``,
    ``compiler_version``, ``levels`` and ``flags`` (one string per level).
    """
    try:
        return json.loads(Path(__file__).with_name("_build.json").read_text())
    except FileNotFoundError:
        return {"built": False, "reason": f"this copy of spatialconv, {Path(__file__).parents[2]}, was never installed"}


@functools.cache
def _load() -> ModuleType | str:
    info = build_info()
    if not info["built"]:
        return f"The compiled part is missing: {info['reason']}. Mend that, then install spatialconv again."
    try:
        module = importlib.import_module("._C", __package__)
    except ImportError as error:
        return f"The compiled part cannot be loaded: {error}. Install spatialconv again."
    if module.struct_sizes() != (ctypes.sizeof(structs.Conv2d), ctypes.sizeof(structs.Pool2d)):
        return "The compiled part was built from other sources than this Python package. Install spatialconv again."
    module.set_parallel_for(threads.parallel_for_address() or 0)
    return module


def load() -> ModuleType:
    """The compiled module, imported once and joined to torch's thread pool.

    Raises:
        ImportError: With the sentence :func:`unavailable` returns.
    """
    module = _load()
    if isinstance(module, str):
        raise ImportError(module)
    return module


def unavailable() -> str | None:
    """Why the compiled part cannot be used, in a sentence; None where it can."""
    module = _load()
    return module if isinstance(module, str) else None


@functools.cache
def level() -> str:
    """The instruction-set level in use: ``SPATIALCONV_CPU_ISA`` where set, else the best that build and CPU have.

    Raises:
        ImportError: Where the compiled part is missing.
        ValueError: Where the variable names no level, or one that this build or this CPU lacks.
    """
    usable = load().levels()
    asked = settings.cpu_isa()
    if not asked:
        return usable[-1]
    if asked not in LEVELS:
        raise ValueError(f"SPATIALCONV_CPU_ISA={asked!r} is no instruction-set level; known: {', '.join(LEVELS)}")
    if asked not in usable:
        raise ValueError(f"SPATIALCONV_CPU_ISA={asked!r}: this build or this CPU lacks it; usable: {', '.join(usable)}")
    return asked
