"""Timing on a GPU: a block of calls is captured into a CUDA graph once, and events around its replays tell the time.

So neither Python nor a launch from the host is in the figure, on either side. What cannot be captured, as torch's
indexing with tensors made on the host, is timed between events on the stream, and says so.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .timing import Rotation, Sample

_WARM_UP = 3


class GraphVariant:
    """A callable on the current GPU, fed from a rotation; ``how`` is 'graph' or 'stream'."""

    def __init__(self, call: Callable[..., object], rotation: Rotation) -> None:
        self.call = call
        self.rotation = rotation
        self.how = "graph"
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.begin, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def sample(self, calls: int) -> Sample:
        operands = self.rotation.take(calls)
        graph = self._graph(calls, operands) if self.how == "graph" else None
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
        """The graph of a block of that length. It reads the operands that its first block took, all of the rotation in
        a long block and in a short one a part."""
        graph = self.graphs.get(calls)
        if graph is None:
            self._warm_up(operands[0])
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph):
                    for arguments in operands:
                        self.call(*arguments)
            except RuntimeError:
                # The error of an operation that a capture forbids; the stream is usable again.
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
