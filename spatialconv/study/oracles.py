"""What the simulator and the nests are held to: the same facts from programs and mathematics that share no code.

An oracle yields findings. Where something is missing on a machine it says what, and nothing is claimed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from . import hardware, nests, valgrind
from .cache import Level, host
from .kernel_nests import kernel_nest
from .lru_judge import judge
from .nest import Nest
from .report import Report, Table
from .shape import read
from .trace import Trace, trace

AGREES, DIFFERS, SKIPPED, REPORTED = "agrees", "DIFFERS", "skipped", "reported"
SMALL = "1x4x8x8 k=4 3x3 p1"
LEVELS = (Level("L1", 64, 12, 64), Level("L2", 2048, 16, 64))
# Bounds on the relative difference of misses from cachegrind's: it also counts what the program keeps on its stack.
FIRST_BOUND, LAST_BOUND = 0.005, 0.003


@dataclass(frozen=True)
class Finding:
    """One comparison: ``outcome`` is one of the four words above, ``expected`` what the oracle says."""

    oracle: str
    subject: str
    outcome: str
    expected: object = None
    got: object = None
    detail: str = ""


def small_nests() -> list[Nest]:
    """Nests of every kind, each of some ten thousand accesses."""
    conv = read(SMALL)
    found = [nests.named(conv, name) for name in ("nchw", "nhwc", "untied", "tiled", "im2col", "dense")]
    found.append(nests.direct(read("1x4x9x9 k=6 3x3 s2 p1 d2 g2"), "n g ic kh oh ow kw oc", name="strided"))
    return [*found, nests.named(read("1x4x9x9 max 3x3 s2 p1"), "pool")]


def plain(thorough: bool) -> Iterator[Finding]:
    """The simulator against a few lines of Python that run through the nest's addresses: every count, exactly."""
    levels = (Level("L1", 3, 2, 32), Level("L2", 16, 4, 64))
    for nest in small_nests():
        got = trace(nest, levels, kinds=True)
        expected = judge(nest, levels)
        same = (got.accesses, got.misses, got.kinds) == (expected.accesses, expected.misses, expected.kinds)
        yield Finding(
            "plain Python", nest.name, AGREES if same else DIFFERS, expected.total("L1"), got.total("L1"),
            "accesses, misses and kinds by buffer and level",
        )  # fmt: skip


