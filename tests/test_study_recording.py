"""What shipped C++ kernels touch: recordings against torch, against the problem, and against the kernels' nests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from spatialconv.backends.extension import loader
from spatialconv.backends.reference import REFERENCE
from spatialconv.study import shape
from spatialconv.study.kernel_nests import kernel_nest
from spatialconv.study.recording import build
from spatialconv.study.recording.record import record

CSRC = Path(__file__).resolve().parents[1] / "csrc"
