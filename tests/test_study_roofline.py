"""The roofline: bounds follow from peaks and counts, dots from what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spatialconv.bench import roofline
from spatialconv.cli import app
from spatialconv.study import counting, dots, shape

SHAPE = "1x64x28x28 k=64 3x3 s1 p1"
PROBLEM = shape.read(SHAPE)
PEAKS = {"flops": {"f32": 80e9}, "copy": [[16384, 40e9], [2**24, 10e9]], "threads": 1, "device": "cpu"}


def row(problem: str, seconds: float, **changes) -> dict:
    timed = {"status": "ok", "kernel": "extension:gemm", "ours": {"median": seconds}}
    return {"key": problem, "problem": problem, **timed, **changes}


@pytest.fixture
def file(tmp_path) -> Path:
    pooling = str(shape.read("1x8x9x9 max 3x3"))
    rows = [
        row(str(PROBLEM), 1e-3), row(str(PROBLEM.replace(n=2)), 1e-3), row(str(PROBLEM.replace(dtype="f64")), 1e-3),
        row(str(PROBLEM.replace(n=3)), 1e-3, status="failed"), row(pooling, 1e-3),
    ]  # fmt: skip
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"head": {"format": 1, "roofline": PEAKS}, "rows": rows}))
    return path


def invoke(*words: str):
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["study", "roofline", *words])


def test_dots_are_operations_a_byte_and_a_second(file):
    found, machine, dtype = dots.read(file)
    assert dtype == "f32" and machine.flops == 80e9 and machine.bandwidth(2**20) == 40e9
    assert [dot.name for dot in found] == [str(PROBLEM), str(PROBLEM.replace(n=2))]
    counts = counting.count(PROBLEM)
    assert found[0].flops == pytest.approx(2 * counts.macs / 1e-3)
    assert found[0].intensity == pytest.approx(counting.ways(counts)[0].intensity)
    # Arithmetic binds at 100 operations a byte: the share is of 80e9 operations a second.
    assert found[0].share == pytest.approx(2 * counts.macs / 1e-3 / 80e9)
    assert found[0].lost == pytest.approx(1e-3 - 2 * counts.macs / 80e9)


def test_a_file_without_such_rows_is_refused(file, tmp_path):
    with pytest.raises(ValueError, match="measured convolutions of bf16"):
        dots.read(file, "bf16")
    with pytest.raises(ValueError, match="peak of f64"):
        dots.read(file, "f64")
    with pytest.raises(ValueError, match="No such file"):
        dots.read(tmp_path / "none.json")


def test_the_command_shows_a_files_layers_and_a_shapes_bounds(file, tmp_path):
    found = invoke(SHAPE, "--bench", str(file), "--json", str(tmp_path / "o.json"), "--out", str(tmp_path))
    assert found.exit_code == 0, found.output
    data = json.loads((tmp_path / "o.json").read_text())
    assert len(data["dots"]) == 2 and list(data["bounds"]) == ["tied", "untied", "dense", "im2col"]
    assert data["bounds"]["tied"]["by"] == "arithmetic" and data["bounds"]["untied"]["by"] == "memory"
    assert "2 measured layers" in found.output and (tmp_path / "roofline.png").stat().st_size > 10000


def test_the_command_measures_where_nothing_is_given(monkeypatch):
    measured = []

    def measure(dtypes, device="cpu"):
        measured.append((dtypes, device))
        return roofline.Roofline({"f32": 50e9, "bf16": 60e9}, ((2**14, 9e9),), 1, "cpu")

    monkeypatch.setattr(roofline, "measure", measure)
    found = invoke(SHAPE, "--dtype", "bf16", "--json", "-")
    assert found.exit_code == 0, found.output
    data = json.loads(found.output)
    assert measured == [({"bf16"}, "cpu")] and data["peaks"]["flops"] == 60e9
    assert "bf16" in data["problem"]
    untied = data["bounds"]["untied"]
    assert untied["flops"] == pytest.approx(9e9 * untied["intensity"])


def test_peaks_are_taken_as_given():
    data = json.loads(invoke(SHAPE, "--peak", "90", "--bandwidth", "11", "--json", "-").output)
    assert data["peaks"]["flops"] == 90e9 and data["peaks"]["bandwidths"] == [[0, 11e9]]


@pytest.mark.parametrize(
    "words",
    [
        (SHAPE, "--peak", "90"),
        (SHAPE, "--dtype", "f8"),
        (SHAPE, "--bench", "none.json"),
        ("1x64x28x28", "--peak", "90", "--bandwidth", "11"),
        (SHAPE, "--device", "tpu"),
        ("conv2d_grad_input n1 ic2 ih4 iw4 oc2 kh3 kw3 f32 nchw cpu", "--peak", "90", "--bandwidth", "11"),
    ],
)
def test_the_command_refuses(words):
    assert invoke(*words).exit_code == 2


def test_help_has_examples():
    found = invoke("--help")
    assert found.exit_code == 0 and "Examples" in found.output and "spatialconv study roofline" in found.output
