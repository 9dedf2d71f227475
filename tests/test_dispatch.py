"""Which kernel runs: requests by argument, block, environment and measured table; refusals and their words."""

from __future__ import annotations

import importlib
import json
import threading
import warnings

import child
import pytest
import torch
from calls import BACKENDS, CALLS, FEW, assert_same, flat

import spatialconv
from spatialconv import dispatch, eager, settings, tuned
from spatialconv.errors import BackendUnavailableError, ReferenceFallbackWarning, UnsupportedProblemError
from spatialconv.problem import LOCAL_OPS, parse

backend_modules = importlib.import_module("spatialconv.backends")
IMAGE, WEIGHT = torch.rand(1, 2, 5, 5), torch.rand(4, 2, 3, 3)
TEXT = "conv2d n1 ic2 ih5 iw5 oc4 kh3 kw3 f32 nchw cpu"


@pytest.fixture(autouse=True)
def forget():
    yield
    dispatch.forget_choices()
    eager.forget()


@pytest.fixture
def ran(monkeypatch):
    """The kernels that have run, in order, as (op, name, thread)."""
    names = []
    for name in backend_modules.NAMES:
        for kernel in backend_modules.load(name).kernels:

            def plan(problem, context, kernel=kernel, original=kernel.plan):
                run = original(problem, context)

                def recorded(*args):
                    names.append((problem.op, kernel.full_name, threading.get_ident()))
                    return run(*args)

                return recorded

            monkeypatch.setattr(kernel, "plan", plan)
    dispatch.forget_choices()
    eager.forget()
    return names


def kernels(ran):
    return [name for _, name, _ in ran]


@pytest.mark.parametrize("op", dispatch.TABLE)
def test_table_names_kernels_that_are_there(op):
    for name in dispatch.TABLE[op]:
        kernel = dispatch.kernel(name)
        assert kernel.full_name == name and op in kernel.ops
    assert dispatch.TABLE[op][-1].startswith("reference:")


def test_every_kernel_stands_in_the_table():
    for backend in map(backend_modules.load, backend_modules.NAMES):
        for kernel in backend.kernels:
            assert all(kernel.full_name in dispatch.TABLE[op] for op in kernel.ops)


@pytest.mark.parametrize(
    "request_", ["extension", "reference", "extension:direct", "extension:gemm", "reference:im2col"]
)
def test_argument_picks_backend_or_kernel(ran, request_):
    spatialconv.conv2d(IMAGE, WEIGHT, backend=request_)
    torch.ops.spatialconv.conv2d(IMAGE, WEIGHT, None, (1, 1), (0, 0), (1, 1), 1, request_)
    assert len(ran) == 2 and all(name.startswith(request_) for name in kernels(ran))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CALLS, ids=str)
def test_every_function_and_gradient_stays_with_its_backend(ran, case, backend):
    flat(case.ours(*case.tensors(requires_grad=True), backend=backend))[0].sum().backward()
    assert len(ran) >= 2 and {name.partition(":")[0] for name in kernels(ran)} == {backend}


def test_a_kernel_binds_the_forward_pass_and_its_backend_the_gradients(ran):
    weight = WEIGHT.clone().requires_grad_()
    spatialconv.conv2d(IMAGE, weight, backend="extension:direct").sum().backward()
    assert ran[0][:2] == ("conv2d", "extension:direct")
    assert [op for op, *_ in ran[1:]] == ["conv2d_grad_weight"]
    assert ran[1][1] == dispatch.explain_problem(TEXT.replace("conv2d", "conv2d_grad_weight"), "extension").chosen


def test_blocks_nest_and_the_argument_wins(ran):
    with spatialconv.use_backend("reference"):
        spatialconv.conv2d(IMAGE, WEIGHT)
        with spatialconv.use_backend("extension:direct"):
            spatialconv.conv2d(IMAGE, WEIGHT)
            spatialconv.conv2d(IMAGE, WEIGHT, backend="reference")
        spatialconv.conv2d(IMAGE, WEIGHT)
        with spatialconv.use_backend("auto"):
            spatialconv.conv2d(IMAGE, WEIGHT)
    assert kernels(ran)[:4] == ["reference:im2col", "extension:direct", "reference:im2col", "reference:im2col"]
    assert kernels(ran)[4].startswith("extension")
    with pytest.raises(KeyError), spatialconv.use_backend("reference"):
        raise KeyError
    spatialconv.conv2d(IMAGE, WEIGHT)
    assert kernels(ran)[5].startswith("extension")


