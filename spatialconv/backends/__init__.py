"""The backends by name; each is imported on first use."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from .base import Backend

NAMES = ("extension", "numba", "triton", "reference")


@cache
def load(name: str) -> Backend:
    """The backend of that name, which must be one of ``NAMES``."""
    return import_module(f"{__name__}.{name}").BACKEND
