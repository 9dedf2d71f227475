"""Timing on a GPU: a block of calls is captured into a CUDA graph once, and events around its replays tell the time.

So neither Python nor a launch from the host is in the figure, on either side. What cannot be captured, as torch's
indexing with tensors made on the host, is timed between events on the stream, and says so.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .timing import Rotation, Sample

_WARM_UP = 3
# What keeps the GPU busy (some 50 µs) while the host enqueues the events and the graph between them.
_HEAD_START_CYCLES = 100_000


class GraphVariant:
    """A callable on the current GPU, fed from a rotation; ``how`` is 'graph' or 'stream'."""

    def __init__(self, call: Callable[..., object], rotation: Rotation) -> None:
        self.call = call
        self.rotation = rotation
        self.how = "graph"
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.begin, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def sample(self, calls: int) -> Sample:
        """A block of at least as many calls as there are copies: a graph reads the same ones at every replay."""
        calls = max(calls, len(self.rotation.copies))
        operands = self.rotation.take(calls)
        graph = self._graph(calls, operands) if self.how == "graph" else None
        torch.cuda._sleep(_HEAD_START_CYCLES)
        self.begin.record()
        if graph is not None:
            graph.replay()
        else:
            for arguments in operands:
                self.call(*arguments)
        self.end.record()
        self.end.synchronize()
        return Sample(self.begin.elapsed_time(self.end) * 1e-3 / calls, True)

    def _graph(self, calls: int, operands) -> torch.cuda.CUDAGraph | None:
        """The graph of a block of that length, which reads the operands that its first block took."""
        graph = self.graphs.get(calls)
        if graph is None:
            self._warm_up(operands[0])
            graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
            try:
                with torch.cuda.graph(graph):
                    for arguments in operands:
                        self.call(*arguments)
            except RuntimeError:
                # The error of an operation that a capture forbids. Leaving torch.cuda.graph raised once more, so the
                # stream of the capture is still the current one.
                torch.cuda.set_stream(stream)
                torch.cuda.synchronize()
                self.how, self.graphs = "stream", {}
                return None
            self.graphs = {calls: graph}
            graph.replay()
        return graph

    def _warm_up(self, arguments) -> None:
        """What happens at a first call only (compiling, cuDNN's search) must not happen in a capture."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self.call(*arguments)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
