"""Launches of Triton kernels on a driver that records: a repeated call hands over what Triton's own way does."""

from __future__ import annotations

import json
from importlib.util import find_spec

import child
import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")

# Compiles for sm_90, which needs no GPU, in a process that does not interpret.
SCRIPT = """
import json, sys
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from spatialconv.backends.triton.configs import Config
from spatialconv.backends.triton.tilings import TILINGS
from spatialconv.problem import parse

launched, loaded = [], []

class Launcher:
    def __init__(self, source, metadata):
        pass
    def __call__(self, x, y, z, stream, function, packed, metadata, enter, leave, *arguments):
        launched.append((x, y, z, stream, function, packed, arguments))

class Utils:
    def get_device_properties(self, device):
        return {"max_shared_mem": 232448, "multiprocessor_count": 132}
    def load_binary(self, name, kernel, shared, device):
        loaded.append(name)
        return "module", f"{name} {len(loaded)}", 0, 0, 1024

class Driver:
    launcher_cls, utils = Launcher, Utils()
    device = 0
    def get_current_device(self):
        return self.device
    def get_current_stream(self, device):
        return 7
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

class OnDevice:
    is_cuda, dtype = True, torch.bfloat16
    def __init__(self, address):
        self.address = address
    def get_device(self):
        return Driver.device
    def data_ptr(self):
        return self.address

driver.set_active(Driver())
torch.cuda.current_device = lambda: Driver.device
problem = parse(sys.argv[1])
launch = TILINGS[problem.op](problem).launches(Config(16, 16, 16, 1, 3), "ieee")[0]
aligned = [OnDevice(4096 * place) for place in range(1, 4)]
moved = [OnDevice(4096 * place + 2) for place in range(1, 4)]
if problem.op == "conv2d":
    aligned.insert(2, None)
    moved.insert(2, None)
for tensors in (aligned, aligned, moved, moved, aligned):
    launch(*tensors)
first, second, third, fourth, fifth = launched
print(json.dumps({
    "repeated as at first": first == second == fifth and third == fourth,
    "code by alignment": first[4] != third[4],
    "grid": first[:3],
    "stream": first[3],
    "tensors": first[6][: len(aligned)] == tuple(aligned) and third[6][: len(moved)] == tuple(moved),
    "arguments": len(first[6]) == len(launch.function.arg_names),
    "loaded": len(loaded),
}))
"""


@pytest.mark.parametrize(
    "problem",
    [
        "conv2d n1 ic32 ih8 iw8 oc32 kh3 kw3 bf16 nhwc cuda",
        "conv2d_grad_input n1 ic32 ih9 iw1 oc32 kh3 kw1 sh2 ph1 bf16 nchw cuda",
        "conv2d_grad_weight n1 ic32 ih1 iw32 oc32 bf16 nchw cuda",
    ],
)
def test_a_repeated_launch_hands_over_what_the_first_did(problem: str) -> None:
    found = json.loads(child.printed("-c", SCRIPT, problem, drop=("TRITON_INTERPRET",)).splitlines()[-1])
    grid = found.pop("grid")
    assert grid[0] >= 1 and grid[1:] == [1, 1]
    assert found == {
        "repeated as at first": True, "code by alignment": True, "stream": 7, "tensors": True, "arguments": True,
        "loaded": 2,
    }  # fmt: skip
