"""Timing by CUDA graphs, on a stand-in for torch.cuda: which calls are captured, replayed and timed."""

from __future__ import annotations

import contextlib

import pytest
import torch

from spatialconv.bench import device_timing, timing


class Device:
    """Records what happens; every call takes a millisecond, a replay as many as the calls it holds."""

    def __init__(self, capturable: bool = True) -> None:
        self.capturable, self.capturing, self.clock, self.ran = capturable, None, 0.0, []
        device = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at = device.clock

            def synchronize(self):
                pass

            def elapsed_time(self, end):
                return end.at - self.at

        class CUDAGraph:
            calls: tuple = ()

            def replay(self):
                device.clock += len(self.calls)
                device.ran.append(("replay", self.calls))

        class Stream:
            def wait_stream(self, other):
                pass

        @contextlib.contextmanager
        def graph(target):
            if not device.capturable:
                raise RuntimeError("operation not permitted when stream is capturing")
            device.capturing = []
            yield
            target.calls, device.capturing = tuple(device.capturing), None

        self.names = {
            "Event": Event, "CUDAGraph": CUDAGraph, "Stream": Stream, "graph": graph, "synchronize": lambda: None,
            "current_stream": Stream, "stream": lambda stream: contextlib.nullcontext(),
            "set_stream": lambda stream: None, "_sleep": lambda cycles: None,
        }  # fmt: skip

    def call(self, operand) -> None:
        if self.capturing is not None:
            self.capturing.append(int(operand))
            return
        self.clock += 1
        self.ran.append(("call", int(operand)))


def variant(monkeypatch: pytest.MonkeyPatch, device: Device, copies: int) -> device_timing.GraphVariant:
    for name, stand_in in device.names.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    rotation = timing.Rotation((torch.tensor(0),), "hot")
    rotation.copies = [(torch.tensor(index),) for index in range(copies)]
    return device_timing.GraphVariant(device.call, rotation)


def test_a_block_is_captured_once_and_replayed(monkeypatch):
    device = Device()
    timed = variant(monkeypatch, device, copies=3)
    first, second = timed.sample(6), timed.sample(6)
    assert first.seconds == second.seconds == pytest.approx(1e-3) and first.clean
    replays = [calls for kind, calls in device.ran if kind == "replay"]
    assert replays == [(0, 1, 2, 0, 1, 2)] * 3, "once to warm the graph up, then once a sample"
    assert [kind for kind, _ in device.ran[:3]] == ["call"] * 3, "warmed up before the capture"


def test_a_block_reads_every_copy(monkeypatch):
    """Else the operands of a short block would stay in the caches from replay to replay."""
    device = Device()
    assert variant(monkeypatch, device, copies=5).sample(1).seconds == pytest.approx(1e-3)
    assert [calls for kind, calls in device.ran if kind == "replay"][-1] == (0, 1, 2, 3, 4)


def test_what_cannot_be_captured_is_timed_on_the_stream(monkeypatch):
    device = Device(capturable=False)
    timed = variant(monkeypatch, device, copies=2)
    assert timed.sample(4).seconds == pytest.approx(1e-3) and timed.how == "stream"
    assert all(kind == "call" for kind, _ in device.ran)


def test_a_gpus_clock_is_its_graphs():
    assert timing.pick_clock("auto", 1, "cuda") == "graph" and timing.pick_clock("wall", 1, "cuda") == "wall"
    assert timing.pick_clock("auto", 1, "cpu") == "cpu" and timing.pick_clock("auto", 2, "cpu") == "wall"
