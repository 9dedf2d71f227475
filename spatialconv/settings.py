"""Every environment variable the package reads, each read once."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

ENVIRONMENT = {
    "SPATIALCONV_BACKEND": "backend or kernel to use where neither backend= nor use_backend() says (default: auto)",
    "SPATIALCONV_CPU_ISA": "instruction-set level of the extension: baseline, avx2, avx512 (default: the best here)",
    "SPATIALCONV_EMULATE_DOTS": "amx_bf16, avx512_bf16: extension:dots runs on twins of its instructions (default: no)",
    "SPATIALCONV_CACHE": "folder of measured tables and of Numba's machine code (default: the user's cache folder)",
    "SPATIALCONV_CUDA": "at install: 1 builds the CUDA kernels, 0 does not (default: where nvcc and a driver are)",
    "SPATIALCONV_REQUIRE_EXT": "at install: 1 makes a failed build of the extension an error (default: 0)",
}


# The request where neither backend= nor use_backend() says; a plain name, since compiled code reads it.
DEFAULT_BACKEND = os.environ.get("SPATIALCONV_BACKEND", "").strip() or "auto"


@cache
def cpu_isa() -> str | None:
    """The level in SPATIALCONV_CPU_ISA, or None for the best one."""
    return os.environ.get("SPATIALCONV_CPU_ISA", "").strip() or None


@cache
def emulate_dots() -> str | None:
    """The instruction set in SPATIALCONV_EMULATE_DOTS, or None for the processor's own."""
    return os.environ.get("SPATIALCONV_EMULATE_DOTS", "").strip() or None


@cache
def cache_folder() -> Path:
    """Where measured tables and Numba's machine code are kept."""
    chosen = os.environ.get("SPATIALCONV_CACHE", "").strip()
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME", "").strip()
    return (Path(base) if base else Path.home() / ".cache") / "spatialconv"