def autograd(thorough: bool) -> Iterator[Finding]:
    """How often each element is loaded, against the gradient of torch's convolution of ones: each product that an
    element takes part in adds one to it."""
    import torch

    for text in (SMALL, "2x6x9x7 k=4 3x2 s2x1 p1 d1x2 g2"):
        problem = read(text)
        nest = nests.direct(problem)
        x = torch.ones(problem.input_shape, dtype=torch.float64, requires_grad=True)
        w = torch.ones(problem.weight_shape, dtype=torch.float64, requires_grad=True)
        torch.nn.functional.conv2d(
            x, w, None, (problem.sh, problem.sw), (problem.ph, problem.pw), (problem.dh, problem.dw), problem.g
        ).sum().backward()
        loads = {name: [0] * nest.buffer(name).elements for name in ("input", "weight")}
        for name, address, store in nest.addresses():
            if not store:
                buffer = nest.buffer(name)
                loads[name][(address - buffer.base) // buffer.itemsize] += 1
        for name, gradient in (("input", x.grad), ("weight", w.grad)):
            flat = torch.tensor(loads[name], dtype=torch.float64)
            got = flat.as_strided(gradient.shape, nest.buffer(name).strides)
            wrong = int((got != gradient).sum())
            yield Finding(
                "autograd", f"{text}: loads of each {name}", DIFFERS if wrong else AGREES, int(gradient.sum()),
                int(got.sum()), f"{wrong} of {prod(gradient.shape)} elements differ",
            )  # fmt: skip


def lackey(thorough: bool) -> Iterator[Finding]:
    """The order of addresses that a compiled nest touches, as valgrind records it: identical."""
    valgrind.find()
    with tempfile.TemporaryDirectory() as folder:
        for nest in small_nests() if thorough else small_nests()[:3]:
            expected = valgrind.addresses(nest, valgrind.build(nest, Path(folder)))
            got = [(address, store) for _, address, store in nest.addresses()]
            at = next((number for number, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), None)
            detail = "the same addresses in the same order" if got == expected else f"first difference at {at}"
            yield Finding("lackey", nest.name, AGREES if got == expected else DIFFERS, len(expected), len(got), detail)


def cachegrind_cases(thorough: bool) -> list[Nest]:
    conv = read("1x16x32x32 k=32 3x3 p1")
    found = [nests.named(conv, name) for name in ("nchw", "nhwc", "im2col", "tiled", "untied")]
    found.append(nests.dense(read("1x4x16x16 k=8 3x3 p1")))
    large = read("1x64x28x28 k=64 3x3 p1")
    return found + [nests.named(large, name) for name in ("nchw", "nhwc", "im2col", "tiled")] * thorough


def cachegrind(thorough: bool) -> Iterator[Finding]:
    """Misses of both levels against cachegrind's, within bounds, and both speeds; with vector code, a report alone."""
    valgrind.find()
    first, last = LEVELS
    with tempfile.TemporaryDirectory() as folder:
        for nest in cachegrind_cases(thorough):
            expected = valgrind.cachegrind(valgrind.build(nest, Path(folder)), first, last)
            trace(nest, LEVELS)
            got = trace(nest, LEVELS)
            yield from _against_cachegrind(got, expected)
        nest = cachegrind_cases(False)[0]
        vector = valgrind.cachegrind(valgrind.build(nest, Path(folder), exact=False), first, last)
        got = trace(nest, LEVELS)
        yield Finding(
            "cachegrind", f"{nest.name}, -O3 with vectors, L1 misses", REPORTED, vector.first, got.total("L1"),
            f"{_percent(got.total('L1'), vector.first)}, where it makes {vector.accesses:,} of the nest's "
            f"{sum(got.accesses.values()):,} accesses",
        )  # fmt: skip


def _against_cachegrind(got: Trace, expected: valgrind.Counts) -> Iterator[Finding]:
    accesses = sum(got.accesses.values())
    speeds = (
        f"{accesses / got.seconds / 1e6:.0f} M accesses/s here, {accesses / expected.seconds / 1e6:.0f} M/s cachegrind"
    )
    for level, count, bound in zip(got.levels, (expected.first, expected.last), (FIRST_BOUND, LAST_BOUND), strict=True):
        mine = got.total(level.name)
        fits = abs(mine - count) <= bound * count
        yield Finding(
            "cachegrind", f"{got.nest.name} {got.nest.problem.ic}-{got.nest.problem.oc}-{got.nest.problem.ih}, "
            f"{level.name} misses", AGREES if fits else DIFFERS, count, mine,
            f"{_percent(mine, count)}, bound {bound:.1%}; {speeds}",
        )  # fmt: skip


def perf(thorough: bool) -> Iterator[Finding]:
    """What this processor counts, beside the simulation of its own first level: reported, not judged."""
    first = host()[0]
    with tempfile.TemporaryDirectory() as folder:
        for nest in cachegrind_cases(False)[:2]:
            seen = hardware.count(valgrind.build(nest, Path(folder)))
            traced = trace(nest, (first,))
            yield Finding(
                "perf", f"{nest.name} 16-32-32, misses of {first}", REPORTED, seen[hardware.MISSES], traced.total("L1"),
                f"of {seen[hardware.LOADS]:,} loads there and {sum(traced.accesses.values()):,} accesses here",
            )  # fmt: skip


def _percent(got: int, expected: int) -> str:
    return f"{(got - expected) / max(1, expected):+.3%}"


def shipped(thorough: bool) -> Iterator[Finding]:
    """What a shipped C++ kernel touches, recorded, against its nest: the same accesses in the same order. Compiling a
    kernel so that it can be recorded takes a minute or more."""
    from .recording import build
    from .recording.agreement import CASES, compare
    from .recording.record import record

    if reason := build.unavailable():
        raise valgrind.MissingToolError(reason)
    for name in CASES if thorough else ("direct",):
        for text in CASES[name]:
            recording = record(read(text), name)
            found = compare(recording, kernel_nest(recording.problem, name, recording.level))
            yield Finding(
                "shipped kernels", f"{recording.kernel} {recording.level}, {text}",
                AGREES if found.equal else DIFFERS, found.described, found.recorded,
                "the same vector accesses in the same order" if found.equal else f"first difference at {found.first}",
            )  # fmt: skip


# Each in the order in which they are shown. An oracle that is missing something raises MissingToolError.
ORACLES: dict[str, Callable[[bool], Iterator[Finding]]] = {
    "plain Python": plain,
    "autograd": autograd,
    "lackey": lackey,
    "cachegrind": cachegrind,
    "shipped kernels": shipped,
    "perf": perf,
}


def chosen(names: tuple[str, ...]) -> tuple[str, ...]:
    """The oracles of those names, all without any; ValueError for another name."""
    if unknown := [name for name in names if name not in ORACLES]:
        raise ValueError(f"study: check: expected oracles out of {', '.join(ORACLES)}, got {', '.join(unknown)}")
    return names or tuple(ORACLES)


def findings(thorough: bool = False, only: tuple[str, ...] = ()) -> Iterator[Finding]:
    """The findings of the oracles named, or of all."""
    for name in chosen(only):
        try:
            yield from ORACLES[name](thorough)
        except (valgrind.MissingToolError, ImportError) as error:
            yield Finding(name, "", SKIPPED, detail=str(error))


def report(found: Iterable[Finding]) -> Report:
    """All findings in one table; failed where one disagrees."""
    rows = list(found)
    outcomes = [row.outcome for row in rows]
    table = Table(
        "What the study is held to", ("oracle", "subject", "outcome", "oracle says", "study says", "agreement"),
        tuple((row.oracle, row.subject, row.outcome, row.expected, row.got, row.detail) for row in rows),
    )  # fmt: skip
    counted = ", ".join(f"{outcomes.count(word)} {word}" for word in dict.fromkeys(outcomes))
    data = {"outcomes": outcomes, "findings": [vars(row) for row in rows]}
    return Report(data, [table], [f"{len(rows)} findings: {counted}."], failed=DIFFERS in outcomes)
