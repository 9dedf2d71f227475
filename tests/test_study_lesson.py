"""The lesson: every experiment against its band, the bands against their record, and the command."""

from __future__ import annotations

import ast
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("sklearn", reason="the lesson's pictures are scikit-learn's digits, which is not installed")

import spatialconv.cli.study.lesson  # noqa: E402
from spatialconv.cli import app  # noqa: E402
from spatialconv.dispatch import backends, requested  # noqa: E402
from spatialconv.study.lesson import digits, networks, record, run, training  # noqa: E402
from spatialconv.study.lesson.experiment import (  # noqa: E402
    NOT_REPRODUCED,
    Measurement,
    Result,
    above,
    at_most,
    below,
    equal,
)
from spatialconv.study.lesson.lab import Lab  # noqa: E402
from spatialconv.study.lesson.registry import EXPERIMENTS  # noqa: E402

# One worker runs them, for they share the networks of their lab.
pytestmark = pytest.mark.xdist_group("lesson")
DEAR = ("flattening", "sharing", "shift", "pooling", "rotation", "transfer")
# No training, or little; exact where the kernels are.
ON_EVERY_BACKEND = ("sizes", "locality", "adaptation", "equivariance", "effective", "folding")
# A dot of an interpreted kernel takes milliseconds.
INTERPRETED = ("sizes",)
SEED = 0


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def lab():
    return Lab(SEED)


def invoke(*words: str):
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["study", "lesson", *words])


def named(name: str):
    return next(one for one in EXPERIMENTS if one.name == name)


def judged(experiment, measurement: Measurement) -> Result:
    return Result(experiment, (measurement,), run.recorded()[experiment.name], 0.0)


def outside(result: Result) -> list[str]:
    return [
        f"{one.expectation.figure}: {one.values}, expected {one.expectation.text(one.limit)}"
        for one in result.judged
        if not one.holds
    ]


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param(one, id=one.name, marks=[pytest.mark.full(cost=4)] if one.name in DEAR else [])
        for one in EXPERIMENTS
    ],
)
def test_an_experiment_gives_what_was_expected(experiment, lab):
    measurement = experiment.run(lab)
    result = judged(experiment, measurement)
    assert outside(result) == []
    assert result.verdict == experiment.verdict
    assert json.loads(json.dumps(measurement.series)) == measurement.series
    drawn = io.BytesIO()
    experiment.draw([measurement, measurement]).savefig(drawn, dpi=30)
    assert drawn.tell() > 1000


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        # Numba compiles every kernel that a training and its two precisions need.
        pytest.param(name, backend, marks=[pytest.mark.full] if (name, backend) == ("folding", "numba") else [])
        for name in ON_EVERY_BACKEND
        for backend in ("reference", "extension", "numba", "triton")
    ],
)
def test_an_experiment_gives_the_same_on_every_backend(name, backend, lab):
    info = backends()[backend]
    if not info.available:
        pytest.skip(f"{backend}: {info.reason}")
    if backend == "triton" and not torch.cuda.is_available() and name not in INTERPRETED:
        pytest.skip("without a GPU triton's kernels run in its interpreter, too slow for this experiment")
    (result,) = run.run([named(name)], [SEED], backend)
    assert outside(result) == []


def test_the_backend_asked_for_is_in_force_while_an_experiment_runs():
    asked = []

    def seen(lab):
        asked.append(requested(None))
        return named("sizes").run(lab)

    spy = replace(named("sizes"), run=seen)
    before = requested(None)
    run.run([spy], [SEED], "reference")
    run.run([spy], [SEED])
    assert asked == ["reference", before] and requested(None) == before


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: one.name)
def test_a_band_follows_from_its_record_and_excludes_the_opposite_claim(experiment):
    recorded = run.recorded()[experiment.name]
    assert set(recorded) == {one.figure for one in experiment.expectations}
    for one in experiment.expectations:
        values = recorded[one.figure]
        assert len(values) == len(record.SEEDS)
        limit = one.limit(values)
        assert all(one.holds(value, limit) for value in values), one
        if not one.is_exact:
            assert not one.holds(one.value, limit), one


