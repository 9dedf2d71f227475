"""Every shipped Triton kernel compiles for GPUs that are not here, without spills, on tensor cores, with wide loads."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from spatialconv.backends.triton import ahead, launch

# What is compiled is compiled in one process for all tests, which therefore run in one.
pytestmark = [
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.xdist_group("triton ahead of time"),
]
HERE = Path(__file__).parent


def shipped() -> dict[str, list[ahead.Variant]]:
    """The shipped variants by the function they compile, in the order of the menus."""
    if find_spec("triton") is None:
        return {}
    found: dict[str, list[ahead.Variant]] = {}
    for module in ahead.listing_modules():
        for variant in ahead.shipped(module):
            found.setdefault(f"{module}.{variant.function.__name__}", []).append(variant)
    return found


MENUS = shipped()
ALL = [variant for variants in MENUS.values() for variant in variants]
FIRSTS = [variants[0].name for variants in MENUS.values()]


@cache
def reports(target: str, *names: str) -> dict[str, ahead.Report]:
    return {report.name: report for report in ahead.in_new_process([target], names or None)}


@cache
def planted(target: str) -> dict[str, ahead.Report]:
    found = ahead.in_new_process([target], modules=["planted_variants"], folders=[HERE])
    return {report.name: report for report in found}


def test_every_variant_has_a_name_of_its_own() -> None:
    assert ALL and len(ALL) == len({variant.name for variant in ALL})


@pytest.mark.parametrize("name", FIRSTS)
def test_the_first_variant_of_each_kernel_is_fast_code(name: str) -> None:
    assert ahead.problems(reports("sm_90", *FIRSTS)[name]) == []


@pytest.mark.full(cost=5)
@pytest.mark.parametrize(
    ("name", "target"),
    [(variant.name, target) for target in ahead.TARGETS for variant in ALL if target in variant.targets],
)
def test_every_variant_is_fast_code(name: str, target: str, request: pytest.FixtureRequest) -> None:
    """Those of a target are compiled in one process, as far as they are asked for."""
    asked = [item.callspec.params for item in request.session.items if item.originalname == request.node.originalname]
    names = [params["name"] for params in asked if params["target"] == target]
    assert ahead.problems(reports(target, *names)[name]) == []


def test_good_code_is_passed() -> None:
    assert ahead.problems(planted("sm_90")["good"]) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unaligned", ["no asynchronous copy", "0 of 64 loads move 16 bytes"]),
        ("too few warps", ["bytes of stack a thread"]),
        ("too many stages", ["bytes of shared memory"]),
        ("ieee float32", ["no tensor-core instruction", "no warpgroup tensor-core"]),
        ("undefined name", ["does not compile"]),
    ],
)
def test_bad_code_is_reported(name: str, words: list[str]) -> None:
    found = "\n".join(ahead.problems(planted("sm_90")[name]))
    assert all(word in found for word in words), found


@pytest.mark.parametrize(
    ("stack", "loads", "stores", "passed"),
    [(0, 0, 0, True), (8, 2, 2, True), (8, 3, 2, False), (8, 0, 0, False), (12, 1, 1, False)],
)
def test_two_words_may_be_given_up_for_another_block(stack: int, loads: int, stores: int, passed: bool) -> None:
    report = ahead.Report("traded", "sm_80", [], 128, stack, 0, {"LDL": loads, "STL": stores})
    assert (ahead.problems(report) == []) == passed


def test_a_variant_names_every_argument() -> None:
    class Function:
        arg_names = ["x", "n"]

    with pytest.raises(ValueError, match="expected the arguments"):
        ahead.Variant("short", Function(), {"x": "*fp32"}, {})
    with pytest.raises(ValueError, match="expected words of"):
        ahead.Variant("wrong word", Function(), {"x": "*fp32", "n": "i32"}, {}, expects={"fast"})


@pytest.mark.skipif(find_spec("triton") is not None and not launch.interpreting(), reason="kernels are compiled here")
def test_interpreted_kernels_cannot_be_compiled() -> None:
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET"):
        ahead.compile(None, "sm_90")


def test_a_second_look_costs_no_compilation() -> None:
    """What is on disk is what was compiled: a report kept by the first call is read by the second."""
    first = planted("sm_90")
    again = ahead.in_new_process(["sm_90"], ["good"], modules=["planted_variants"], folders=[HERE])
    assert again == [first["good"]]
