"""A user's module from a command line: ``FILE.py:NAME``, or an expression such as ``nn.Conv2d(3, 8, 3)``."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path

import torch

NOTATION = "FILE.py:NAME of a function that returns a module, or an expression that begins with 'nn.'"


def load(text: str) -> torch.nn.Module:
    """The module that a text names. NAME may be a function or class that needs no arguments, or a module; in an
    expression ``nn`` is ``torch.nn``, and ``spatialconv.nn`` holds this library's layers.

    Raises ValueError for a missing file or name, for code that fails, and for what is no module.
    """
    found = _evaluated(text) if text.startswith(("nn.", "spatialconv.", "torch.")) else _from_file(text)
    if not isinstance(found, torch.nn.Module):
        raise ValueError(f"study: model: expected a torch.nn.Module from {text!r}, got {type(found).__name__}")
    return found


def input_shape(text: str) -> tuple[int, int, int, int]:
    """Four positive sizes, N x C x H x W, as in ``1x3x224x224``; ValueError for anything else."""
    parts = text.split("x")
    if len(parts) != 4 or not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"study: input: expected four positive sizes like 1x3x224x224, got {text!r}")
    n, c, h, w = map(int, parts)
    return n, c, h, w


def _evaluated(text: str) -> object:
    import spatialconv.nn

    try:
        return eval(text, {"torch": torch, "nn": torch.nn, "spatialconv": spatialconv})
    except Exception as error:  # the user's own expression may raise anything
        raise ValueError(f"study: model: {text!r} fails: {_reason(error)}") from error


def _from_file(text: str) -> object:
    name, colon, attribute = text.rpartition(":")
    if not colon or not name or not attribute:
        raise ValueError(f"study: model: expected {NOTATION}, got {text!r}")
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"study: model: expected a Python file, there is no {name}")
    spec = importlib.util.spec_from_file_location(f"spatialconv_study_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"study: model: expected a Python file, got {name}")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up by name; files beside it are found as when it is run.
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, attribute):
            known = [one for one, value in vars(module).items() if callable(value) and not one.startswith("_")]
            raise ValueError(f"study: model: {name} has no {attribute}; it has {', '.join(known) or 'no function'}")
        found = getattr(module, attribute)
        return found if isinstance(found, torch.nn.Module) or not callable(found) else found()
    except Exception as error:  # the user's own code may raise anything
        if isinstance(error, ValueError) and str(error).startswith("study: model:"):
            raise
        raise ValueError(f"study: model: {text} fails: {_reason(error)}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))


def _reason(error: Exception) -> str:
    """What went wrong, and the last line that was the user's."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (line {frame.lineno} of {Path(frame.filename).name})"