def test_what_is_recorded_was_made_with_seeds_that_no_run_uses():
    content = json.loads(run.RECORD.read_text())
    assert content["seeds"] == list(record.SEEDS) and min(record.SEEDS) > 50
    assert list(content["figures"]) == [one.name for one in EXPERIMENTS]


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: one.name)
def test_an_experiment_fails_where_the_opposite_is_measured(experiment):
    """Each figure in turn where the opposite claim begins, or off its exact value; the others as recorded."""
    recorded = run.recorded()[experiment.name]
    good = {figure: values[0] for figure, values in recorded.items()}
    assert judged(experiment, Measurement(good)).holds
    for one in experiment.expectations:
        bad = {"equal to": one.value + 1, "at most": one.value * 2 + 1e-9}.get(one.side, one.value)
        for value in (bad, float("nan")):
            result = judged(experiment, Measurement({**good, one.figure: value}))
            assert not result.holds and result.verdict == NOT_REPRODUCED, (one, value)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: one.name)
def test_an_experiment_is_told_in_sentences(experiment):
    assert experiment.verdict.startswith(("holds", "wrong as told"))
    for text in (experiment.claim, experiment.done, experiment.telling, experiment.reading):
        assert text[0].isupper() and text.endswith(".") and "  " not in text


def test_the_common_telling_is_corrected_openly():
    wrong = {one.name for one in EXPERIMENTS if one.verdict == "wrong as told"}
    assert {"flattening", "shift", "pooling", "cost", "reach", "sizes"} <= wrong
    assert named("equivariance").verdict.startswith("holds only")


def test_a_limit_lies_half_way_from_the_worst_seed_to_the_opposite():
    assert above("x", 0.0).limit([0.4, 0.2, 0.3]) == 0.1
    assert below("x", 1.0).limit([0.4, 0.2, 0.3]) == 0.7
    assert equal("x", 3.0).limit([]) == 3.0 and at_most("x", 1e-12).limit([]) == 1e-12
    with pytest.raises(ValueError, match="no record of 'x'"):
        above("x", 0.0).limit([])
    with pytest.raises(ValueError, match="expected above 0.3, recorded 0.2"):
        above("x", 0.3).limit([0.4, 0.2])
    with pytest.raises(ValueError, match="expected below 0.3, recorded 0.4"):
        below("x", 0.3).limit([0.4, 0.2])


def test_a_shuffle_keeps_the_pixels_and_is_the_same_for_all_pictures():
    images = torch.arange(2 * 16.0).view(2, 1, 4, 4)
    mixed = digits.shuffled(images, 3)
    assert not torch.equal(mixed, images)
    assert torch.equal(mixed.flatten(1).sort().values, images.flatten(1))
    assert torch.equal(mixed[1] - mixed[0], torch.full((1, 4, 4), 16.0))


def test_a_canvas_holds_the_moved_picture():
    canvas = digits.on_canvas(torch.ones(1, 1, 2, 2), 6, down=1, right=-2)
    assert canvas.sum() == 4 and canvas[0, 0, 3:5, 0:2].sum() == 4
    with pytest.raises(ValueError, match="2 pixels at row 2, column 5 leave a side of 6"):
        digits.on_canvas(torch.ones(1, 1, 2, 2), 6, right=3)


def test_a_split_leaves_no_picture_out_and_depends_on_the_seed_alone():
    split = digits.load(5)
    assert len(split.train) == digits.TRAINED and len(split.train) + len(split.test) == 1797
    again, other = digits.load(5), digits.load(6)
    assert torch.equal(split.test, again.test) and not torch.equal(split.test, other.test)


