"""``python -m spatialconv.study.lesson.record``: run every experiment with five seeds that no other run uses, and write
the figures to ``recorded.json``, from which the limits of the lesson are derived."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence

import torch

from ... import __version__
from .lab import Lab
from .registry import EXPERIMENTS
from .run import RECORD

SEEDS = (100, 101, 102, 103, 104)


def record(names: Sequence[str] = ()) -> None:
    """Record the experiments of those names, or all, in one set of labs; what the file holds of others stays."""
    labs = [Lab(seed) for seed in SEEDS]
    figures = json.loads(RECORD.read_text())["figures"] if RECORD.exists() else {}
    for one in EXPERIMENTS:
        if names and one.name not in names:
            continue
        print(one.name, flush=True)
        measured = [one.run(lab).figures for lab in labs]
        figures[one.name] = {wanted.figure: [found[wanted.figure] for found in measured] for wanted in one.expectations}
        _write({known.name: figures[known.name] for known in EXPERIMENTS if known.name in figures})


def _write(figures: dict[str, dict[str, list[float]]]) -> None:
    content = {
        "made_by": "python -m spatialconv.study.lesson.record",
        "seeds": list(SEEDS),
        "versions": {"spatialconv": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": platform.machine(),
        "figures": figures,
    }
    RECORD.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    import sys

    torch.set_num_threads(1)
    record(sys.argv[1:])
