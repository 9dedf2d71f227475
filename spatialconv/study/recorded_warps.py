"""Requests recorded from this library's own Triton kernels, interpreted on the CPU: ``python -m
spatialconv.study.recorded_warps PROBLEM KERNEL`` prints them as JSON.

The interpreter shows which elements every block of a kernel loads, not which lane of which warp gets which: a warp is
taken to be 32 neighbours along the block's axis of the shortest step in memory, as Triton lays blocks out for loads,
one element a lane (a compiled kernel may give a lane up to 16 neighbouring bytes).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict

import numpy as np

from ..problem import Conv2dProblem, parse
from .warp import WARP
from .warp_counts import NONE, Requests, of_addresses

# Interpreted, a product takes about a thousand times as long as compiled for a CPU.
MOST_MACS = 3_000_000
KERNELS = ("triton:implicit_gemm", "triton:depthwise")
_OPERANDS = {1: "input", 2: "weight"}


def warps(offsets: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A block's byte offsets, of any shape, as requests [requests, 32] and which lanes ask."""
    offsets, mask = np.atleast_1d(offsets), np.broadcast_to(mask, np.shape(offsets))
    mask = np.atleast_1d(mask)
    axis = _fastest(offsets)
    offsets, mask = np.moveaxis(offsets, axis, -1).ravel(), np.moveaxis(mask, axis, -1).ravel()
    spare = -len(offsets) % WARP
    padded = np.pad(offsets, (0, spare)), np.pad(mask, (0, spare))
    return padded[0].reshape(-1, WARP), padded[1].reshape(-1, WARP)


def _fastest(offsets: np.ndarray) -> int:
    """The axis along which neighbours are nearest but not the same; the last one of a block that is one address."""
    steps = []
    for axis in range(offsets.ndim):
        step = np.abs(np.diff(offsets, axis=axis))
        step = step[step > 0]
        steps.append(float(np.median(step)) if step.size else np.inf)
    return min(reversed(range(offsets.ndim)), key=lambda axis: steps[axis])


def record(problem: Conv2dProblem, kernel: str) -> dict[str, Requests]:
    """Runs a kernel in this process, which must interpret Triton, and gives the requests of 'input', 'weight' and
    'output'. Its blocks are those that a GPU would be given."""
    import torch

    from .. import dispatch
    from ..backends.base import DTYPES, Context
    from ..backends.triton import interpreter
    from ..backends.triton.configs import PROCESSORS, cheapest
    from ..backends.triton.implicit_gemm import ImplicitGemm
    from ..backends.triton.tilings import TILINGS
    from ..shapes import memory_format

    chosen = dispatch.kernel(kernel)
    context = Context(precision=chosen.tier)
    options = {}
    if isinstance(chosen, ImplicitGemm):
        tiling = TILINGS[problem.op](problem)
        options["config"] = cheapest(chosen.configs(problem, context), tiling.programs, tiling.depth, PROCESSORS)
    plan = chosen.plan(problem, context, **options)
    x, w = (torch.ones(size, dtype=DTYPES[problem.dtype]) for size in (problem.input_shape, problem.weight_shape))
    with interpreter.recorded() as accesses:
        plan(x.contiguous(memory_format=memory_format(problem.layout)), w, None)
    found = dict.fromkeys(("input", "weight", "output"), NONE)
    for access in accesses:
        name = "output" if access.what == "store" else _OPERANDS[access.tensor]
        found[name] += of_addresses(*warps(access.offsets, access.mask), access.itemsize)
    return found


def recorded(problem: Conv2dProblem, kernel: str) -> dict[str, Requests]:
    """The same from a process of its own. Raises ValueError where the kernel does not take the problem, or it is too
    large to be interpreted, and RuntimeError where Triton is missing."""
    if problem.op != "conv2d":
        raise ValueError(f"study: warp: expected a forward convolution, got {problem}")
    if problem.flops() // 2 > MOST_MACS:
        raise ValueError(
            f"study: warp: expected at most {MOST_MACS:,} multiplications to interpret, got {problem.flops() // 2:,}"
        )
    command = [sys.executable, "-m", "spatialconv.study.recorded_warps", str(problem.replace(device="cpu")), kernel]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise RuntimeError(f"study: warp: interpreting {kernel} failed: {last}")
    answer = json.loads(done.stdout)
    if "refused" in answer:
        raise ValueError(f"study: warp: {kernel} does not take {problem}: {answer['refused']}")
    return {name: Requests(**values) for name, values in answer.items()}


def main(text: str, kernel: str) -> None:
    from .. import dispatch
    from ..backends.base import Context
    from ..backends.triton import launch

    problem = parse(text)
    reasons = [launch.unavailable()] if launch.unavailable() else []
    if kernel not in KERNELS:
        reasons.append(f"expected one of {', '.join(KERNELS)}")
    if not reasons:
        reasons = dispatch.reasons_against(kernel, problem, Context(precision=dispatch.kernel(kernel).tier))
    if reasons:
        print(json.dumps({"refused": "; ".join(map(str, reasons))}))
        return
    print(json.dumps({name: asdict(requests) for name, requests in record(problem, kernel).items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
