"""What a benchmark run says of classes of layers: goals, means, what is done and what is slower than the peer."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from spatialconv.bench import class_table, goals, plot, suites

LAYER = "conv2d n1 ic64 ih56 iw56 oc64 kh3 kw3 ph1 pw1 f32 nchw cpu"


def row(ratio: float, share: float = 0.5, problem: str = LAYER, high: float | None = None, **changes) -> dict:
    """A row as the benchmark stores it."""
    high = ratio * 1.01 if high is None else high
    made = {
        "key": problem,
        "problem": problem,
        "layer": problem,
        "pass": "forward",
        "transposed": False,
        "suites": {"resnet50": 1},
        "backend": "extension",
        "dtype": "f32",
        "layout": "nhwc" if " nhwc " in problem else "nchw",
        "kernel": "extension:gemm",
        "status": "ok",
        "peers": {"torch": {"ratio": ratio, "low": ratio * 0.99, "high": high * 1.01, "high90": high}},
        "roofline": {"share": share, "bound": "arithmetic"},
    }
    return made | changes


def shown(renderable: object) -> str:
    console = Console(width=180, file=io.StringIO())
    console.print(renderable)
    return console.file.getvalue()


def test_every_goal_is_of_a_class_that_a_suite_has():
    layers = [layer for name in suites.names() for layer in suites.load(name)]
    known = {suites.kind(layer.problem, layer.transposed) for layer in layers} | {"narrow", "max pool indices"}
    known |= {f"3x3 s1{word}" for word in (" tf32", " prepacked", " tf32 prepacked")}
    found = goals.parse_goals(goals.FILE.read_text())
    assert {kind for kind, *_ in found} <= known
    assert all(goal.ratio >= 1 for goal in found.values())
    for kind, pass_name, batch, _ in found:
        assert batch == "any" or {(kind, pass_name, one, "nhwc") for one in ("n1", "n8")} <= set(found)


def test_what_runs_otherwise_is_a_class_of_its_own():
    problem = "conv2d n8 ic64 ih56 iw56 oc64 kh3 kw3 ph1 pw1 f32 nhwc cpu"
    changes = ({}, {"precision": "tf32"}, {"prepacked": True}, {"precision": "tf32", "prepacked": True})
    rows = [row(1.0, problem=problem, **change) for change in changes]
    assert [goals.class_of(made).removeprefix("3x3 s1") for made in rows] == [
        "", " tf32", " prepacked", " tf32 prepacked",
    ]  # fmt: skip
    assert len({goals.goal_of(made) for made in rows}) == 4


@pytest.mark.parametrize(
    "line", ["3x3 s1; forward; n1; 1.1", "3x3 s1; sideways; n1; 1; 1", "a; forward; n2; 1; 1", "a; forward; n1; x; 1"]
)
def test_a_line_that_is_no_goal_is_named(line):
    with pytest.raises(ValueError, match=f"got '{line}'"):
        goals.parse_goals(f"# a comment\n{line}\n")


def test_the_goal_of_a_row():
    assert goals.goal_of(row(1.0)) == goals.Goal(1.1)
    assert goals.goal_of(row(1.0, problem=LAYER.replace("n1 ", "n8 ").replace("nchw", "nhwc"))) == goals.Goal(1.45)
    assert goals.goal_of(row(1.0, suites={"narrow": 1})) == goals.Goal(1.2, each=True)
    assert goals.goal_of(row(1.0, suites={"narrow": 1, "vgg16": 1})) == goals.Goal(1.1)
    pooled = "max_pool2d n1 ic64 ih9 iw9 kh3 kw3 sh2 sw2 ph1 pw1 indices f32 nchw cpu"
    assert goals.goal_of(row(1.0, problem=pooled)) == goals.Goal(13)
    assert goals.goal_of(row(1.0, problem=pooled.replace(" indices", ""))) == goals.Goal(18)
    assert goals.goal_of(row(1.0, dtype="f64")) is None
    assert goals.goal_of(row(1.0, problem=LAYER.replace("cpu", "cuda"))) is None
    assert goals.goal_of(row(1.0, problem=LAYER.replace("oc64 kh3 kw3", "oc64 kh5 kw5"))) is None


def test_done_is_at_the_goal_or_near_the_roofline():
    assert goals.done(row(1.11)) and not goals.done(row(1.09))
    assert goals.done(row(0.5, share=0.86)) and not goals.done(row(0.5, share=0.84))
    assert goals.done(row(1.0) | {"status": "failed"}) is None


def test_slower_is_certain_and_more_than_a_trifle():
    assert goals.slower(row(0.9, high=0.94)) and not goals.slower(row(0.9, high=0.96))
    assert not goals.slower(row(0.9, high=0.9) | {"status": "wrong"})
    old = row(0.5)
    del old["peers"]["torch"]["high90"]
    assert goals.slower(old), "files of before have the bound of 95 % only"


def test_slower_in_both_files_only():
    here = [row(0.5), row(0.5, key="b"), row(2.0, key="c")]
    there = [row(0.6), row(1.5, key="b"), row(0.5, key="c")]
    assert [one["key"] for one in goals.slower_in_both(here, there)] == [LAYER]
    assert "0.50x" in shown(class_table.slower_table(goals.slower_in_both(here, there), "both"))
    assert shown(class_table.slower_table([], "both")).strip() == "both: none"


def test_means_are_capped_layer_by_layer_and_shown_uncapped():
    (one,) = goals.summaries([row(1.0), row(16.0)])
    assert math.isclose(one.capped, 2.0) and math.isclose(one.plain, 4.0) and one.least == 1.0
    assert math.isclose(one.largest, 8.0) and one.share == pytest.approx(0.5)
    assert (one.layers, one.done, one.slower, one.reached) == (2, 1, 0, True)


def test_a_goal_above_the_cap_is_held_against_the_plain_mean():
    pooled = "max_pool2d n1 ic64 ih9 iw9 kh3 kw3 sh2 sw2 ph1 pw1 f32 nchw cpu"
    assert goals.summaries([row(19.0, problem=pooled)])[0].reached
    assert not goals.summaries([row(17.0, problem=pooled)])[0].reached
    large = "conv2d n1 ic8 ih31 iw31 oc8 kh31 kw31 ph15 pw15 g8 f32 nchw cpu"
    assert goals.summaries([row(9.0, problem=large)] * 3)[0].reached
    assert not goals.summaries([row(9.0, problem=large), row(3.0, problem=large)])[0].reached


def test_of_the_narrow_layers_each_has_to_reach_the_goal():
    narrow = {"suites": {"narrow": 1}}
    assert not goals.summaries([row(9.0, **narrow), row(1.19, **narrow)])[0].reached
    assert goals.summaries([row(9.0, **narrow), row(1.21, **narrow)])[0].reached
    assert goals.summaries([row(9.0, **narrow), row(1.0, share=0.9, **narrow)])[0].reached, "all layers are done"


def test_the_report_shows_classes_and_what_is_slower(tmp_path):
    rows = [row(0.5), row(2.0, problem=LAYER.replace("nchw", "nhwc")), row(1.0) | {"status": "failed"}]
    text = shown(class_table.report(rows))
    assert "3x3 s1" in text and "slower than torch" in text and "(1)" in text and "0.50x" in text
    picture = plot.draw_shares(rows, tmp_path / "shares.png", "a title")
    assert picture.read_bytes().startswith(b"\x89PNG")
