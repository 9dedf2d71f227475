"""The simulator of caches: against plain Python, against known counts, against valgrind; reuse distances, sweeps."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict

import numpy as np
import pytest
from typer.testing import CliRunner

from spatialconv.cli import app
from spatialconv.study import cache, hardware, nests, oracles, reuse, sweep, trace_report, valgrind
from spatialconv.study.cache import Level
from spatialconv.study.compiled import Window
from spatialconv.study.crowding import crowding
from spatialconv.study.lru_judge import judge
from spatialconv.study.shape import read
from spatialconv.study.tally import tally
from spatialconv.study.trace import KINDS, sample, trace, window

pytest.importorskip("numba", reason="the simulator needs numba")
# One process, since most of the time goes into compiling nests.
pytestmark = pytest.mark.xdist_group("study-trace")

KNOWN = "1x16x32x32 k=32 3x3 p1"
TWO = cache.parse("48K/12/64,2M/16/64")
# Odd numbers of sets, lines of two sizes, so small that every kind of miss occurs.
ODD = (Level("L1", 3, 2, 32), Level("L2", 10, 4, 64))
GENERAL = "2x4x9x8 k=6 3x2 s2x1 p1 d1x2 g2"


@pytest.fixture(scope="module")
def general():
    """A nest in which every loop repeats and both guards stand."""
    return nests.direct(read(GENERAL))


def test_every_count_is_that_of_plain_python():
    found = [nests.direct(read(text)) for text in (GENERAL, "3x6x7x9 k=4 2x3 s1x2 p1 d2x1 g2 f64")]
    found += [nests.direct(read("2x8x6x6 k=8 3x3 p2 g4 bf16")), nests.dense(read("2x2x4x5 k=3 3x3 p1"))]
    for nest in found:
        got, expected = trace(nest, ODD, kinds=True, heat=True), judge(nest, ODD)
        assert got.accesses == expected.accesses == tally(nest).accesses
        assert got.misses == expected.misses
        assert got.kinds == expected.kinds
        by_level = {level.name: sum(got.misses[one.name, level.name] for one in nest.buffers) for level in ODD}
        assert by_level == {name: counts.sum() for name, counts in got.sets.items()}
    assert all(sum(got.kinds[key + (kind,)] for kind in KINDS) == count for key, count in got.misses.items())


def first_level_misses(nest, level: Level) -> list[tuple[str, int]]:
    """The buffer and address of every miss of one level, in plain Python."""
    sets = [OrderedDict() for _ in range(level.sets)]
    found = []
    for name, address, _ in nest.addresses():
        line = address // level.line
        held = sets[line % level.sets]
        if line not in held:
            found.append((name, address))
        held[line] = None
        held.move_to_end(line)
        if len(held) > level.ways:
            held.popitem(last=False)
    return found


@pytest.mark.parametrize("text", [GENERAL, GENERAL + " nhwc"])
def test_heat_and_sets_say_where_misses_were(text):
    nest = nests.direct(read(text), "n g oc oh ow ic kh kw")
    got = trace(nest, ODD, kinds=True, heat=True)
    expected = {one.name: np.zeros(one.shape, int) for one in nest.buffers}
    sets = np.zeros((len(nest.buffers), ODD[0].sets), int)
    for name, address in first_level_misses(nest, ODD[0]):
        buffer = nest.buffer(name)
        expected[name] += _offsets(buffer) == (address - buffer.base) // buffer.itemsize
        sets[nest.buffers.index(buffer), address // ODD[0].line % ODD[0].sets] += 1
    for name, values in expected.items():
        assert np.array_equal(got.heat[name], values), name
    assert np.array_equal(got.sets["L1"], sets)


def _offsets(buffer) -> np.ndarray:
    """Each element's offset, in the buffer's shape."""
    grids = np.indices(buffer.shape)
    return sum(grid * stride for grid, stride in zip(grids, buffer.strides, strict=True))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nchw", (1_636_352, 14_212, 32_768)),
        ("nhwc", (1_024, 288, 2_048)),
        ("im2col", (1_024, 288, 2_048, 304_128)),
        pytest.param("tiled", (5_888, 875, 2_048), marks=pytest.mark.full),
        pytest.param("untied", (1_636_352, 294_912, 32_768), marks=pytest.mark.full),
    ],
)
def test_known_counts(name, expected):
    got = trace(nests.named(read(KNOWN), name), TWO)
    assert tuple(got.misses[buffer.name, "L1"] for buffer in got.nest.buffers) == expected
    if name == "nchw":
        assert got.total("L1") == 1_683_332 and got.total("L2") == 3_360
        larger = trace(nests.named(sweep.resized(read(KNOWN), "side", 33), name), TWO)
        assert larger.total("L1") == 37_329


def test_a_sweep_compiles_once():
    from spatialconv.study import compiled

    problem = read(KNOWN)
    trace(nests.named(problem, "nchw"), TWO)
    before = compiled._compile.cache_info().misses
    for side in (9, 10, 11):
        trace(nests.named(sweep.resized(problem, "side", side), "nchw"), TWO)
    assert compiled._compile.cache_info().misses == before


def test_a_window_counts_its_rows_alone(general):
    """Rows from the first on count as the whole run does; those between are the difference of two runs."""
    rows = tally(general).rows
    whole = trace(general, ODD, kinds=True, heat=True)
    everything = trace(general, ODD, rows=Window(0, 0, rows, rows))
    assert (everything.accesses, everything.misses) == (whole.accesses, whole.misses)
    until = [trace(general, ODD, rows=Window(0, 0, last, rows)) for last in (7, 12)]
    between = trace(general, ODD, rows=Window(0, 7, 12, rows))
    for name, count in between.accesses.items():
        assert count == until[1].accesses[name] - until[0].accesses[name]
    for key, count in between.misses.items():
        assert count == until[1].misses[key] - until[0].misses[key]
    assert between.total("L1") < trace(general, ODD, rows=Window(7, 7, 12, rows)).total("L1")


def test_windows_are_chosen_for_long_runs_only():
    assert sample(nests.named(read(KNOWN), "nchw")) is None
    long = nests.named(read("8x256x56x56 k=256 3x3 p1"), "nhwc")
    found = sample(long)
    assert found.rows == 8 * 56 and 0 < found.warm < found.first < found.last < found.rows
    per_row = tally(long).total / found.rows
    assert (found.last - found.first) * per_row < 2e8
    with pytest.raises(ValueError, match="within 0:448, got 440:460"):
        window(long, 440, 460)


def test_traces_that_mean_nothing_are_refused(general):
    with pytest.raises(ValueError, match="different names"):
        trace(general, ())
    with pytest.raises(ValueError, match="whole run"):
        trace(general, ODD, kinds=True, rows=Window(0, 0, 1, tally(general).rows))
    with pytest.raises(ValueError, match="two lines"):
        trace(general, (Level("L1", 1, 1, 64),), kinds=True)


def test_what_does_not_fit_in_memory_is_refused():
    with pytest.raises(ValueError, match="output of .* runs into columns"):
        trace(nests.named(read("64x8x512x512 k=96 3x3 p1"), "im2col"), TWO)
    with pytest.raises(ValueError, match="heat on takes"):
        trace(nests.named(read("1x64x56x56 k=64 1x1"), "dense"), TWO, heat=True)


def test_reuse_distances_tell_the_misses_of_every_size(general):
    """Against fully associative caches of plain Python, of many sizes; the tree's times are renumbered on the way."""
    found = reuse.reuse(general, 32)
    for lines in (1, 2, 3, 5, 8, 13, 40, 100, 300):
        expected = Counter(name for name, _ in first_level_misses(general, Level("L1", 1, lines, 32)))
        for name in found.distances:
            curve = found.misses(name)
            assert curve[min(lines, len(curve) - 1)] == expected[name], (name, lines)
    traced = trace(general, ODD, kinds=True, heat=True)
    for name in found.distances:
        assert found.first[name] == traced.kinds[name, "L1", "first touch"]
        assert found.misses(name)[ODD[0].lines] == found.first[name] + traced.kinds[name, "L1", "capacity"]
    assert found.accesses == tally(general).accesses
    assert all(found.misses(name)[0] == count for name, count in found.accesses.items())


