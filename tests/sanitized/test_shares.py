"""How tasks are shared out among threads, by itself, under the sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from emulated.build import SANITIZERS
from sanitized import build

SOURCE = Path(__file__).with_name("shares.cpp")

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler to build with")


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_every_task_is_done_once_and_no_thread_is_waited_for(sanitizer):
    program = build.small_program(SOURCE, sanitizer)
    answer = subprocess.run([program], capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0 and answer.stdout == "ok\n", answer.stdout + answer.stderr[-4000:]
