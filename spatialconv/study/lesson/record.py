"""``python -m spatialconv.study.lesson.record``: run every experiment with five seeds that no other run uses, and write
the figures to ``recorded.json``, from which the limits of the lesson are derived."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence

import torch

from ... import __version__
from .registry import EXPERIMENTS
from .run import RECORD, measure

SEEDS = (100, 101, 102, 103, 104)


def record(names: Sequence[str] = ()) -> None:
    """Record the experiments of those names, or all; what the file holds of others stays."""
    chosen = [one for one in EXPERIMENTS if not names or one.name in names]
    found = measure(chosen, SEEDS, told=lambda name: print(name, flush=True))
    figures = json.loads(RECORD.read_text())["figures"] if RECORD.exists() else {}
    for one in chosen:
        measurements, _ = found[one.name]
        figures[one.name] = {
            wanted.figure: [measured.figures[wanted.figure] for measured in measurements] for wanted in one.expectations
        }
    content = {
        "made_by": "python -m spatialconv.study.lesson.record",
        "seeds": list(SEEDS),
        "versions": {"spatialconv": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": platform.machine(),
        "figures": {one.name: figures[one.name] for one in EXPERIMENTS if one.name in figures},
    }
    RECORD.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    import sys

    torch.set_num_threads(1)
    record(sys.argv[1:])
