"""This machine's measured choices, written by ``spatialconv tune`` and read once, as JSON in the user's cache
folder."""

from __future__ import annotations

import json
import platform
from functools import cache
from pathlib import Path

import torch

from . import settings
from .backends.base import Context
from .problem import Problem

FORMAT = 1


def path() -> Path:
    """Where the table of this machine, torch and package lies."""
    return settings.cache_folder() / "tuned.json"


def machine() -> dict[str, str]:
    """What a measured table must agree with to be believed."""
    return {"cpu": torch.backends.cpu.get_cpu_capability(), "machine": platform.machine(), "node": platform.node()}


def key(problem: Problem, context: Context) -> str:
    """The row of a problem: a choice depends on the threads and the instruction set too."""
    return f"{problem} threads{context.threads} {context.isa} {context.precision}"


@cache
def _table() -> dict[str, str]:
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
    """The kernel measured to be the fastest, 'backend:kernel', or None."""
    return _table().get(key(problem, context))


def save(choices: dict[str, str]) -> Path:
    """Merge measured choices into the table; returns where it lies."""
    merged = {**_table(), **choices}
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "machine": machine(), "choices": merged}
    file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    forget()
    return file


def forget() -> None:
    """Read the table anew at the next look-up."""
    _table.cache_clear()
