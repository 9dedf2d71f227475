"""What a call costs beside torch's, on tensors so small that nothing else counts: ``python benchmarks/call_cost.py``.

One thread, both sides in turn, the least of many short blocks, in microseconds a call; ``--json FILE`` keeps them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table

import spatialconv
from spatialconv.bench import results

GOALS = {"no_grad": 1.25, "forward with grad": 2.0, "forward and backward": 1.3, "layer, no_grad": 1.2}


def calls() -> dict[str, tuple[bool, Callable, Callable]]:
    """By name: whether gradients are recorded, torch's call, ours."""
    one = (1, 1)
    image, weight, grad = torch.rand(1, 1, 4, 4), torch.rand(1, 1, 3, 3), torch.rand(1, 1, 4, 4)
    leaf, parameter = image.clone().requires_grad_(), torch.nn.Parameter(weight.clone())
    theirs, ours = torch.nn.Conv2d(1, 1, 3, padding=1), spatialconv.nn.Conv2d(1, 1, 3, padding=1)

    def backward(conv2d: Callable) -> Callable:
        wanted = (leaf, parameter)
        return lambda: torch.autograd.grad(conv2d(leaf, parameter, None, one, one, one, 1), wanted, grad)

    both = F.conv2d, spatialconv.conv2d
    plain = [lambda f=f: f(image, weight, None, one, one, one, 1) for f in both]
    recorded = [lambda f=f: f(leaf, parameter, None, one, one, one, 1) for f in both]
    return {
        "no_grad": (False, *plain),
        "forward with grad": (True, *recorded),
        "forward and backward": (True, *map(backward, both)),
        "layer, no_grad": (False, lambda: theirs(image), lambda: ours(image)),
        "layer with grad": (True, lambda: theirs(leaf), lambda: ours(leaf)),
        "max_pool2d": (False, lambda: F.max_pool2d(image, 2), lambda: spatialconv.max_pool2d(image, 2)),
        "avg_pool2d": (False, lambda: F.avg_pool2d(image, 2), lambda: spatialconv.avg_pool2d(image, 2)),
    }


def least(functions: list[Callable], rounds: int, block: int = 20) -> list[float]:
    """Microseconds a call of each function, the least over the rounds, in which they take turns."""
    found = [float("inf")] * len(functions)
    for _ in range(rounds):
        for position, function in enumerate(functions):
            start = time.perf_counter()
            for _ in range(block):
                function()
            found[position] = min(found[position], (time.perf_counter() - start) / block * 1e6)
    return found


def main(
    json: Annotated[Path | None, typer.Option(help="where to keep the figures")] = None,
    rounds: Annotated[int, typer.Option(help="blocks of 20 calls each")] = 300,
) -> None:
    torch.set_num_threads(1)
    table = Table("call", "torch", "ours", "ours / torch", "goal", title="microseconds a call")
    rows = []
    for name, (recorded, theirs, ours) in calls().items():
        with torch.set_grad_enabled(recorded):
            least([theirs, ours], 5)
            torch_time, our_time = least([theirs, ours], rounds)
        ratio, goal = our_time / torch_time, GOALS.get(name)
        rows.append({"call": name, "torch_us": torch_time, "ours_us": our_time, "ratio": ratio, "goal": goal})
        table.add_row(name, f"{torch_time:.2f}", f"{our_time:.2f}", f"{ratio:.2f}", "" if goal is None else f"{goal}")
    Console().print(table)
    if json is not None:
        json.write_text(dumps({"head": results.head({"threads": 1, "rounds": rounds}), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