def test_a_block_is_for_its_thread_alone(ran):
    inside, done = threading.Event(), threading.Event()

    def other():
        inside.wait()
        spatialconv.conv2d(IMAGE, WEIGHT)
        with spatialconv.use_backend("extension:direct"):
            spatialconv.conv2d(IMAGE, WEIGHT)
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with spatialconv.use_backend("reference"):
        inside.set()
        done.wait()
        spatialconv.conv2d(IMAGE, WEIGHT)
    thread.join()
    here = threading.get_ident()
    assert [name.partition(":")[0] for _, name, _ in ran] == ["extension", "extension", "reference"]
    assert [ident == here for *_, ident in ran] == [False, False, True]


@pytest.mark.parametrize("case", FEW, ids=str)
def test_backward_after_the_block_and_in_another_thread(ran, case):
    tensors = case.tensors(requires_grad=True)
    with spatialconv.use_backend("reference"):
        outputs = [flat(case.ours(*tensors))[0] for _ in range(2)]
        with torch.autograd.profiler.profile():
            outputs.append(flat(case.ours(*tensors))[0])
    outputs[0].sum().backward()
    thread = threading.Thread(target=lambda: outputs[1].sum().backward())
    thread.start()
    thread.join()
    with spatialconv.use_backend("extension"):
        outputs[2].sum().backward()
    assert len(ran) >= 6 and {name.partition(":")[0] for name in kernels(ran)} == {"reference"}


def test_environment_names_the_default():
    code = f"from spatialconv import explain as e; print(e({TEXT!r}).chosen, e({TEXT!r}, backend='extension').chosen)"
    done = child.python("-c", code, SPATIALCONV_BACKEND="reference")
    assert done.stdout.split()[0] == "reference:im2col" and done.stdout.split()[1].startswith("extension"), done.stderr


def test_environment_with_an_unknown_word():
    code = "import torch, spatialconv; spatialconv.avg_pool2d(torch.rand(1, 1, 4, 4), 2)"
    done = child.python("-c", code, SPATIALCONV_BACKEND="cudnn")
    assert done.returncode == 1 and "ValueError" in done.stderr and "got 'cudnn'" in done.stderr


@pytest.mark.parametrize("call", [
    lambda: spatialconv.conv2d(IMAGE, WEIGHT, backend="cudnn"),
    lambda: spatialconv.max_pool2d(IMAGE, 2, backend="extension:"),
    lambda: spatialconv.use_backend("cudnn").__enter__(),
    lambda: spatialconv.explain(TEXT, backend="cudnn"),
])  # fmt: skip
def test_unknown_names_list_the_known_ones(call):
    with pytest.raises(
        ValueError, match="expected one of auto, extension, numba, triton, reference, extension:depthwise"
    ):
        call()


def test_explicit_request_never_falls_back(ran):
    image, weight = IMAGE.to(torch.complex64), WEIGHT.to(torch.complex64)
    with pytest.raises(UnsupportedProblemError) as refused:
        spatialconv.conv2d(image, weight, backend="extension")
    text = str(refused.value)
    for name in dispatch.candidates("conv2d", "extension"):
        for_gpu, dtypes = "cuda" in dispatch.kernel(name).devices, ", ".join(dispatch.kernel(name).dtypes)
        reason = "runs on cuda tensors, the problem is on cpu" if for_gpu else f"computes in {dtypes}, the problem"
        assert f"- {name}: {reason}" in text
    assert "conv2d n1 ic2 ih5 iw5 oc4 kh3 kw3 c64 nchw cpu" in text and "try: backend='auto'" in text
    with pytest.raises(UnsupportedProblemError, match="needs one input channel a group"):
        spatialconv.conv2d(IMAGE, WEIGHT, backend="extension:depthwise")
    with pytest.raises(UnsupportedProblemError, match="has no kernel for max_pool2d"):
        spatialconv.max_pool2d(IMAGE, 2, backend="extension:gemm")
    for arguments in (
        (spatialconv.max_pool2d, IMAGE, 2, "extension:gemm"),
        (spatialconv.conv2d, image, weight, "extension"),
    ):
        call, *operands, backend = arguments
        with pytest.raises(UnsupportedProblemError) as refused:
            call(*operands, backend=backend)
        reasons = [line for line in str(refused.value).splitlines() if line.startswith("  - ")]
        explained = str(spatialconv.explain(call, *operands, backend=backend)).splitlines()
        assert reasons and reasons == [line for line in explained if line.startswith("  - ")]
    assert ran == []


def test_all_reasons_are_given():
    problem = dispatch.parse("conv2d n1 ic2 ih5 iw5 oc4 kh3 kw3 c64 nchw cpu")
    reasons = dispatch.reasons_against("extension:depthwise", problem, dispatch.Context())
    assert len(reasons) == 2, reasons


def test_another_device_is_reason_enough():
    problem = dispatch.parse("conv2d n1 ic2 ih5 iw5 oc4 kh3 kw3 c64 nchw cuda")
    reasons = dispatch.reasons_against("extension:depthwise", problem, dispatch.Context())
    assert reasons == ("runs on cpu tensors, the problem is on cuda",)


@pytest.fixture
def no_extension(monkeypatch):
    reason = "the compiled module is missing: there was no compiler"
    for name in ("extension", "numba"):
        monkeypatch.setattr(backend_modules.load(name), "unavailable", lambda: reason)
    dispatch.forget_choices()
    eager.forget()
    monkeypatch.setattr(dispatch, "_warned", set())
    return reason


def test_missing_extension(no_extension):
    with pytest.raises(BackendUnavailableError, match=no_extension):
        spatialconv.conv2d(IMAGE, WEIGHT, backend="extension")
    with pytest.raises(BackendUnavailableError, match=no_extension):
        spatialconv.conv2d(IMAGE, WEIGHT, backend="extension:gemm")
    listed = spatialconv.backends()["extension"]
    assert not listed.available and listed.reason == no_extension
    assert no_extension in str(spatialconv.explain(TEXT))


def test_auto_at_the_reference_warns_once_with_the_reasons(no_extension):
    with pytest.warns(ReferenceFallbackWarning, match=no_extension):
        first = spatialconv.conv2d(IMAGE, WEIGHT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(first, spatialconv.conv2d(IMAGE, WEIGHT))
        spatialconv.conv2d(IMAGE.repeat(2, 1, 1, 1), WEIGHT)
        spatialconv.conv2d(IMAGE, WEIGHT, backend="reference")
    with pytest.warns(ReferenceFallbackWarning, match="max_pool2d"):
        spatialconv.max_pool2d(IMAGE, 2)


def test_an_explicit_reference_does_not_warn(no_extension):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ReferenceFallbackWarning)
        spatialconv.conv2d(IMAGE, WEIGHT, backend="reference")
        with spatialconv.use_backend("reference"):
            spatialconv.conv2d(IMAGE, WEIGHT)


def test_fallback_does_not_break_compiled_graphs(no_extension):
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, w: spatialconv.conv2d(x, w), backend="aot_eager", fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(compiled(IMAGE, WEIGHT), spatialconv.conv2d(IMAGE, WEIGHT))


def test_explain_speaks_the_words_of_the_exception():
    for text, request_ in ((TEXT.replace("f32", "c64"), "extension"), (TEXT, "extension:depthwise")):
        explanation = spatialconv.explain(text, backend=request_)
        with pytest.raises(UnsupportedProblemError) as refused:
            dispatch.choose(explanation.problem, request_)
        reasons = [line for line in str(explanation).splitlines() if line.startswith("  - ")]
        assert explanation.chosen is None and reasons
        assert reasons == [line for line in str(refused.value).splitlines() if line.startswith("  - ")]


def test_explain_names_what_then_runs(ran):
    for case in CALLS:
        explanation = spatialconv.explain(getattr(spatialconv, case.name), *case.tensors(), **case.options)
        assert ran == [], "explain must not compute"
        case.ours(*case.tensors())
        assert kernels(ran) == [explanation.chosen]
        assert set(explanation.not_asked) | {name for name, _ in explanation.refused} | {explanation.chosen} == set(
            dispatch.TABLE[explanation.problem.op]
        )
        ran.clear()


def test_explain_takes_a_layer():
    layer = spatialconv.nn.Conv2d(2, 4, 3, backend="reference")
    explanation = spatialconv.explain(layer, IMAGE)
    assert explanation.chosen == "reference:im2col" and explanation.problem.bias
    with pytest.raises(ValueError, match="none of spatialconv's functions"):
        spatialconv.explain(torch.nn.ReLU(), IMAGE)


def test_explain_tells_of_copies():
    image = torch.rand(1, 5, 5, 2).permute(0, 3, 2, 1)
    assert "input is copied first" in str(spatialconv.explain(spatialconv.conv2d, image, WEIGHT))
    assert "copied" not in str(spatialconv.explain(spatialconv.conv2d, IMAGE, WEIGHT))
    last = IMAGE.contiguous(memory_format=torch.channels_last)
    assert "copied" not in str(spatialconv.explain(spatialconv.conv2d, last, WEIGHT))
    with pytest.raises(ValueError, match="none of spatialconv's functions"):
        spatialconv.explain(lambda image: image, IMAGE)


