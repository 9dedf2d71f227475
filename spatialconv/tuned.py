"""This machine's measured choices, written by ``spatialconv tune`` and read once, as JSON in the user's cache
folder."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from . import settings
from .backends.base import Context
from .problem import Problem

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

FORMAT = 1


def path() -> Path:
    """Where the table of this machine and version of the package lies."""
    return settings.cache_folder() / "tuned.json"


def machine() -> dict[str, str]:
    """What a measured table must agree with to be believed."""
    from . import __version__

    return {
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "node": platform.node(),
        "spatialconv": __version__,
    }


def key(problem: Problem, context: Context) -> str:
    """The row of a problem: a choice depends on the threads and the instruction set too."""
    return f"{problem} threads{context.threads} {context.isa} {context.precision}"


@cache
def _table() -> dict[str, str]:
    return _read()


def _read() -> dict[str, str]:
    file = path()
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("machine") != machine():
        return {}
    choices = content.get("choices")
    return choices if isinstance(choices, dict) else {}


def lookup(problem: Problem, context: Context) -> str | None:
    """The kernel measured to be the fastest, 'backend:kernel', or None; an activation that was not measured decides
    nothing."""
    found = _table().get(key(problem, context))
    if found is None and getattr(problem, "activation", None) is not None:
        return _table().get(key(problem.replace(activation=None), context))
    return found


def save(choices: dict[str, str], measured: Iterable[str] = ()) -> bool:
    """Put choices into the table and take out what it said of other keys measured; whether that changed anything.

    The file is whole at every moment, and processes that save at once lose nothing of each other's.
    """
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True)
    with _lock(file):
        before = _read()
        gone = set(measured)
        after = {name: choice for name, choice in before.items() if name not in gone} | choices
        if after != before:
            content = {"format": FORMAT, "machine": machine(), "choices": after}
            scratch = file.with_name(f"{file.name}.{os.getpid()}")
            scratch.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
            os.replace(scratch, file)
    forget()
    return after != before


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    """One process at a time, where the system has such locks."""
    with file.with_name(f"{file.name}.lock").open("w") as handle:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def forget() -> None:
    """Read the table anew at the next look-up."""
    _table.cache_clear()
