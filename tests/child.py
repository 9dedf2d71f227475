"""A new Python process, as a user starts one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Collection


def python(
    *arguments: str, drop: Collection[str] = (), given: str = "", timeout: float = 600, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs ``python *arguments`` with these environment variables and without the dropped ones; it reads what is given.

    It runs in a folder without a source tree, which Python would import in place of the installed package.
    """
    environment = {name: value for name, value in os.environ.items() if name not in drop} | variables
    return subprocess.run(
        [sys.executable, *arguments], cwd=tempfile.gettempdir(), env=environment, input=given, capture_output=True,
        text=True, timeout=timeout, check=False,
    )  # fmt: skip


def printed(*arguments: str, **options) -> str:
    """What such a process prints; it must end well."""
    done = python(*arguments, **options)
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout
