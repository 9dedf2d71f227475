"""The benchmark: its suites, its gate, its disbelief, and a run from end to end."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from spatialconv import dispatch
from spatialconv.bench import (
    gate,
    operands,
    peers,
    plot,
    results,
    roofline,
    runner,
    suites,
    table,
    timing,
    tolerance,
    tuning,
)
from spatialconv.problem import Conv2dProblem, parse
from spatialconv.shapes import dense_strides

# Peaks that nothing here reaches and that are not so high that anything would look impossible.
LIMITS = roofline.Roofline(
    {"f32": 1e14, "f64": 1e14, "bf16": 1e14, "f16": 1e14}, ((2**14, 1e14), (2**27, 1e14)), 1, "cpu"
)
TINY = """
# a comment
n1 ic8 ih9 iw9 oc8 kh3 kw3 sh1 sw1 ph1 pw1 dh1 dw1 g1 bias *3
n1 ic8 ih9 iw9 oc8 kh3 kw3 sh1 sw1 ph1 pw1 dh1 dw1 g8
max_pool2d n1 ic8 ih9 iw9 kh3 kw3 sh2 sw2 ph1 pw1
adaptive_avg_pool2d n1 ic8 ih9 iw9 oh1 ow1
conv_transpose2d n1 ic8 ih5 iw5 oc4 kh2 kw2 sh2 sw2 bias *2
"""


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.txt"
    path.write_text(TINY)
    return str(path)


def settings(suite: str, **changes) -> runner.Settings:
    return replace(
        runner.Settings(suites=(suite,), backends=("reference",), budget=0.0, clock="wall", layouts=("nchw",)),
        **changes,
    )


@pytest.mark.parametrize("name", suites.names())
def test_every_line_of_a_suite_is_a_problem_of_every_pass(name):
    layers = suites.load(name)
    assert layers
    for layer in layers:
        for layout in ("nchw", "nhwc"):
            fitted = suites.fit(layer, 1, "f32", layout, "cpu")
            cells = suites.cells(fitted, suites.PASSES)
            assert len(cells) == (3 if isinstance(layer.problem, Conv2dProblem) else 2)
            assert all(parse(str(cell.problem)) == cell.problem for cell in cells)
            assert fitted.problem.n == 1 and fitted.count == layer.count


def test_suites_count_what_their_head_lines_say():
    layers = [layer for layer in suites.load("resnet50") if isinstance(layer.problem, Conv2dProblem)]
    assert sum(layer.count for layer in layers) == 53
    macs = sum(layer.count * layer.problem.flops() / layer.problem.n / 2 for layer in layers)
    assert math.isclose(macs, 4.087e9, rel_tol=1e-3)


def test_a_layer_too_large_for_a_cpu_is_halved():
    layer = suites.parse_line("n8 ic64 ih512 iw512 oc64 kh3 kw3 ph1 pw1")
    assert layer.problem.flops() > 8 * suites.CPU_FLOPS
    fitted = suites.fit(layer, 8, "f32", "nchw", "cpu").problem
    assert (fitted.n, fitted.ih, fitted.iw, fitted.oh) == (1, 256, 256, 256)
    assert suites.fit(layer, 8, "f32", "nchw", "cpu").halved and not suites.fit(layer, 8, "f32", "nchw", "cuda").halved
    assert suites.fit(layer, None, "bf16", "nhwc", "cuda").problem.input_shape == (8, 64, 512, 512)


def test_the_row_of_a_halved_layer_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(suites, "CPU_FLOPS", 1e4)
    path = tmp_path / "large.txt"
    path.write_text("n2 ic8 ih12 iw12 oc8 kh3 kw3 ph1 pw1")
    chosen = settings(str(path), passes=("forward",))
    (work,) = runner.plan(chosen)
    row = runner.Bench(chosen, LIMITS).row(work)
    assert row["halved"] and "half the side" in row["note"] and " ih6 " in row["problem"]
    console = Console(width=180, file=io.StringIO())
    console.print(table.layers_table([row], "reference", "f32", "nchw"))
    assert "ih6 iw6 oc8 kh3 kw3 ph1 pw1 (half side)" in console.file.getvalue()


@pytest.mark.parametrize(
    "line", ["conv2d n1 ic8", "conv2d_grad_input n1 ic8 ih4 iw4 oc8", "n1 ic8 ih4 iw4 oc8 oh9 ow9"]
)
def test_a_line_that_is_no_layer_is_refused_in_words(line):
    with pytest.raises(ValueError):
        suites.parse_line(line)


def test_classes():
    def kind(text: str) -> str:
        layer = suites.parse_line(text)
        return suites.kind(layer.problem, layer.transposed)

    assert kind("n1 ic3 ih9 iw9 oc8 kh3 kw3") == "stem"
    assert kind("n1 ic8 ih9 iw9 oc8 kh3 kw3") == "3x3 s1"
    assert kind("local_conv2d n1 ic8 ih9 iw9 oc8 kh3 kw3 g8") == "untied"
    assert kind("n1 ic8 ih9 iw9 oc8 kh3 kw3 ph2 pw2 dh2 dw2") == "3x3 dilated"
    assert kind("n1 ic8 ih9 iw9 oc8 kh2 kw2 sh2 sw2") == "patches"
    assert kind("n1 ic8 ih9 iw9 oc8 sh2 sw2") == "1x1 s2"
    assert kind("n1 ic8 ih9 iw9 oc8 kh3 kw3 g8 sh2 sw2") == "depthwise 3"
    assert kind("n1 ic8 ih31 iw31 oc8 kh5 kw31 g8") == "depthwise 13-31"
    assert kind("n1 ic8 ih9 iw9 oc8 kh3 kw3 g2") == "grouped"
    assert kind("n1 ic8 ih9 iw9 oc8 kh3 kw3 g4") == "grouped, few or many channels"
    assert kind("conv_transpose2d n1 ic8 ih5 iw5 oc4 kh2 kw2 sh2 sw2") == "transposed"
    assert kind("adaptive_avg_pool2d n1 ic8 ih5 iw5 oh1 ow1") == "global avg pool"
    assert kind("avg_pool2d n1 ic8 ih5 iw5 kh5 kw5") == "global avg pool"
    assert kind("adaptive_max_pool2d n1 ic8 ih5 iw5 oh2 ow2") == "adaptive max pool"


def cells_of_every_op() -> list[suites.Cell]:
    layers = [suites.parse_line(line) for line in TINY.splitlines()]
    layers.append(suites.parse_line("avg_pool2d n2 ic5 ih9 iw8 kh3 kw2 ph1 pw1 ceil exclude_pad"))
    layers.append(suites.parse_line("adaptive_max_pool2d n2 ic5 ih9 iw8 oh4 ow3"))
    layers.append(suites.parse_line("n2 ic4 ih9 iw8 oc6 kh3 kw3 ph1 pw1 bias silu"))
    layers.append(suites.parse_line("local_conv2d n2 ic4 ih9 iw8 oc6 kh3 kw2 sh2 ph1 pw1 g2 bias"))
    fitted = [suites.fit(layer, 2, dtype, layout, "cpu") for layer in layers if layer for dtype, layout in
              (("f32", "nchw"), ("f32", "nhwc"), ("f64", "nhwc"), ("bf16", "nchw"))]  # fmt: skip
    return [cell for layer in fitted for cell in suites.cells(layer, suites.PASSES)]


@pytest.mark.parametrize("cell", cells_of_every_op(), ids=lambda cell: f"{cell.pass_name} {cell.problem}")
def test_ours_and_torch_compute_the_same_cell(cell):
    given = operands.make(cell.problem)
    right = gate.truth(cell.problem, given)
    with torch.no_grad():
        # torch's depthwise gradients round 16-bit sums on the way where a CPU has no AVX-512.
        rounding = "bf16" if cell.problem.dtype == "bf16" else "ieee"
        for call, tier in ((peers.ours(cell, "reference"), "ieee"), (peers.torch_call(cell), rounding)):
            verdict = gate.judge(cell.problem, call(*given), right, tier, check_layout=False)
            assert verdict.passed, verdict.reason


def test_the_gate_sees_one_wrong_element_behind_a_large_one():
    problem = parse("conv2d n1 ic4 ih8 iw8 oc4 kh3 kw3 ph1 pw1 f32 nchw cpu")
    input, weight, _ = operands.make(problem)
    input[0, :, 0, 0] *= 1e4
    right = gate.truth(problem, (input, weight, None))
    result = right.values.float()
    assert gate.judge(problem, result, right).passed
    result[0, 2, 6, 5] += 1e-4
    verdict = gate.judge(problem, result, right)
    assert not verdict.passed and "[0, 2, 6, 5]" in verdict.reason
    result[0, 2, 6, 5] = float("nan")
    assert not gate.judge(problem, result, right).passed
    assert "shape" in gate.judge(problem, result[:, :3], right).reason
    assert "dtype" in gate.judge(problem, result.double(), right).reason
    channels_last = right.values.float().contiguous(memory_format=torch.channels_last)
    assert "strides" in gate.judge(problem, channels_last, right).reason


def test_tolerance_grows_with_reduction_and_roundoff():
    assert tolerance.relative("f32", "ieee", 9) < tolerance.relative("f32", "ieee", 4608)
    order = [tolerance.relative(dtype) for dtype in ("f64", "f32", "f16", "bf16")]
    assert order == sorted(order)
    assert tolerance.relative("f32", "tf32", 9) > 2**-11


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_operands_of_one_channel_say_their_layout(layout):
    """torch takes such a tensor for both."""
    problem = parse(f"conv2d n1 ic1 ih5 iw4 oc2 kh3 kw3 f32 {layout} cpu")
    given = operands.clone(operands.make(problem))
    assert given[0].stride() == dense_strides(problem.input_shape, layout)
    assert given[1].stride() == dense_strides(problem.weight_shape, layout)


def test_operands_are_seeded_and_the_same_in_both_layouts():
    problem = parse("conv2d n2 ic4 ih8 iw8 oc6 kh3 kw3 bias f32 nchw cpu")
    first, again, other = operands.make(problem), operands.make(problem), operands.make(problem.replace(layout="nhwc"))
    for one, same, moved in zip(first, again, other, strict=True):
        assert torch.equal(one, same) and torch.equal(one, moved)
    assert other[0].is_contiguous(memory_format=torch.channels_last) and not other[0].is_contiguous()
    assert not torch.equal(operands.make(problem, seed=1)[0], first[0])


def test_rotation_exceeds_the_cache_and_hot_does_not():
    given = operands.make(parse("conv2d n1 ic64 ih56 iw56 oc64 kh1 kw1 f32 nchw cpu"))
    rotation = timing.Rotation(given, "rotate")
    assert rotation.working_set > 2 * timing.cache_size(2)
    taken = rotation.take(len(rotation.copies) + 1)
    assert taken[0] is taken[-1] and taken[0][0] is not taken[1][0]
    assert timing.Rotation(given, "hot").working_set == operands.size_in_bytes(given)


class Pretended:
    """A variant with prescribed times."""

    def __init__(self, times, clean=True):
        self.times, self.clean, self.asked = list(times), clean, 0

    def sample(self, calls):
        self.asked += 1
        return timing.Sample(self.times[self.asked % len(self.times)], self.clean)


def test_interleaving_gives_every_variant_as_many_samples_and_the_right_ratio():
    ours, peer = Pretended([1.0, 1.1, 0.9]), Pretended([2.0, 2.1, 1.9])
    samples = timing.interleave([ours, peer], budget=0.0, least=15)
    assert len(samples[0]) == len(samples[1]) == 15 and ours.asked == peer.asked
    used = timing.rounds_used(samples)
    assert used.paired
    found = timing.ratio(samples[0], samples[1], *used.rounds, used.paired)
    assert found.value == pytest.approx(2.0, rel=0.15) and found.low <= found.value <= found.high


def test_interrupted_rounds_are_left_out_where_enough_remain():
    slow, fast = timing.Sample(9.0, False), timing.Sample(1.0, True)
    ours = [fast, slow, fast, fast, fast, fast]
    used = timing.rounds_used([ours, [fast] * 6])
    assert used.rounds[0] == used.rounds[1] == [0, 2, 3, 4, 5]
    assert timing.summarise(ours, used.rounds[0]).median == 1.0
    assert timing.rounds_used([[slow] * 6, [fast] * 6]).rounds[0] == list(range(6))


def test_a_slow_cell_gets_no_more_than_its_patience():
    """Half a second with the default budget: three rounds of calls that alone would take three times as long."""
    now = [0.0]

    class Slow:
        def sample(self, calls):
            now[0] += 0.15 * calls
            return timing.Sample(0.15, True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing.time, "perf_counter", lambda: now[0])
        samples = timing.interleave([Slow(), Slow()], budget=0.2, least=9)
    assert len(samples[0]) == timing.LEAST_SLOW


def test_bounds_of_equal_variants_hold_one():
    generator = torch.Generator().manual_seed(0)
    times = (1.0 + 0.05 * torch.randn(2, 40, generator=generator)).tolist()
    ours, peer = ([timing.Sample(value, True) for value in row] for row in times)
    found = timing.ratio(ours, peer, range(40), range(40), True)
    assert found.low < 1.0 < found.high90 < found.high


def test_a_wrong_kernel_gets_no_speed(tiny, monkeypatch):
    from spatialconv.backends.reference import BACKEND

    kernel = next(one for one in BACKEND.kernels if "conv2d" in one.ops)
    right = kernel.functions["conv2d_grad_input"]
    monkeypatch.setitem(kernel.functions, "conv2d_grad_input", lambda *operands: right(*operands) * 1.001)
    dispatch.forget_choices()
    try:
        bench = runner.Bench(settings(tiny, passes=("grad_input",), filter="kh3"), LIMITS)
        rows = [bench.row(work) for work in runner.plan(bench.settings)]
    finally:
        monkeypatch.undo()
        dispatch.forget_choices()
    wrong = [row for row in rows if row["problem"].startswith("conv2d")]
    assert wrong and all(row["status"] == "wrong" and "ours" not in row and "peers" not in row for row in wrong)
    assert all("times the allowed" in row["reason"] for row in wrong)


def test_a_time_that_beats_the_machine_is_a_broken_measurement(tiny, monkeypatch):
    slow = replace(LIMITS, flops={"f32": 1.0}, copy=((1, 1.0),))
    monkeypatch.setattr(roofline, "measure", lambda dtypes, device: slow)
    bench = runner.Bench(settings(tiny, passes=("forward",)), slow)
    rows = [bench.row(work) for work in runner.plan(bench.settings)]
    assert rows and all(row["status"] == "broken" and "ours" not in row for row in rows)


def test_a_suspicion_is_checked_against_peaks_measured_anew(tiny, monkeypatch):
    monkeypatch.setattr(roofline, "measure", lambda dtypes, device: LIMITS)
    slow = replace(LIMITS, flops={"f32": 1.0}, copy=((2**14, 1.0), (2**27, 1.0)))
    bench = runner.Bench(settings(tiny, passes=("forward",), filter="max_pool2d"), slow)
    (row,) = (bench.row(work) for work in runner.plan(bench.settings))
    assert row["status"] == "ok" and bench.limits.copy == LIMITS.copy


def test_a_refusal_is_a_row_with_its_reasons(tiny):
    bench = runner.Bench(settings(tiny, backends=("extension:depthwise",), passes=("forward",), filter="bias"), LIMITS)
    (row,) = (bench.row(work) for work in runner.plan(bench.settings))
    assert row["status"] == "refused" and "extension:depthwise" in row["reason"]


def test_the_measured_roofline():
    found = roofline.measure({"f32"}, seconds=0.02)
    assert found.flops["f32"] > 1e8
    rates = [rate for _, rate in found.copy]
    assert rates == sorted(rates, reverse=True) and rates[-1] > 1e7
    problem = parse("conv2d n1 ic64 ih56 iw56 oc64 kh3 kw3 ph1 pw1 f32 nchw cpu")
    seconds, bound = found.seconds(problem, 2**20)
    assert seconds == max(problem.flops(False) / found.flops["f32"], problem.compulsory_bytes / found.bandwidth(2**20))
    assert bound in ("arithmetic", "memory")
    assert found.hard_limit(problem, winograd=True) <= found.hard_limit(problem, winograd=False) < seconds
    assert not roofline.may_use_winograd(problem, "extension:gemm") and roofline.may_use_winograd(problem, "torch")


def test_a_run_from_end_to_end(tiny, tmp_path):
    chosen = settings(
        tiny, backends=tuple(runner.computing_backends()), peers=("torch", "torch-best-layout", "openvino")
    )
    works = runner.plan(chosen)
    assert len({work.key for work in works}) == len(works)
    store = results.Store(tmp_path / "out" / "results.json", results.head(chosen.as_dict(), LIMITS.as_dict()))
    bench = runner.Bench(chosen, LIMITS)
    for work in works:
        store.add(bench.row(work))
    content = json.loads(store.path.read_text())
    assert {"machine", "versions", "build", "load", "settings", "roofline", "date"} <= set(content["head"])
    assert len(content["rows"]) == len(works)
    for row in content["rows"]:
        assert row["status"] == "ok", row.get("reason")
        assert row["kernel"].startswith(row["backend"]) and row["tier"] == "ieee" and row["cache"] == "rotate"
        entry = row["peers"]["torch"]
        assert entry["low"] <= entry["ratio"] <= entry["high"]
        assert row["peers"]["torch-best-layout"]["median"] <= entry["median"]
        assert 0 < row["roofline"]["share"] and row["roofline"]["largest_ratio"] > 0
        assert row["peers"]["openvino"]["status"] == "ok" or row["peers"]["openvino"]["reason"]
    counts = {row["problem"]: row["suites"] for row in content["rows"]}
    assert {"tiny": 3} in counts.values()
    networks = results.network_ratios(content["rows"], "torch")
    assert all(total["missing"] == 0 and total["ratio"] > 0 for total in networks.values())
    means = results.geometric_means(content["rows"], "torch")
    assert means["reference", "nchw", "forward", "all"][1] == 5
    picture = plot.draw(content["rows"], "torch", tmp_path / "out" / "picture.png", "a title")
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="another seed"):
        results.Store(store.path, results.head(replace(chosen, seed=7).as_dict()), resume=True)
    again = results.Store(store.path, results.head(chosen.as_dict()), resume=True)
    assert set(again.rows) == {work.key for work in works} and all(again.done(work.key) for work in works)
    again.add(content["rows"][0] | {"status": "failed"})
    assert not again.done(content["rows"][0]["key"])
    head = results.head(chosen.as_dict()) | {"isa": "another"}
    with pytest.raises(ValueError, match="another isa"):
        results.Store(store.path, head, resume=True)


def test_compare_marks_only_what_is_certain():
    def row(low: float, value: float, high: float) -> dict:
        return {"key": "k", "peers": {"torch": {"ratio": value, "low": low, "high": high}}}

    def verdict(old: dict, new: dict) -> str:
        (change,) = results.compare([old], [new])
        return change.verdict

    assert verdict(row(1.9, 2.0, 2.1), row(1.0, 1.1, 1.2)) == "slower"
    assert verdict(row(1.0, 1.1, 1.2), row(1.9, 2.0, 2.1)) == "faster"
    assert verdict(row(1.0, 1.5, 2.0), row(0.9, 1.2, 1.4)) == "same"
    assert results.compare([], [row(1, 2, 3)]) == []


def test_what_json_lacks_is_written_as_null(tmp_path):
    store = results.Store(tmp_path / "r.json", {"format": results.FORMAT})
    store.add({"key": "k", "error": float("inf")})
    assert results.load(store.path)["rows"][0]["error"] is None
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="not a result file"):
        results.load(tmp_path / "bad.json")
    for content in ("[]", "{}", '{"head": 1}', '{"head": {"format": 1}}', '{"head": {"format": 1}, "rows": [1]}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ValueError, match="expected a result file"):
            results.load(tmp_path / "bad.json")


def test_tuning_keeps_only_right_and_surely_faster_kernels(monkeypatch):
    problem = parse("conv2d n1 ic8 ih9 iw9 oc8 kh3 kw3 f32 nchw cpu")
    context = dispatch.current_context("cpu")
    names = tuning.candidates(problem, context)
    assert names and not any(name.startswith("reference:") for name in names)
    both = ["extension:direct", "reference:im2col"]
    monkeypatch.setattr(tuning, "candidates", lambda *arguments: both)

    def pretend(default: float, other: float):
        samples = [[timing.Sample(time * (1 + 0.01 * index), True) for index in range(9)] for time in (default, other)]
        monkeypatch.setattr(timing, "interleave", lambda *arguments: samples)
        return tuning.tune_problem(problem, 0.0, "wall")

    assert pretend(1.0, 0.5).winner == "reference:im2col"
    assert pretend(1.0, 0.5).gain.low > 1.9
    assert pretend(1.0, 0.5).share == pytest.approx(0.5) and pretend(1.0, 0.5).best == "reference:im2col"
    assert pretend(1.0, 2.0).share == 1.0 and pretend(1.0, 2.0).best == "extension:direct"
    assert not pretend(1.0, 0.99).changed and not pretend(0.5, 1.0).changed
    judge = gate.judge
    wrong = gate.Verdict(9.0, "pretended")
    verdicts = iter([judge(problem, gate.truth(problem, operands.make(problem)).values.float(),
                           gate.truth(problem, operands.make(problem))), wrong])  # fmt: skip
    monkeypatch.setattr(gate, "judge", lambda *arguments: next(verdicts))
    found = pretend(1.0, 0.5)
    assert not found.changed and found.wrong == {"reference:im2col": "pretended"}


def test_the_worst_rows_stand_first(tmp_path, tiny):
    chosen = settings(tiny, budget=0.0)
    bench = runner.Bench(chosen, LIMITS)
    rows = [bench.row(work) for work in runner.plan(chosen)[:6]]
    rows.append(rows[0] | {"status": "failed", "reason": "planted"})
    lines = table.worst_first(rows).splitlines()
    ratios = [float(line.split()[0]) for line in lines[1:-1]]
    assert len(ratios) == 6 and ratios == sorted(ratios)
    assert "planted" in lines[-1]


def test_prepacked_rows_time_layers_on_transformed_weights(tiny, monkeypatch):
    """The weight is transformed before anything is timed, once a copy; the key tells the rows apart."""
    packed = []
    kernel = dispatch.kernel("extension:gemm")
    whole = type(kernel).packed_weight
    monkeypatch.setattr(
        type(kernel), "packed_weight", lambda *arguments: packed.append(arguments[3]) or whole(*arguments)
    )
    found = settings(tiny, backends=("extension:gemm",), passes=("forward",), filter="oc8 ", prepacked=True)
    works = runner.plan(found)
    row = runner.Bench(found, LIMITS).row(works[0])
    assert row["status"] == "ok" and works[0].key.endswith(" prepacked")
    assert packed and len({weight.data_ptr() for weight in packed}) == len(packed)
    plain = runner.plan(replace(found, prepacked=False))
    assert [work.key + " prepacked" for work in plain] == [work.key for work in works]


def test_the_precision_asked_for_is_in_force(tmp_path, tiny):
    from typer.testing import CliRunner

    from spatialconv.cli import app

    before = torch.backends.mkldnn.conv.fp32_precision
    path = tmp_path / "found.json"
    words = f"bench --suite {tiny} --backend reference --pass forward --layout nchw --budget 0 --json {path}".split()
    try:
        for precision in ("tf32", "ieee"):
            ran = CliRunner().invoke(app, [*words, "--precision", precision])
            assert ran.exit_code == 0, ran.output
            assert results.load(path)["head"]["precision"] == precision
        ran = CliRunner().invoke(app, [*words, "--precision", "tf23"])
        assert ran.exit_code == 2 and "tf23" in ran.output
    finally:
        torch.backends.mkldnn.conv.fp32_precision = before
