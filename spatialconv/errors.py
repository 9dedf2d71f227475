"""Exceptions and the warning, and the one form of every message about a bad argument: op, argument, expected, got."""

from __future__ import annotations


class BackendUnavailableError(RuntimeError):
    """A backend was asked for that cannot run on this machine; the message says why."""


class UnsupportedProblemError(NotImplementedError):
    """No kernel that may be used takes the problem; the message lists each kernel's reasons."""


class ReferenceFallbackWarning(UserWarning):
    """An automatic choice ended at the slow reference backend; given once for every op, dtype and device."""


def argument_error(
    op: str, argument: str, expected: str, got: object, kind: type[Exception] = RuntimeError
) -> Exception:
    """The exception for a bad argument, of the type that torch's own op raises."""
    return kind(f"spatialconv.{op}: {argument}: expected {expected}, got {got}")
