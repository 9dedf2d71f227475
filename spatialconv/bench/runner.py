"""A benchmark run: every cell of the suites, for every backend and layout, gated, timed beside its peers, stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field

import torch

from .. import dispatch
from ..errors import BackendUnavailableError, UnsupportedProblemError
from ..problem import Problem, parse
from . import device_timing, gate, operands, peers, roofline, suites, timing
from .peers import TORCH
from .results import row_key
from .suites import PASSES, Cell

OTHER_LAYOUT = {"nchw": "nhwc", "nhwc": "nchw"}


@dataclass(frozen=True)
class Settings:
    """What is measured and how. ``batch`` None is the suite's own; ``budget`` is in seconds a cell; ``prepacked``: our
    forward convolutions are layers after nn.prepack."""

    suites: tuple[str, ...] = ("resnet50",)
    backends: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("f32",)
    layouts: tuple[str, ...] = ("nchw", "nhwc")
    batch: int | None = 1
    passes: tuple[str, ...] = PASSES
    peers: tuple[str, ...] = (TORCH,)
    threads: int = field(default_factory=torch.get_num_threads)
    device: str = "cpu"
    budget: float = 0.25
    cache: str = "rotate"
    clock: str = "wall"
    indices: bool = False
    prepacked: bool = False
    filter: str = ""
    seed: int = 0

    def as_dict(self) -> dict:
        """What is stored in the head of a result file."""
        return asdict(self)


def computing_backends(device: str = "cpu") -> list[str]:
    """The backends that compute on this machine's device of that kind, in the dispatcher's order."""
    probe, context = parse(f"conv2d n1 ic1 ih1 iw1 oc1 {device}"), dispatch.current_context(device)
    return [
        name for name in dispatch.backends()
        if not all(dispatch.reasons_against(kernel, probe, context) for kernel in dispatch.candidates(probe.op, name))
    ]  # fmt: skip


@contextmanager
def cudnn_search(device: str) -> Iterator[None]:
    """On a GPU the peer is cuDNN's best algorithm, found by its own search, and not the one its heuristics guess."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@dataclass
class Work:
    """One cell to be measured with one request; ``suites`` says in which suites its layer stands and how often,
    ``halved`` that the layer there is larger."""

    cell: Cell
    request: str
    suites: dict[str, int]
    key: str
    halved: bool = False


def plan(settings: Settings) -> list[Work]:
    """All rows of a run. A problem of several layers is measured once; the layouts of a pass stand together."""
    found: dict[tuple[Cell, str], Work] = {}
    passes = suites.pass_names(settings.passes)
    requests = settings.backends or tuple(computing_backends(settings.device))
    for request in requests:
        dispatch.check_request(request)
    for name in settings.suites:
        for layer in suites.load(name):
            for dtype in settings.dtypes:
                fitted = [
                    suites.fit(layer, settings.batch, dtype, layout, settings.device) for layout in settings.layouts
                ]
                for pass_name in passes:
                    for one in fitted:
                        for cell in suites.cells(one, [pass_name], settings.indices):
                            if settings.filter not in f"{cell.problem} {cell.kind}":
                                continue
                            for request in requests:
                                _note(found, cell, request, one, settings)
    return list(found.values())


def _note(found: dict, cell: Cell, request: str, layer: suites.Layer, settings: Settings) -> None:
    work = found.get((cell, request))
    if work is None:
        key = row_key(str(cell.problem), request, settings.peers, settings.as_dict(), cell.transposed)
        work = found[cell, request] = Work(cell, request, {}, key, layer.halved)
    work.suites[layer.suite] = work.suites.get(layer.suite, 0) + layer.count