def test_reuse_refuses_what_takes_too_long():
    with pytest.raises(ValueError, match="500,000,000"):
        reuse.reuse(nests.named(read("8x256x56x56 k=256 3x3 p1"), "nhwc"))
    with pytest.raises(ValueError, match="2\\*\\*n, got 48"):
        reuse.reuse(nests.named(read(KNOWN), "nhwc"), 48)


def test_a_sweep_finds_the_cliff_and_a_padding_that_removes_it():
    problem = read("1x16x32x32 k=4 3x3 p1")
    found = sweep.sweep(problem, lambda one: nests.named(one, "nchw"), TWO, *sweep.parse_vary("side=30..34"))
    (cliff,) = found.cliffs
    assert cliff.value == 32 and cliff.times > 10 and cliff.kind == "conflict"
    padding = cliff.padding
    assert (padding.buffer, padding.axis) == ("input", "ic") and padding.cures
    usual = sum(sweep.load(found.traces[side]) for side in (31, 33)) / 2
    assert padding.misses < 1.5 * usual * sum(found.traces[32].accesses.values())
    assert padding.extra == 15 * padding.gap * 4
    crowd = crowding(found.traces[32].nest, TWO[0]).sum(0)
    assert crowd.max() > TWO[0].ways >= crowding(found.traces[33].nest, TWO[0]).sum(0).max()