def test_backends_lists_all():
    listed = spatialconv.backends()
    assert list(listed) == list(backend_modules.NAMES)
    for name, info in listed.items():
        assert info.available and info.reason is None
        # Triton has no kernel for untied weights, which are bound by memory on any device.
        assert set(info.kernels) == set(dispatch.TABLE) - set(LOCAL_OPS if name == "triton" else ())
        assert all(kernel.startswith(f"{name}:") for row in info.kernels.values() for kernel in row)


def test_memos_are_bounded(monkeypatch):
    monkeypatch.setattr(dispatch, "_MEMO_LIMIT", 5)
    monkeypatch.setattr(eager, "_MEMO_LIMIT", 5)
    dispatch.forget_choices()
    eager.forget()
    for rows in range(1, 20):
        spatialconv.avg_pool2d(torch.rand(1, 1, rows, 2), 1)
        assert len(dispatch._memo) <= 5 and len(eager._memo) <= 5


def test_what_was_measured_anew_replaces_what_the_table_said(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "cache_folder", lambda: tmp_path / "new" / "folder")
    tuned.forget()
    assert tuned.save({"a": "extension:direct", "b": "extension:gemm"}, ["a", "b"])
    assert not tuned.save({"a": "extension:direct"}, ["a"])
    # Another process saves between this one's reading and writing.
    content = json.loads(tuned.path().read_text())
    content["choices"]["c"] = "extension:direct"
    tuned.path().write_text(json.dumps(content))
    assert tuned.save({"d": "extension:gemm"}, ["a", "d"])
    assert json.loads(tuned.path().read_text())["choices"] == {
        "b": "extension:gemm", "c": "extension:direct", "d": "extension:gemm",
    }  # fmt: skip
    assert {file.name for file in tuned.path().parent.iterdir()} == {"tuned.json", "tuned.json.lock"}
    tuned.forget()


def test_measured_table_is_obeyed(ran, monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "cache_folder", lambda: tmp_path)
    tuned.forget()
    problem, context = dispatch.parse(TEXT), dispatch.current_context("cpu")
    tuned.save({tuned.key(problem, context): "extension:direct"})
    dispatch.forget_choices()
    spatialconv.conv2d(IMAGE, WEIGHT)
    assert kernels(ran) == ["extension:direct"]
    explanation = spatialconv.explain(TEXT)
    assert explanation.chosen == "extension:direct" and "measured to be the fastest" in str(explanation)
    assert dispatch.choose(problem, "auto").tuned
    assert dispatch.choose(problem, "reference").kernel.full_name == "reference:im2col"


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"format": 1}', '{"format": 0, "machine": {}, "choices": {"a": "b"}}']
)
def test_a_foreign_or_broken_table_is_not_believed(monkeypatch, tmp_path, content):
    monkeypatch.setattr(settings, "cache_folder", lambda: tmp_path)
    (tmp_path / "tuned.json").write_text(content)
    tuned.forget()
    dispatch.forget_choices()
    assert not dispatch.choose(dispatch.parse(TEXT), "auto").tuned


@pytest.mark.parametrize("entry", ["extension:gone", "reference", 7, None, "extension:depthwise"])
def test_a_table_that_names_no_usable_kernel_is_passed_over(monkeypatch, tmp_path, entry):
    monkeypatch.setattr(settings, "cache_folder", lambda: tmp_path)
    problem, context = dispatch.parse(TEXT), dispatch.current_context("cpu")
    content = {"format": tuned.FORMAT, "machine": tuned.machine(), "choices": {tuned.key(problem, context): entry}}
    (tmp_path / "tuned.json").write_text(json.dumps(content))
    tuned.forget()
    dispatch.forget_choices()
    assert dispatch.choose(problem, "auto").kernel.backend == "extension"


def test_surroundings_are_part_of_the_choice(monkeypatch):
    contexts = []
    kernel = dispatch.kernel(dispatch.explain_problem(TEXT).chosen)
    original = kernel.plan
    monkeypatch.setattr(kernel, "plan", lambda problem, context: contexts.append(context) or original(problem, context))
    dispatch.forget_choices()
    eager.forget()
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            spatialconv.conv2d(IMAGE, WEIGHT)
        torch.use_deterministic_algorithms(True)
        spatialconv.conv2d(IMAGE, WEIGHT)
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(False)
    assert [(context.threads, context.deterministic) for context in contexts] == [(1, False), (2, False), (1, True)]


