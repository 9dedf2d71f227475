"""The command line: every command's help, its output, its exit code, what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from spatialconv import dispatch, settings, tuned
from spatialconv.bench import roofline, runner, tuning
from spatialconv.cli import app

COMMANDS = ("bench", "check", "explain", "info", "report", "tune")
PROBLEM = "conv2d n1 ic8 ih9 iw9 oc8 kh3 kw3 ph1 pw1 f32 nchw cpu"
PEAKS = roofline.Roofline({"f32": 1e14}, ((2**14, 1e14), (2**27, 1e14)), 1, "cpu")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def invoke(*words: str):
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, list(words))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command):
    found = invoke(command, "--help")
    assert found.exit_code == 0
    assert f"spatialconv {command}" in found.output and "Examples" in found.output


def test_help_names_the_commands():
    found = invoke("--help")
    assert all(command in found.output for command in COMMANDS)


def test_version():
    import spatialconv

    assert invoke("--version").output.strip() == spatialconv.__version__


def test_explain_says_what_the_dispatcher_says():
    found = invoke("explain", PROBLEM)
    assert found.exit_code == 0 and found.output.strip() == str(dispatch.explain_problem(PROBLEM))
    refused = invoke("explain", PROBLEM, "--backend", "extension:depthwise")
    assert refused.exit_code == 1 and "nothing takes it" in refused.output
    assert invoke("explain", "conv2d what").exit_code == 2
    assert invoke("explain", PROBLEM, "--backend", "cudnn").exit_code == 2


def test_info_has_every_section():
    found = invoke("info")
    assert found.exit_code == 0
    for word in ("versions", "torch", "instruction set in use", "backends", "reference", *settings.ENVIRONMENT):
        assert word in found.output
    facts = json.loads(invoke("info", "--json").output)
    assert set(facts["backends"]) == set(dispatch.backends())


def test_check_passes_on_a_subset_and_fails_on_a_wrong_kernel(monkeypatch):
    from spatialconv.backends.reference import BACKEND

    chosen = (
        "check",
        "--backend",
        "reference",
        "--op",
        "conv2d",
        "--dtype",
        "f32",
        "--dtype",
        "f64",
        "--layout",
        "nhwc",
    )
    found = invoke(*chosen)
    assert found.exit_code == 0, found.output
    assert "correctness" in found.output and "gradients" in found.output and "equivariance" in found.output
    kernel = next(one for one in BACKEND.kernels if "conv2d" in one.ops)
    right = kernel.functions["conv2d"]
    monkeypatch.setitem(kernel.functions, "conv2d", lambda *operands: right(*operands) + 1e-3)
    dispatch.forget_choices()
    try:
        found = invoke(*chosen, "--part", "correctness")
    finally:
        monkeypatch.undo()
        dispatch.forget_choices()
    assert found.exit_code == 1 and "WRONG" in found.output


def test_check_of_the_extension_on_a_subset():
    found = invoke(
        "check", "--backend", "extension:direct", "--op", "conv2d", "--dtype", "f32", "--part", "correctness"
    )
    assert found.exit_code == 0, found.output


def test_check_refuses_unknown_words():
    assert invoke("check", "--op", "conv3d").exit_code == 2
    assert invoke("check", "--backend", "cudnn").exit_code == 2


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("n2 ic8 ih9 iw9 oc8 kh3 kw3 ph1 pw1 *2\nmax_pool2d n2 ic8 ih9 iw9 kh2 kw2\n")
    return path


def test_bench_writes_json_and_picture_resumes_and_compares(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "measure", lambda *arguments, **named: PEAKS)
    result = tmp_path / "r.json"
    words = ("bench", "--suite", str(suite), "--backend", "reference", "--layout", "nchw", "--budget", "0")
    found = invoke(*words, "--json", str(result))
    assert found.exit_code == 0, found.output
    assert "max_pool2d" in found.output and "network mine" in found.output
    first = json.loads(result.read_text())
    assert len(first["rows"]) == 5 and (tmp_path / "r.png").stat().st_size > 1000
    again = invoke(*words, "--json", str(result), "--resume", "--compare", str(result))
    assert again.exit_code == 0, again.output
    assert json.loads(result.read_text())["rows"] == first["rows"]
    assert "5 rows compared with the older run, 5 without a certain change" in again.output
    for row in first["rows"]:
        for entry in row["peers"].values():
            entry.update(ratio=entry["ratio"] * 100, low=entry["low"] * 100, high=entry["high"] * 100)
    old = tmp_path / "old.json"
    old.write_text(json.dumps(first))
    worse = invoke(*words, "--json", str(result), "--resume", "--compare", str(old))
    assert worse.exit_code == 1 and "slower" in worse.output


def test_report_shows_a_file_and_what_two_have_in_common(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "measure", lambda *arguments, **named: PEAKS)
    result, picture = tmp_path / "r.json", tmp_path / "shares.png"
    words = ("--suite", str(suite), "--backend", "reference", "--layout", "nchw", "--budget", "0")
    assert invoke("bench", *words, "--json", str(result)).exit_code == 0
    content = json.loads(result.read_text())
    for row in content["rows"]:
        for entry in row["peers"].values():
            entry.update(ratio=0.5, low=0.4, high=0.6, high90=0.55)
    result.write_text(json.dumps(content))
    found = invoke("report", str(result), str(result), "--picture", str(picture))
    assert found.exit_code == 0, found.output
    assert "network mine" in found.output and "slower than torch in both files (5)" in found.output
    assert picture.stat().st_size > 1000
    assert invoke("report", str(result), "--layers").exit_code == 0
    assert invoke("report", str(tmp_path / "none.json")).exit_code == 2
    assert invoke("report", str(result), "--peer", "mkl").exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        ("--suite", "no-such-suite"),
        ("--backend", "cudnn"),
        ("--layout", "nwhc"),
        ("--dtype", "f8"),
        ("--pass", "sideways"),
        ("--peer", "mkl"),
        ("--cache", "warm"),
        ("--filter", "kh99"),
    ],
)
def test_bench_refuses_unknown_words(words, tmp_path):
    found = invoke("bench", *words, "--json", str(tmp_path / "r.json"))
    assert found.exit_code == 2 and not (tmp_path / "r.json").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"head": {"format": 1}}'])
def test_bench_leaves_a_file_that_it_cannot_resume(suite, tmp_path, monkeypatch, content):
    monkeypatch.setattr(roofline, "measure", lambda *arguments, **named: PEAKS)
    result = tmp_path / "r.json"
    result.write_text(content)
    found = invoke("bench", "--suite", str(suite), "--json", str(result), "--resume")
    assert found.exit_code == 2 and "result file" in found.output and result.read_text() == content


def interrupted_after(function, times: int):
    """The function, and Ctrl-C once it has run so often."""
    left = iter(range(times))

    def call(*arguments, **named):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return function(*arguments, **named)

    return call


def test_an_interrupted_bench_keeps_and_shows_what_it_has(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "measure", lambda *arguments, **named: PEAKS)
    result = tmp_path / "missing" / "folder" / "r.json"
    words = ("bench", "--suite", str(suite), "--backend", "reference", "--layout", "nchw", "--budget", "0")
    with monkeypatch.context() as patch:
        patch.setattr(runner.Bench, "row", interrupted_after(runner.Bench.row, 2))
        found = invoke(*words, "--json", str(result))
    assert found.exit_code == 1 and "stopped at 2 of 5 rows" in found.output and "--resume" in found.output
    before = json.loads(result.read_text())["rows"]
    assert len(before) == 2
    assert invoke(*words, "--json", str(result), "--resume").exit_code == 0
    after = json.loads(result.read_text())["rows"]
    assert len(after) == 5 and after[:2] == before


def test_an_interrupted_tune_keeps_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "cache_folder", lambda: tmp_path)
    tuned.forget()
    problem, other = dispatch.parse(PROBLEM), PROBLEM.replace("n1", "n2")
    key = tuned.key(problem, dispatch.current_context("cpu"))
    measured = tuning.Tuned(problem, key, "extension:gemm", "extension:direct", None, {}, {})
    monkeypatch.setattr(tuning, "tune_problem", interrupted_after(lambda *arguments, **named: measured, 1))
    found = invoke("tune", PROBLEM, other)
    assert found.exit_code == 1 and "stopped: 1 of 2 problems were not measured" in found.output
    assert json.loads((tmp_path / "tuned.json").read_text())["choices"] == {key: "extension:direct"}
    dispatch.forget_choices()


def test_tune_refuses_what_it_cannot_measure(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "cache_folder", lambda: tmp_path)
    for words in ((PROBLEM.replace("cpu", "cuda"),), (PROBLEM, "--filter", "kh99"), ("conv2d n1",)):
        assert invoke("tune", *words).exit_code == 2
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(settings, "cache_folder", lambda: tmp_path / "file")
    assert invoke("tune", PROBLEM, "--budget", "0").exit_code == 2


def test_info_survives_an_unknown_instruction_set(monkeypatch):
    def refuse() -> str:
        raise ValueError("no such level")

    monkeypatch.setattr(dispatch, "_cpu_isa", refuse)
    found = invoke("info")
    assert found.exit_code == 0 and "none: no such level" in found.output


def test_tune_judges_a_backends_own_choices(tmp_path, monkeypatch):
    monkeypatch.setattr(tuned, "path", lambda: tmp_path / "tuned.json")
    found = invoke("tune", PROBLEM, "--budget", "0", "--choice", "extension")
    assert found.exit_code == 0, found.output
    assert "1 problems, 1 with several kernels" in found.output and "numba" not in found.output
    assert not (tmp_path / "tuned.json").exists()
    assert invoke("tune", PROBLEM, "--choice", "cudnn").exit_code == 2


def test_tune_writes_only_without_dry_run(tmp_path, monkeypatch):
    monkeypatch.setattr(tuned, "path", lambda: tmp_path / "tuned.json")
    found = invoke("tune", PROBLEM, "--budget", "0", "--dry-run")
    assert found.exit_code == 0, found.output
    assert "1 problems measured" in found.output and not (tmp_path / "tuned.json").exists()