@pytest.mark.parametrize("text", ["side", "side=3", "side=9..4", "kh=1..9", "side=4..40:0", "side=0..9"])
def test_other_variations_are_refused(text):
    with pytest.raises(ValueError, match="study: vary"):
        sweep.parse_vary(text)
    assert sweep.parse_vary("ic=16..64:16") == ("ic", range(16, 65, 16))


def ran(findings) -> list[oracles.Finding]:
    """The findings, or a skip that says what is missing."""
    found = list(findings)
    missing = [one.detail for one in found if one.outcome == oracles.SKIPPED]
    if missing:
        pytest.skip("; ".join(missing))
    return found


@pytest.mark.full(cost=3)
@pytest.mark.parametrize("name", oracles.ORACLES)
def test_every_oracle_agrees(name):
    found = ran(oracles.findings(thorough=False, only=(name,)))
    assert found and not [one for one in found if one.outcome == oracles.DIFFERS]


def test_autograd_agrees():
    found = ran(oracles.findings(only=("autograd",)))
    assert [one.outcome for one in found] == [oracles.AGREES] * 4


def test_valgrind_sees_the_nest(tmp_path):
    nest = nests.named(read("1x2x6x6 k=2 3x3 p1"), "nchw")
    try:
        program = valgrind.build(nest, tmp_path)
        seen = valgrind.addresses(nest, program)
        counts = valgrind.cachegrind(program, *TWO)
    except valgrind.MissingToolError as error:
        pytest.skip(str(error))
    assert seen == [(address, store) for _, address, store in nest.addresses()]
    # The program's own stack adds a line or two to so few.
    assert 0 <= counts.last - trace(nest, TWO).total("L2") <= 3
    assert counts.accesses >= tally(nest).total


def test_what_perf_prints_is_read_and_what_it_cannot_count_is_said():
    printed = "9081000,,L1-dcache-loads:u,100,100.00,,\n1683400,,L1-dcache-load-misses:u,100,100.00,,\n"
    assert hardware.parse(printed) == {"L1-dcache-loads": 9_081_000, "L1-dcache-load-misses": 1_683_400}
    with pytest.raises(valgrind.MissingToolError, match="L1-dcache-loads: <not supported>"):
        hardware.parse("<not supported>,,L1-dcache-loads:u,0,100.00,,")
    with pytest.raises(valgrind.MissingToolError, match="counts nothing here: Access"):
        hardware.parse("Access to performance monitoring is limited")


def test_a_missing_valgrind_is_said_and_not_passed_over(monkeypatch):
    monkeypatch.setattr(valgrind.shutil, "which", lambda name: None)
    found = oracles.report(oracles.findings(only=("lackey", "cachegrind")))
    assert found.data["outcomes"] == [oracles.SKIPPED] * 2 and not found.failed
    assert "valgrind is not installed" in str(found.tables[0].rows)


def test_a_disagreement_fails():
    found = oracles.report([oracles.Finding("lackey", "nchw", oracles.DIFFERS, 1, 2)])
    assert found.failed


def test_the_report_says_which_sets_are_crowded_and_what_was_sampled(general):
    traced = trace(nests.named(read("1x16x32x32 k=4 3x3 p1"), "nchw"), TWO, kinds=True)
    words = " ".join(trace_report.report([traced], "as given").notes)
    assert "up to 18 lines in one set of L1, which holds 12" in words and "SAMPLED" not in words
    rows = tally(general).rows
    sampled = trace(general, ODD, rows=Window(0, 7, 12, rows))
    assert f"SAMPLED: rows 7 to 12 of {rows}" in " ".join(trace_report.report([sampled], "as given").notes)


def invoke(*words: str):
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["study", *words])


def pictures(folder) -> list[str]:
    found = sorted(folder.glob("*.png"))
    assert all(path.stat().st_size > 5000 for path in found)
    return [path.stem for path in found]


@pytest.mark.parametrize("command", ["trace", "sweep", "reuse", "check"])
def test_help_has_examples(command):
    found = invoke(command, "--help")
    assert found.exit_code == 0 and "Examples" in found.output and f"spatialconv study {command}" in found.output


