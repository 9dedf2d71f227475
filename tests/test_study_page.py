"""The page as it is opened: what it shows, what clicks and keys do, how it looks; and the command that writes it."""

from __future__ import annotations

import json
import re

import pytest
from browser import Visit, chromium
from typer.testing import CliRunner

from spatialconv.cli import app
from spatialconv.study import cache
from spatialconv.study.cache import Level
from spatialconv.study.page import examples
from spatialconv.study.page.examples import EXAMPLES, Example, chosen, reference
from spatialconv.study.page.report import html
from spatialconv.study.shape import read

LEVELS = cache.parse(cache.PRESETS["sapphire-rapids"])
# Small ones cost Python nothing; of those whose simulator is compiled, the one that says most, last.
SHOWN = (
    *(one for one in EXAMPLES if one.levels or one.title == "Max pooling"),
    next(one for one in EXAMPLES if one.title.startswith("Side 32: ")),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(path of the page, its examples with Python's counts)"""
    text, counted = html(SHOWN, LEVELS, "a preset")
    path = tmp_path_factory.mktemp("page") / "conv.html"
    path.write_text(text, encoding="utf-8")
    return path, counted


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser, written):
    """Opens the page; every visit fails on errors, and on requests that leave the file."""
    return lambda hash_part="", **context: Visit(browser, written[0], hash_part, **context)


def counted(page) -> str:
    """The first level's table of panel A, as soon as the count is there."""
    page.wait_for_selector("[data-panel=a] .counts:not([aria-busy]) table", timeout=20_000)
    return page.inner_text("[data-panel=a] .counts table[data-level=L1]")


def numbers(table: str) -> dict[str, list[int]]:
    """Rows of a table of counts by tensor."""
    found = {}
    for line in table.splitlines():
        words = line.split("\t")
        if len(words) == 6 and re.fullmatch(r"-?[\d,]+", words[1]):
            found[re.sub("^[xwyc](?=input|weight|output|columns)", "", words[0])] = [
                int(word.replace(",", "")) for word in words[1:]
            ]
    return found


def test_the_known_figures_of_a_side_of_32_are_there(written):
    python = written[1][-1]["python"]
    assert python["levels"][0]["misses"] == {"input": 1_636_352, "weight": 14_212, "output": 32_768}
    assert sum(python["levels"][-1]["misses"].values()) == 3_360


def test_the_page_counts_what_python_counted(visit, written):
    with visit("#view=check") as page:
        page.click("text=Count all of them here")
        page.wait_for_selector("#check [role=status][data-equal]", timeout=60_000)
        assert f"all {len(SHOWN)} examples agree" in page.inner_text("#check [role=status]")
        row = page.inner_text(f"#check tr[data-example='{len(SHOWN) - 1}']")
        assert row.count("1,683,332 / 3,360") == 2 and "equal" in row


def test_tables_show_what_python_counted(visit, written):
    with visit() as page:
        for one in reversed(written[1]):
            page.select_option("#layer select", label=one["title"])
            shown = numbers(counted(page))
            assert "page = Python" in page.inner_text("[data-panel=a] .state")
            level = one["python"]["levels"][0]
            for name, accesses in one["python"]["accesses"].items():
                row = [accesses, *(level[key][name] for key in ("misses", "first", "capacity", "conflict"))]
                assert shown[name] == row, (one["title"], name)


@pytest.mark.parametrize("part", ["accesses", "conflict"])
def test_a_wrong_count_of_pythons_would_be_shown(browser, written, tmp_path, part):
    def data(counts: dict[str, int]) -> str:
        return json.dumps(counts, separators=(",", ":"))

    python = written[1][0]["python"]
    right = python["accesses"] if part == "accesses" else python["levels"][-1][part]
    text, wrong = written[0].read_text(encoding="utf-8"), tmp_path / "wrong.html"
    assert data(right) in text
    wrong.write_text(text.replace(data(right), data({name: count + 1 for name, count in right.items()}), 1))
    with Visit(browser, wrong) as page:
        counted(page)
        assert "different" in page.inner_text("[data-panel=a] .state")
        page.click("#tab-check")
        page.click("text=Count all of them here")
        page.wait_for_selector("#check [role=status][data-equal]", timeout=60_000)
        assert f"1 of {len(SHOWN)} examples differ" in page.inner_text("#check [role=status]")


def test_a_click_says_who_uses_an_element(visit):
    with visit() as page:
        uses = "[data-panel=a] .pick .uses"
        weights, pixels, outputs = (f"[data-panel=a] canvas[data-map={name}]" for name in ("weight", "input", "output"))
        page.click(weights, position={"x": 3, "y": 3})
        assert page.inner_text(uses) == "used 25 times"
        assert "It is tied" in page.inner_text("[data-panel=a] .pick")
        tied = page.evaluate("app.panels.a.met.output.length")
        page.check("[data-panel=a] input[value=untied]")
        page.click(weights, position={"x": 25, "y": 25})
        assert page.inner_text(uses) == "used 1 time" and tied == 25
        page.check("[data-panel=a] input[value=dense]")
        page.click(pixels, position={"x": 3, "y": 3})
        assert page.inner_text(uses) == "used 72 times"
        page.check("[data-panel=a] input[value=tied]")
        page.click(outputs, position={"x": 25, "y": 25})
        assert page.inner_text(uses) == "made of 18 products"
        assert "Its window is 18 pixels" in page.inner_text("[data-panel=a] .pick")
        assert "14 lines, L1 holds 8" in page.inner_text("[data-panel=a] .pick")
        # In lines of four numbers: 4 for the window in each channel, 5 for 18 weights, 1 for the output.
        assert len(page.evaluate("[...app.panels.a.marked]")) == 2 * 4 + 5 + 1


def test_clicks_and_numbers_change_the_counts(visit):
    with visit() as page:
        first = counted(page)
        page.check("[data-panel=a] input[value=nhwc]")
        page.wait_for_function("app.panels.a.result && app.panels.a.setting.layout === 'nhwc'")
        second = counted(page)
        assert first != second
        page.get_by_label("ways").first.fill("4")
        page.keyboard.press("Tab")
        page.wait_for_function("app.panels.a.result && app.panels.a.levels[0].ways === 4")
        assert counted(page) not in (first, second)
        page.get_by_label("stride", exact=True).first.fill("2")
        page.keyboard.press("Tab")
        page.wait_for_function("app.panels.a.result && app.panels.a.problem.oh === 3")
        assert page.input_value("#shape") == "1x2x6x6 k=2 3x3 s2 p1 d1"


def test_a_loop_is_moved_by_key_and_by_drag(visit):
    with visit() as page:
        chips = "[data-panel=a] .order button"
        before = page.locator(chips).all_inner_texts()
        page.focus(f"{chips}[data-loop=kw]")
        page.keyboard.press("ArrowLeft")
        moved = page.locator(chips).all_inner_texts()
        assert moved == [*before[:-2], "kw", "kh"]
        assert page.evaluate("document.activeElement.dataset.loop") == "kw", "the focus stays with the loop"
        page.locator(f"{chips}[data-loop=kh]").drag_to(
            page.locator(f"{chips}[data-loop=oc]"), target_position={"x": 2, "y": 10}
        )
        dragged = page.locator(chips).all_inner_texts()
        assert dragged.index("kh") == moved.index("oc")
        assert "for kh" in page.inner_text("[data-panel=a] .code").split("\n", 8)[5:][0] or "kh" in page.inner_text(
            ".code"
        )
        assert "a=tied.nchw." + "-".join(dragged) in page.evaluate("decodeURIComponent(location.hash)")


def test_steps_go_line_by_line_and_count(visit):
    with visit() as page:
        page.click("[data-do=step]")
        line = page.inner_text("[data-panel=a] .line.current")
        assert line.startswith("sum += input[0, ic, ih, iw] * weight[oc, ic, kh, kw]")
        assert "load input[0, 0, 0, 0] at 0x100000000: miss (first touch), from memory, set 0" in page.inner_text(
            ".now"
        )
        page.click("[data-do=step]")
        page.click("[data-do=step]")
        assert page.inner_text(".now").startswith("3: load input[0, 0, 0, 1]") and ": hit" in page.inner_text(".now")
        assert "L1 so far: hits 1, misses 2 (input 1, weight 1, output 0)." in page.inner_text(".now")
        page.click("[data-do=miss]")
        assert "miss" in page.inner_text(".now")
        page.click("[data-do=play]")
        page.wait_for_function("app.panels.a.walk.made > 12")
        page.click("[data-do=play]")
        made = page.evaluate("app.panels.a.walk.made")
        page.wait_for_timeout(200)
        assert page.evaluate("app.panels.a.walk.made") == made, "paused"
        counted(page)
        page.evaluate("while (app.panels.a.walk.step()) ; app.panels.a.draw()")
        steps = page.evaluate("app.panels.a.walk.caches.counts()")
        whole = page.evaluate("app.panels.a.result")
        assert steps["levels"][0]["conflict"] == whole["levels"][0]["conflict"]


def test_a_cache_of_one_set_has_no_conflicts_in_any_step(visit):
    with visit("#cache=L1:1x4x16") as page:
        counted(page)
        kinds = page.evaluate(
            """() => {
                const [{ walk }, seen] = [app.panels.a, new Set()];
                while (walk.step()) seen.add(walk.last.kind);
                return [...seen].sort();
            }"""
        )
        assert kinds == ["capacity", "first touch", "hit"]


def test_two_nests_stand_side_by_side(visit):
    with visit() as page:
        page.check("#compare")
        page.wait_for_selector(".compared table")
        text = page.inner_text(".compared")
        assert "B / A" in text and "Misses are not seconds" in text
        page.check("[data-panel=b] input[value=untied]")
        page.wait_for_function("app.panels.b.result && app.panels.b.setting.way === 'untied'")
        page.wait_for_selector(".compared table")
        rows = {row.split("\t")[0]: row.split("\t")[1:] for row in page.inner_text(".compared table").splitlines()}
        assert rows["products with real pixels"] == ["1,024", "1,024", "1.00×"], "sharing saves no arithmetic"
        assert rows["bytes of weights"] == ["144 B", "5.1 KiB", "36.0×"], "it saves bytes"
        page.click("[data-do=step]")
        assert page.locator(".line.current").count() == 2


def test_the_address_holds_the_state(visit):
    with visit() as page:
        page.check("[data-panel=a] input[value=nhwc]")
        page.click("[data-panel=a] canvas[data-map=weight]", position={"x": 3, "y": 3})
        page.check("#compare")
        page.click("#tab-field")
        saved, state = page.evaluate("location.hash"), page.evaluate("app.state")
    with visit(saved) as page:
        assert page.evaluate("app.state") == state
        assert page.is_visible("#field") and not page.is_visible("#layer")
    with visit("#shape=nonsense&cache=L1:0x0x7&a=x&warp=~~&stack=q&view=none") as page:
        assert page.is_visible("#layer") and counted(page), "what cannot be read is left out"


def test_wrong_input_is_answered_with_a_sentence(visit):
    with visit() as page:
        page.fill("#shape", "1x2x6x6 k=2 9x9")
        page.keyboard.press("Enter")
        assert page.is_visible("#shape-error") and "does not fit" in page.inner_text("#shape-error")
        page.fill("#shape", "1x2x6x6 k=2 3x3 p1")
        page.keyboard.press("Enter")
        assert page.is_hidden("#shape-error")
        page.get_by_label("bytes of a line").fill("48")
        page.keyboard.press("Tab")
        assert page.is_visible("#caches .error") and "power of two" in page.inner_text("#caches .error")


FOCUSABLE = "button, input, select, summary, canvas[role=application], .scroll, .code"


@pytest.mark.parametrize("view", ["walk", "field", "shift", "warp", "check"])
def test_tab_reaches_every_control_and_each_has_a_name(visit, view):
    with visit(f"#view={view}") as page:
        if view == "walk":
            counted(page)
        wanted = page.evaluate(
            """(selector) => [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility() &&
                !one.disabled && !(one.type === "radio" && !one.checked) && one.ariaSelected !== "false")
                .map((one, number) => (one.dataset.reach = number)).length""",
            FOCUSABLE,
        )
        assert wanted >= 3
        reached, unseen = set(), []
        page.evaluate("document.activeElement.blur()")
        for _ in range(wanted + 8):
            page.keyboard.press("Tab")
            number, outline, name = page.evaluate(
                """() => { const one = document.activeElement; const label = one.labels?.[0]?.textContent;
                return [one.dataset.reach, getComputedStyle(one).outlineStyle,
                    one.getAttribute("aria-label") || label || one.textContent]; }"""
            )
            if number is not None:
                reached.add(int(number))
                if outline == "none" or not name.strip():
                    unseen.append((number, outline, name))
        assert reached == set(range(wanted))
        assert not unseen, "focus without a frame, or control without a name"


def test_arrow_keys_move_in_a_map_and_enter_chooses(visit):
    with visit() as page:
        page.focus("[data-panel=a] canvas[data-map=input]")
        for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Enter"):
            page.keyboard.press(key)
        assert page.evaluate("app.state.pick") == {"name": "input", "indices": [0, 0, 1, 1]}
        assert page.inner_text("[data-panel=a] .pick .uses") == "used 18 times"


def painted(page, selector: str) -> set[str]:
    """The names of the style sheet's colours that fill at least 20 pixels of a canvas."""
    return set(
        page.evaluate(
            """(selector) => {
                const one = document.querySelector(selector);
                const { data } = one.getContext("2d").getImageData(0, 0, one.width, one.height);
                const counts = new Map();
                for (const pixel of new Uint32Array(data.buffer)) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
                const names = ["empty", "bar", "ink", ...["input", "weight", "output"].flatMap((name) =>
                    [name, `${name}-soft`, `${name}-faint`])];
                return names.filter((name) => {
                    const [red, green, blue] = colour(name).slice(1).match(/../g).map((byte) => parseInt(byte, 16));
                    return (counts.get(((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0) ?? 0) >= 20;
                });
            }""",
            selector,
        )
    )


def test_every_canvas_shows_its_tensors(visit):
    with visit("#pick=output:0-0-1-1") as page:
        counted(page)
        assert painted(page, "canvas.cache") == {"empty"}, "nothing touched yet"
        assert painted(page, "canvas[data-map=input]") == {"input", "input-faint"}, "a window chosen, no line there"
        page.evaluate("for (let n = 0; n < 900; n++) app.panels.a.walk.step(); app.panels.a.draw()")
        assert painted(page, "canvas.cache") >= {"input", "weight"}
        assert painted(page, "canvas[data-map=input]") == {"input", "input-soft", "input-faint"}
        assert painted(page, "canvas[data-map=weight]") >= {"weight", "weight-soft", "ink"}, "the weight touched last"
        assert painted(page, "canvas[data-map=output]") >= {"output", "output-faint"}
        assert painted(page, "canvas.bars") == {"bar"}
        page.click("#tab-warp")
        assert painted(page, "canvas.warp") == {"empty", "input"}


def test_the_sections_answer_their_sliders(visit):
    with visit("#view=field") as page:
        before = page.inner_text("#field .reading")
        page.get_by_label("dilation").nth(2).fill("4")
        page.keyboard.press("Tab")
        assert page.inner_text("#field .reading") != before
        page.click("text=Add a layer")
        assert page.locator("#field .stack li").count() == 4
        page.click("#tab-shift")
        assert "At shift 1: no pooling: 1.000; max pool, stride 2: 0.500" in page.inner_text("#shift .reading")
        page.focus("#by")
        page.keyboard.press("ArrowRight")
        assert "At shift 2: no pooling: 1.000; max pool, stride 2: 1.000" in page.inner_text("#shift .reading")
        page.click("#tab-warp")
        assert "4.55 sectors a load" in page.inner_text("#warp .reading")
        page.check("#warp input[value=nhwc]")
        assert "31.46 sectors a load" in page.inner_text("#warp .reading")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_scrolls_sideways_and_dark_is_dark(visit, width, scheme):
    with visit("#b=untied.nchw..", viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        counted(page)
        for view in ("walk", "field", "shift", "warp", "check"):
            page.click(f"#tab-{view}")
            room, needed = page.evaluate("[document.documentElement.clientWidth, document.documentElement.scrollWidth]")
            assert needed <= room, view
        red = int(page.evaluate("getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0])
        assert red < 60 if scheme == "dark" else red > 200


def test_quiet_motion_still_plays_but_moves_nothing_else(visit):
    with visit(reduced_motion="reduce") as page:
        assert page.evaluate("getComputedStyle(document.querySelector('.line')).transitionDuration") == "0s"
        page.click("[data-do=play]")
        page.wait_for_function("app.panels.a.walk.made >= 10")


@pytest.mark.full
def test_a_large_layer_is_sampled_and_says_so(visit):
    with visit("#shape=1x64x56x56+k=64+3x3+p1&a=tied.nchw..&cache=L1:64x12x64") as page:
        counted(page)
        assert "L1 misses, of those counted" in page.inner_text("[data-panel=a] .facts")
        text = page.inner_text("[data-panel=a] .warning")
        assert "the first 20,000,000 of 225,939,456 accesses (8.9 %)" in text


@pytest.mark.full
def test_the_whole_page_agrees_with_python(browser, tmp_path):
    text, counted = html(EXAMPLES, LEVELS, "a preset")
    tied, untied = (
        next(one["python"] for one in counted if one["title"].startswith(title))
        for title in ("Side 32:", "Side 32, untied")
    )
    assert untied["levels"][0]["misses"] == {"input": 1_636_352, "weight": 294_912, "output": 32_768}
    assert untied["accesses"] == tied["accesses"], "sharing saves no access"
    path = tmp_path / "whole.html"
    path.write_text(text, encoding="utf-8")
    with Visit(browser, path, "#view=check") as page:
        page.click("text=Count all of them here")
        page.wait_for_selector("#check [role=status][data-equal]", timeout=300_000)
        assert f"all {len(EXAMPLES)} examples agree" in page.inner_text("#check [role=status]")


def invoke(*words: str):
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["study", "page", *words])


def test_the_command_writes_one_file_with_the_layers_asked_for(tmp_path, monkeypatch):
    from spatialconv.study.page import report

    monkeypatch.setattr(report, "EXAMPLES", EXAMPLES[:1])
    path = tmp_path / "new" / "conv.html"
    found = invoke(str(path), "1x2x5x5 k=2 3x3", "1x2x6x6 max 2x2", "--cache", "1K/2/32")
    assert found.exit_code == 0, found.output
    assert "Misses are not seconds" in found.output and "1x2x5x5 k=2 3x3" in found.output
    text = path.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    assert [one["title"] for one in data["examples"]][1:] == [
        "1x2x5x5 k=2 3x3 s1 p0 d1, tied, nchw", "1x2x5x5 k=2 3x3 s1 p0 d1, tied, nhwc",
        "1x2x5x5 k=2 3x3 s1 p0 d1, untied, nchw", "1x2x6x6 max 2x2 s2 p0 d1, tied, nchw",
        "1x2x6x6 max 2x2 s2 p0 d1, tied, nhwc",
    ]  # fmt: skip
    assert data["examples"][1]["levels"] == [{"name": "L1", "sets": 16, "ways": 2, "line": 32}]
    assert not re.search(r"""(src|href)=["'](?!#|data:)|@import|url\(""", text), "a file outside"
    figures = json.loads(invoke(str(path), "--json", "-", "--cache", "1K/2/32").output)
    assert figures["examples"][0]["python"]["accesses"]["output"] == 72


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["1x2x5x5 k=2"], "kernel"),
        (["conv2d_grad_input n1 ic2 ih5 iw5 oc2 kh3 kw3 f32 nchw cpu"], "forward"),
        (["1x2x5x5 k=2 3x3 i8"], "f32, f64"),
        (["1x2x2x2 k=2 3x3"], "pixels and outputs"),
        (["--cache", "1K/2/32,8K/2/64"], "one size of line"),
        (["--cache", "large"], "expected host"),
    ],
)
def test_the_command_refuses_with_a_reason(tmp_path, words, says):
    path = tmp_path / "conv.html"
    found = invoke(str(path), *words)
    assert found.exit_code == 2, found.output
    assert says in " ".join(found.output.replace("│", " ").split()) and not path.exists()


def test_help_has_examples():
    found = invoke("--help")
    assert found.exit_code == 0 and "Examples" in found.output and "spatialconv study page" in found.output


def test_large_layers_have_no_counts_of_pythons():
    one = reference(chosen([read("1x256x56x56 k=256 3x3 p1")])[0], (Level("L1", 64, 8, 64),))
    assert one["python"] is None and one["nest"]["name"] == "nchw"


def test_examples_cover_every_way():
    assert {one.way for one in EXAMPLES} == set(examples.WAYS)
    assert len({one.title for one in EXAMPLES}) == len(EXAMPLES)
    assert Example("", "1x2x5x5 max 2x2").nest.name == "pool"