def test_random_numbers_go_on_as_before():
    torch.manual_seed(1)
    wanted = torch.rand(2)
    torch.manual_seed(1)
    first = torch.rand(1)
    with training.seeded(7):
        torch.rand(5)
    assert torch.equal(torch.cat((first, torch.rand(1))), wanted)


def test_a_network_is_trained_where_no_derivatives_are_taken():
    split = digits.load(1)
    with torch.no_grad():
        model = training.fit(lambda: networks.mlp(64), split.train, split.train_labels, 1, epochs=2)
    assert not model.training and training.accuracy(model, split.test, split.test_labels) > 0.5
    assert training.parameters(model) == 64 * 64 + 64 + 64 * 10 + 10


def test_a_ridge_reader_tells_what_a_line_divides():
    features = torch.tensor([[0.0, 0], [1, 0], [0, 1], [5, 5], [6, 5], [5, 6]])
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    read = training.ridge(features, labels, 2)
    assert torch.equal(read(features), labels) and read(torch.tensor([[-3.0, -3]])).item() == 0


def test_the_command_prints_draws_and_writes(tmp_path):
    found = invoke("sizes", "locality", "--quick", "--out", str(tmp_path), "--json", str(tmp_path / "lesson.json"))
    assert found.exit_code == 0, found.output
    assert "wrong as told" in found.output and "5x7" in found.output and "The number in a pixel" in found.output
    assert all((tmp_path / f"{name}.png").stat().st_size > 1000 for name in ("sizes", "locality"))
    data = json.loads((tmp_path / "lesson.json").read_text())
    assert [one["name"] for one in data["experiments"]] == ["sizes", "locality"] and data["seeds"] == [0]
    assert all(figure["holds"] for one in data["experiments"] for figure in one["figures"])


def test_the_command_repeats_with_several_seeds():
    found = invoke("locality", "--seeds", "2", "--seed", "4", "--json", "-")
    data = json.loads(found.output)
    assert data["seeds"] == [4, 5] and len(data["experiments"][0]["figures"][0]["measured"]) == 2


def test_the_command_fails_where_a_figure_is_outside(monkeypatch):
    bad = replace(named("sizes"), run=lambda lab: Measurement({one.figure: 4 for one in named("sizes").expectations}))
    monkeypatch.setattr(run, "EXPERIMENTS", (bad,))
    found = invoke("--quick")
    assert found.exit_code == 1 and "OUTSIDE" in found.output and "not reproduced: sizes" in found.output


def test_the_command_lists_and_refuses():
    listed = invoke("--list")
    assert listed.exit_code == 0 and all(one.name in listed.output for one in EXPERIMENTS)
    assert invoke("--help").output.count("spatialconv study lesson") >= 3
    unknown = invoke("sizes", "gravity")
    assert unknown.exit_code == 2 and "gravity" in unknown.output
    assert invoke("sizes", "--backend", "cudnn").exit_code == 2
    assert invoke("sizes", "--seeds", "0").exit_code == 2


def test_a_backend_that_cannot_run_is_refused_with_its_reason(monkeypatch):
    listed = backends()
    gone = replace(listed["numba"], available=False, reason="there is no numba here")
    monkeypatch.setattr(run, "backends", lambda: {**listed, "numba": gone})
    found = invoke("sizes", "--backend", "numba")
    assert found.exit_code == 2 and "there is no numba here" in found.output


def test_without_scikit_learn_the_command_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    digits._all.cache_clear()
    found = invoke("position", "--quick")
    assert found.exit_code == 2 and "pip install 'spatialconv[all]'" in found.output


def test_the_command_imports_nothing_heavy_before_it_runs():
    source = Path(spatialconv.cli.study.lesson.__file__).read_text()
    found = [node for node in ast.parse(source).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {name for node in found for name in ([node.module] if isinstance(node, ast.ImportFrom) else _names(node))}
    assert names == {"__future__", "pathlib", "typer", "_deliver"}


def _names(node: ast.Import) -> list[str]:
    return [alias.name for alias in node.names]
