"""The parent's side of a peer in a process of its own: start it, check its result, ask it for samples."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from .peers import PeerUnavailable
from .timing import Sample

WORKER = Path(__file__).with_name("external_worker.py")


class ExternalVariant:
    """An ONNX model in another runtime, timed in its own process by its own clock, only while this one waits."""

    def __init__(self, runtime: str, model: bytes, input: torch.Tensor, copies: int, clock: str) -> None:
        self.runtime, self.clock = runtime, clock
        self.folder = tempfile.TemporaryDirectory(prefix="spatialconv-")
        folder = Path(self.folder.name)
        (folder / "model.onnx").write_bytes(model)
        np.save(folder / "input.npy", input.contiguous().numpy())
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), runtime, str(torch.get_num_threads())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        files = {"model": "model.onnx", "input": "input.npy", "output": "output.npy"}
        paths = {name: str(folder / file) for name, file in files.items()}
        self.version = self._ask({"do": "open", "copies": copies, **paths})["version"]
        self.result = torch.from_numpy(np.load(folder / "output.npy"))

    def sample(self, calls: int) -> Sample:
        return Sample(**self._ask({"do": "sample", "calls": calls, "clock": self.clock}))

    def _ask(self, command: dict) -> dict:
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise PeerUnavailable(f"{self.runtime} ended unexpectedly (exit code {self.process.wait()})")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerUnavailable(f"{self.runtime}: {answer['error']}")
        return answer

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=10)
        self.process.stdout.close()
        self.folder.cleanup()