def test_study_trace_shows_writes_and_draws(tmp_path):
    words = ("trace", GENERAL, "--nest", "nchw", "--cache", "192/2/32,2560/4/64", "--heat", "--code")
    found = invoke(*words, "--json", str(tmp_path / "t.json"), "--out", str(tmp_path), "--c", str(tmp_path / "c"))
    assert found.exit_code == 0, found.output
    assert "for oc in range(3):" in found.output and "first touch" in found.output
    data = json.loads((tmp_path / "t.json").read_text())["nests"][0]
    expected = judge(nests.direct(read(GENERAL)), ODD)
    for level in ("L1", "L2"):
        for name, count in data["misses"][level].items():
            assert count == expected.misses[name, level]
            assert data["kinds"][level][name] == {kind: expected.kinds[name, level, kind] for kind in KINDS}
    assert pictures(tmp_path) == ["heat-nchw", "misses", "raster-nchw", "sets"]
    assert "void nest(" in (tmp_path / "c" / "nchw.c").read_text()


def test_study_reuse_shows_writes_and_draws(tmp_path):
    words = ("reuse", GENERAL, "--nest", "nchw", "--cache", "192/2/32", "--json", str(tmp_path / "r.json"))
    found = invoke(*words, "--out", str(tmp_path))
    assert found.exit_code == 0, found.output
    data = json.loads((tmp_path / "r.json").read_text())["nests"][0]
    for name, count in data["accesses"].items():
        touches = sum(one["touches"] for one in data["histogram"][name])
        assert touches + data["first touches"][name] == count == data["misses"][name][0][1]
        assert data["misses"][name][-1][1] == data["first touches"][name]
    assert pictures(tmp_path) == ["curve-nchw", "reuse-nchw"]


def test_study_sweep_shows_writes_and_draws(tmp_path):
    words = ("sweep", "1x16x32x32 k=4 3x3 p1", "--vary", "side=31..33", "--cache", "48K/12/64,2M/16/64")
    found = invoke(*words, "--json", str(tmp_path / "s.json"), "--out", str(tmp_path))
    assert found.exit_code == 0, found.output
    assert "conflict. Padding input's ic stride from 1024 to" in found.output
    data = json.loads((tmp_path / "s.json").read_text())
    assert [one["side"] for one in data["values"]] == [31, 32, 33] and data["cliffs"][0]["value"] == 32
    assert pictures(tmp_path) == ["sweep"]


@pytest.mark.parametrize(
    "words",
    [
        ("trace", "1x16x32x32"),
        ("trace", KNOWN, "--nest", "winograd"),
        ("trace", KNOWN, "--cache", "32K"),
        ("trace", KNOWN, "--tile", "oc:8"),
        ("trace", KNOWN, "--tile", "oc=8,oc=4"),
        ("trace", KNOWN, "--nest", "im2col", "--order", "n oh ow"),
        ("trace", KNOWN, "--nest", "dense", "--tile", "oc=8"),
        ("trace", KNOWN, "--order", "n oh ow"),
        ("trace", KNOWN, "--rows", "5"),
        ("trace", KNOWN, "--nest", "nchw", "--rows", "5:4"),
        ("trace", KNOWN + " bf16", "--nest", "nchw", "--c", "here"),
        ("sweep", KNOWN, "--vary", "side=1..3", "--nest", "pool"),
        ("sweep", "1x16x9x9 k=4 5x5", "--vary", "side=3..6"),
        ("sweep", "1x16x9x9 max 2x2", "--vary", "oc=3..6"),
        ("sweep", "8x256x56x56 k=256 3x3 p1", "--vary", "side=56..58"),
        ("reuse", "8x256x56x56 k=256 3x3 p1", "--nest", "nhwc"),
        ("check", "--oracle", "delphi"),
    ],
)
def test_wrong_words_are_usage_errors(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = invoke(*words)
    assert found.exit_code == 2, found.output
    assert "study:" in found.output.replace("│", "")


def test_study_check_ends_with_what_it_found(monkeypatch):
    agrees = oracles.Finding("one", "nest", oracles.AGREES, 3, 3)
    for outcome, plain, required in ((oracles.AGREES, 0, 0), (oracles.DIFFERS, 1, 1), (oracles.SKIPPED, 0, 3)):
        other = oracles.Finding("other", "nest", outcome, detail="no such tool")
        monkeypatch.setattr(oracles, "findings", lambda thorough, only, other=other: iter([agrees, other]))
        assert invoke("check").exit_code == plain
        found = invoke("check", "--require")
        assert found.exit_code == required and "no such tool" in found.output


def test_paths_that_cannot_be_written_are_usage_errors(tmp_path):
    (tmp_path / "file").write_text("")
    words = ["study", "trace", "1x4x8x8 k=4 3x3 p1", "--nest", "nchw", "--cache", "4K/4/64"]
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
    for more in (
        ["--out", str(tmp_path / "file")],
        ["--json", str(tmp_path / "file" / "x")],
        ["--json", str(tmp_path)],
    ):
        assert runner.invoke(app, [*words, *more]).exit_code == 2