class Bench:
    """Measures cells one after the other; keeps the operands and the truth of the last one for its other backends."""

    def __init__(self, settings: Settings, limits: roofline.Roofline) -> None:
        self.settings, self.limits = settings, limits
        self._operands: tuple[object, operands.Operands] | None = None
        self._truth: tuple[object, gate.Truth] | None = None

    def row(self, work: Work) -> dict:
        """Measure one cell. ``status``: 'ok'; 'wrong', 'refused', 'failed' or 'broken', with a reason and no speed."""
        problem, settings = work.cell.problem, self.settings
        row: dict = {
            "key": work.key,
            "problem": str(problem),
            "layer": str(work.cell.layer),
            "pass": work.cell.pass_name,
            "class": work.cell.kind,
            "transposed": work.cell.transposed,
            "halved": work.halved,
            "suites": work.suites,
            "backend": work.request,
            "dtype": problem.dtype,
            "layout": problem.layout,
            "threads": settings.threads,
            "cache": settings.cache,
            "clock": settings.clock,
            "load": os.getloadavg()[0],
            "flops": problem.flops(),
            "bytes": problem.compulsory_bytes,
        }
        try:
            choice = dispatch.choose(problem, work.request)
        except (UnsupportedProblemError, BackendUnavailableError) as error:
            return row | {"status": "refused", "reason": str(error)}
        except Exception as error:
            return row | {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        row |= {"kernel": choice.kernel.full_name, "tier": choice.kernel.tier, "precision": choice.context.precision}
        row |= {"isa": choice.context.isa, "tuned": choice.tuned}
        row["prepacked"] = settings.prepacked and peers.prepacks(work.cell)
        try:
            row |= self._measure(work, choice)
            return (
                row | {"note": "over 4 GFLOP an image: measured as one image of half the side"} if work.halved else row
            )
        except Exception as error:
            # One failing cell must not lose the run; the row says what happened.
            return row | {"status": "failed", "reason": f"{type(error).__name__}: {error}"}

    def _measure(self, work: Work, choice: dispatch.Choice) -> dict:
        cell, settings, problem = work.cell, self.settings, work.cell.problem
        given = self._given(problem)
        right = self._right(problem, given)
        call = peers.ours(cell, work.request, settings.prepacked)
        with torch.no_grad():
            verdict = gate.judge(problem, call(*given), right, choice.kernel.tier)
        if not verdict.passed:
            return {"status": "wrong", "reason": verdict.reason, "error": verdict.error}
        rotation = timing.Rotation(given, settings.cache)
        if settings.prepacked and peers.prepacks(cell):
            with torch.no_grad():
                for copy in rotation.copies:
                    call(*copy)
        with ExitStack() as stack:
            stack.enter_context(cudnn_search(settings.device))
            variants: dict[str, timing.Variant] = {"ours": self._local(call, rotation)}
            refused: dict[str, dict] = {}
            for peer in dict.fromkeys((peers.TORCH, *settings.peers)):
                self._add_peer(peer, cell, given, right, rotation, variants, refused, stack)
            least = 5 if choice.kernel.backend == "reference" else 9
            single = settings.cache == "flush"
            samples = timing.interleave(list(variants.values()), settings.budget, least, single=single)
        by_stream = [name for name, variant in variants.items() if getattr(variant, "how", "graph") == "stream"]
        used = timing.rounds_used(samples)
        by_name = dict(zip(variants, samples, strict=True))
        rounds = dict(zip(variants, used.rounds, strict=True))
        measured = {name: asdict(timing.summarise(entry, rounds[name])) for name, entry in by_name.items()}
        ratios = {
            name: asdict(timing.ratio(by_name["ours"], entry, rounds["ours"], rounds[name], used.paired))
            for name, entry in by_name.items()
        }
        report = self._report(cell, choice, verdict, rotation, measured, ratios, refused)
        return report | ({"timed_on_the_stream": by_stream} if by_stream else {})

    def _given(self, problem: Problem) -> operands.Operands:
        if self._operands is None or self._operands[0] != problem:
            self._operands = (problem, operands.make(problem, self.settings.seed))
        return self._operands[1]

    def _right(self, problem: Problem, given: operands.Operands) -> gate.Truth:
        """The truth; it depends on the values alone, so one serves both layouts."""
        values = problem.replace(layout="nchw")
        if self._truth is None or self._truth[0] != values:
            self._truth = (values, gate.truth(problem, given))
        return self._truth[1]

    def _local(self, call: Callable, rotation: timing.Rotation) -> timing.Variant:
        if self.settings.clock == "graph":
            return device_timing.GraphVariant(call, rotation)
        return timing.LocalVariant(call, rotation, self.settings.clock, self.settings.device)

    def _add_peer(self, peer, cell, given, right, rotation, variants, refused, stack) -> None:
        reason = peers.refuse(peer, cell)
        if reason is None:
            try:
                if peer == peers.TORCH:
                    variants[peer] = self._local(peers.torch_call(cell), rotation)
                elif peer == peers.TORCH_BEST:
                    variants[peer] = self._other_layout(cell)
                elif peer == peers.COMPILE:
                    variants[peer] = self._local(peers.compiled_call(cell), rotation)
                    variants[peer].sample(1)
                else:
                    variants[peer] = self._external(peer, cell, given, right, rotation, stack)
                return
            except Exception as error:
                variants.pop(peer, None)
                reason = f"{type(error).__name__}: {error}"
        refused[peer] = {"status": "refused", "reason": reason}

    def _other_layout(self, cell: Cell) -> timing.Variant:
        layout = OTHER_LAYOUT[cell.problem.layout]
        other = Cell(
            cell.layer.replace(layout=layout), cell.problem.replace(layout=layout), cell.pass_name, cell.transposed
        )
        rotation = timing.Rotation(operands.make(other.problem, self.settings.seed), self.settings.cache)
        return self._local(peers.torch_call(other), rotation)

    def _external(self, peer, cell, given, right, rotation, stack) -> timing.Variant:
        from .external import ExternalVariant
        from .onnx_model import build

        variant = ExternalVariant(peer, build(cell.problem, given), given[0], len(rotation.copies), self.settings.clock)
        stack.callback(variant.close)
        verdict = gate.judge(cell.problem, variant.result, right, check_layout=False)
        if not verdict.passed:
            raise peers.PeerUnavailable(f"its result is wrong: {verdict.reason}")
        return variant

    def _report(self, cell, choice, verdict, rotation, measured, ratios, refused) -> dict:
        problem, ours = cell.problem, measured["ours"]
        report: dict = {"status": "ok", "error": verdict.error, "peers": refused}
        if self._impossible(problem, choice.kernel.full_name, ours["median"]):
            return report | {
                "status": "broken",
                "reason": f"{ours['median']:.3g} s is below what this machine's measured peaks allow",
            }
        report["ours"] = ours
        for name in measured:
            if name == "ours":
                continue
            source, layout = name, problem.layout
            if name == peers.TORCH_BEST:
                source = min((peers.TORCH, peers.TORCH_BEST), key=lambda one: measured[one]["median"])
                layout = problem.layout if source == peers.TORCH else OTHER_LAYOUT[problem.layout]
            entry, found = measured[source], ratios[source]
            if self._impossible(problem, name, entry["median"]):
                refused[name] = {"status": "broken", "reason": f"{entry['median']:.3g} s is below the machine's limit"}
                continue
            refused[name] = entry | {
                "status": "ok",
                "layout": layout,
                "ratio": found["value"],
                "low": found["low"],
                "high": found["high"],
                "high90": found["high90"],
            }
        torch_time = refused.get(peers.TORCH, {}).get("median")
        ideal, bound = self.limits.seconds(problem, 2 * rotation.working_set)
        report["roofline"] = {
            "seconds": ideal,
            "bound": bound,
            "share": ideal / ours["median"],
            "largest_ratio": torch_time / ideal if torch_time else None,
        }
        if problem.op == "max_pool2d" and not problem.indices and problem.device == "cpu":
            report["note"] = "ours without indices; torch computes them in any case on a CPU"
        return report

    def _impossible(self, problem: Problem, name: str, seconds: float) -> bool:
        """Whether a time is below the hard limit, also of peaks measured once more."""
        winograd = roofline.may_use_winograd(problem, name)
        if seconds >= self.limits.hard_limit(problem, winograd):
            return False
        self.limits = self.limits.raised(roofline.measure(set(self.limits.flops), self.limits.device))
        return seconds < self.limits.hard_limit(problem, winograd)