def test_the_cpus_precision_is_part_of_the_choice(ran):
    """A short call remembers its plan for the precision in force, forward and in its gradients."""
    image, weight = torch.rand(1, 16, 32, 32), torch.rand(16, 16, 3, 3, requires_grad=True)
    switch, found = torch.backends.mkldnn.conv, []
    before = switch.fp32_precision
    try:
        for asked in ("ieee", "tf32", "ieee"):
            switch.fp32_precision = asked
            ran.clear()
            spatialconv.conv2d(image.requires_grad_(), weight, padding=1).sum().backward()
            found.append([name for name in kernels(ran) if "winograd" in name])
    finally:
        switch.fp32_precision = before
    exact, rounded = ["extension:winograd"] * 2, ["extension:winograd4"] * 2
    assert found == [exact, rounded, exact]


@pytest.mark.parametrize(("text", "kernel", "why"), [
    ("conv2d n1 ic16 ih28 iw28 oc16 kh3 kw3 ph1 pw1", "extension:winograd", ""),
    ("conv2d n1 ic3 ih64 iw64 oc64 kh3 kw3 ph1 pw1", "extension:gemm", "with 3 channels summed into 64"),
    ("conv2d_grad_input n1 ic64 ih64 iw64 oc3 kh3 kw3 ph1 pw1", "extension:gemm", "with 3 channels summed into 64"),
    ("conv2d n1 ic64 ih4 iw4 oc64 kh3 kw3 ph1 pw1", "extension:gemm", "with fewer than 8 tiles"),
    ("conv2d n8 ic64 ih3 iw3 oc64 kh3 kw3 ph1 pw1", "extension:gemm", "takes only 1.27 times its products"),
])  # fmt: skip
def test_a_kernel_that_does_not_pay_is_asked_later(text, kernel, why):
    explanation = spatialconv.explain(text)
    assert explanation.chosen == kernel
    notes = [note for note in explanation.notes if note.startswith("extension:winograd is asked later: ")]
    assert len(notes) == bool(why) and all(why in note for note in notes)
    assert spatialconv.explain(text, backend="extension").chosen == kernel


def test_the_architecture_asked_is_that_of_the_tensors_own_gpu(monkeypatch):
    """Not the current device's: a machine may hold GPUs of several kinds."""
    from spatialconv import eager

    capabilities = {None: (9, 0), 0: (9, 0), 1: (8, 0)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=None: capabilities[index])
    assert [dispatch.current_context("cuda", index).isa for index in (None, 0, 1)] == ["sm_90", "sm_90", "sm_80"]
    asked, choose = [], dispatch.choose
    monkeypatch.setattr(dispatch, "choose", lambda *args, index=None: asked.append(index) or choose(*args))
    eager.Entry(dispatch.parse(TEXT), "reference", 1)
    assert asked == [1]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("max_pool2d n8 ic64 ih56 iw56 kh3 kw3 sh2 sw2 ph1 pw1 bf16 nhwc cuda", "triton:windows"),
        ("conv2d_grad_weight n8 ic64 ih56 iw56 oc64 kh3 kw3 ph1 pw1 g64 f16 nhwc cuda", "triton:depthwise"),
        ("conv2d_grad_weight n8 ic3 ih224 iw224 oc64 kh7 kw7 sh2 sw2 ph3 pw3 bf16 nhwc cuda", "triton:implicit_gemm"),
        ("conv2d n8 ic96 ih56 iw56 oc24 bf16 nhwc cuda", "triton:implicit_gemm"),
        ("conv2d_grad_weight n8 ic96 ih56 iw56 oc24 bf16 nhwc cuda", "extension:depthwise"),
        ("conv2d n8 ic128 ih28 iw28 oc128 kh3 kw3 ph1 pw1 bf16 nhwc cuda", "extension:depthwise"),
        ("conv2d n8 ic96 ih56 iw56 oc24 f32 nhwc cuda", "extension:depthwise"),
        ("conv2d n8 ic128 ih56 iw56 oc128 kh3 kw3 ph1 pw1 g32 bf16 nhwc cuda", "extension:depthwise"),
        ("max_pool2d n8 ic64 ih56 iw56 kh3 kw3 sh2 sw2 ph1 pw1 bf16 nchw cuda", "extension:rows"),
        ("max_pool2d n8 ic64 ih56 iw56 kh3 kw3 sh2 sw2 ph1 pw1 bf16 nhwc cpu", "extension:rows"),
    ],
)
def test_a_gpu_asks_first_what_was_measured_to_be_faster(text, first):
    problem = parse(text)
    names = dispatch.candidates(problem.op)
    asked = dispatch.ordered(problem, names, dispatch.Context(isa="sm_90"))
    assert asked[0] == first and sorted(asked) == sorted(names)
    assert dispatch.ordered(problem, dispatch.candidates(problem.op, "numba"), dispatch.Context())[0] != first
