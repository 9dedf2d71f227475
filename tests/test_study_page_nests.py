"""The page's JavaScript against Python: nests, counts, uses, receptive fields, shifts and warps."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from contextlib import suppress

import numpy as np
import pytest
import torch
from browser import chromium

from spatialconv.problem import Conv2dProblem
from spatialconv.study import nests
from spatialconv.study.cache import Level
from spatialconv.study.lru_judge import judge
from spatialconv.study.nest import Nest
from spatialconv.study.nest_data import as_data
from spatialconv.study.page.assemble import CORE, sources
from spatialconv.study.page.examples import CAP, Example, level_data
from spatialconv.study.shape import read, short

AXES = "n g oc oh ow ic kh kw".split()


@pytest.fixture(scope="module")
def script():
    """The core scripts in a blank page; called with an expression of JavaScript and its argument."""
    with chromium() as browser:
        page = browser.new_page()
        page.add_script_tag(content=sources("core", CORE))
        yield page.evaluate


def shape_text(pick: random.Random, pool: bool = False) -> str:
    """A random layer with at least one output."""
    while True:
        groups = pick.randint(1, 3)
        sizes = pick.randint(1, 2), groups * pick.randint(1, 4), pick.randint(2, 9), pick.randint(2, 9)
        kind = pick.choice(("max", "avg")) if pool else f"k={groups * pick.randint(1, 4)} g{groups}"
        padding = f"p{pick.randint(0, 1)}" if pool else f"p{pick.randint(0, 2)}x{pick.randint(0, 3)}"
        text = (
            f"{'x'.join(map(str, sizes))} {kind} {pick.randint(1, 3)}x{pick.randint(1, 4)} {padding} "
            f"s{pick.randint(1, 3)}x{pick.randint(1, 2)} d{pick.randint(1, 2)}x{pick.randint(1, 3)} "
            f"{pick.choice(('f32', 'f64', 'bf16'))}"
        )
        with suppress(ValueError):  # it has no output
            read(text)
            return text


def example(pick: random.Random) -> Example:
    """A random way to compute a random layer."""
    layout = pick.choice(("nchw", "nhwc"))
    if pick.random() < 0.15:
        return Example("", shape_text(pick, pool=True), layout=layout)
    text, way = shape_text(pick), pick.choice(("tied", "untied", "tied", "untied", "dense", "im2col"))
    if way in ("dense", "im2col"):
        return Example("", text, way, layout)
    tile = {axis: pick.randint(1, 4) for axis in pick.sample(AXES, pick.randint(0, 3))}
    order = [*AXES, *(f"{axis}0" for axis in tile)]
    pick.shuffle(order)
    for axis in tile:
        inner, outer = order.index(axis), order.index(f"{axis}0")
        if outer > inner:
            order[inner], order[outer] = order[outer], order[inner]
    return Example("", text, way, layout, " ".join(order), tile)


def asked(one: Example) -> dict[str, object]:
    return {"shape": one.shape, "way": one.way, "layout": one.layout, "order": one.order, "tile": dict(one.tile)}


# null is not left out by JavaScript's defaults as undefined is.
BUILD = "const build = (one) => buildNest(readShape(one.shape), { ...one, order: one.order ?? undefined });"


def test_the_pages_builder_makes_pythons_nests(script):
    pick = random.Random(7)
    examples = [example(pick) for _ in range(150)]
    built = script(f"(all) => {{ {BUILD} return all.map(build); }}", list(map(asked, examples)))
    for one, nest in zip(examples, built, strict=True):
        assert nest == json.loads(json.dumps(as_data(one.nest))), one


def test_the_pages_pseudocode_is_pythons(script):
    from spatialconv.study.nest_text import pseudocode

    pick = random.Random(8)
    examples = [example(pick) for _ in range(40)]
    text = 'codeLines(build(one).body).map(({ text, depth }) => "    ".repeat(depth) + text).join("\\n")'
    written = script(f"(all) => {{ {BUILD} return all.map((one) => {text}); }}", list(map(asked, examples)))
    assert written == [pseudocode(one.nest) for one in examples]


def counts(nest: Nest, levels: tuple[Level, ...]) -> dict[str, object]:
    """What the slow judge counts, as the page has it."""
    found = judge(nest, levels)
    names = [one.name for one in nest.buffers]
    kinds = {"first": "first touch", "capacity": "capacity", "conflict": "conflict"}
    return {
        "accesses": found.accesses,
        "levels": [
            {"misses": {name: found.misses[name, level.name] for name in names}}
            | {key: {name: found.kinds[name, level.name, kind] for name in names} for key, kind in kinds.items()}
            for level in levels
        ],
    }


def counted(result: dict[str, object]) -> dict[str, object]:
    keys = ("misses", "first", "capacity", "conflict")
    return {
        "accesses": result["accesses"],
        "levels": [{key: level[key] for key in keys} for level in result["levels"]],
    }


SIMULATE = """([nest, levels, cap]) => {
    const walked = new Caches(levels, nest.buffers);
    for (const { number, offset } of walkNest(nest)) walked.touch(number, offset);
    return { ...simulate(nest, levels, cap), walked: walked.counts() };
}"""


def test_counts_by_tensor_level_and_kind_are_pythons(script):
    pick, negative = random.Random(9), 0
    for _ in range(40):
        one = example(pick)
        line = pick.choice((16, 32, 64))
        sets, ways = pick.choice(((4, 1), (3, 2), (8, 2), (5, 3))), pick.randint(1, 4)
        levels = (Level("L1", *sets, line), Level("L2", sets[0] * sets[1] + 1, ways + 1, line))
        nest = one.nest
        if sum(1 for _ in itertools.islice(nest.addresses(), 12_001)) > 12_000:
            continue
        result = script(SIMULATE, [as_data(nest), list(map(level_data, levels)), 1e9])
        expected = counts(nest, levels)
        assert counted(result) == expected, (one, levels)
        assert counted(result["walked"]) == expected, "step by step"
        assert result["total"] == result["counted"] == sum(expected["accesses"].values())
        assert sum(result["levels"][0]["bySet"]) == sum(expected["levels"][0]["misses"].values())
        negative += any(value < 0 for value in expected["levels"][0]["conflict"].values())
    assert negative, "no example in which sets help: the sign of conflicts is untried"


def test_above_the_cap_the_beginning_is_counted_and_the_rest_only_numbered(script):
    nest = Example("", "1x4x12x12 k=4 3x3 p1").nest
    addresses = list(itertools.islice(nest.addresses(), 5000))
    levels = (Level("L1", 8, 2, 64),)
    result = script(SIMULATE, [as_data(nest), list(map(level_data, levels)), 5000])
    assert result["sampled"] and result["counted"] == 5000
    assert result["total"] == sum(1 for _ in nest.addresses())
    touched = Counter(name for name, _, _ in addresses)
    assert result["accesses"] == {one.name: touched[one.name] for one in nest.buffers}
    lines = {address // 64 for _, address, _ in addresses}
    assert sum(result["levels"][0]["first"].values()) == len(lines)


def test_the_page_and_python_have_the_same_cap(script):
    assert script("() => CAP") == CAP


USES = """([shape, way, name, indices]) => {
    const problem = readShape(shape);
    return { ...usesOf(problem, way, name, indices), products: countProducts(problem, way) };
}"""


def test_uses_of_an_element_are_the_products_that_load_it(script):
    pick = random.Random(10)
    for _ in range(20):
        text, way = shape_text(pick), pick.choice(("tied", "untied", "dense"))
        problem = read(text)
        if problem.reduction * problem.oc * problem.oh * problem.ow > 12_000:
            continue
        # Loads of the input and the weight in turn, one of each a product.
        nest = nests.dense(problem) if way == "dense" else nests.direct(problem, sharing=way)
        loads = [(name, address) for name, address, store in nest.addresses() if name != "output"]
        pairs = [(loads[at][1], loads[at + 1][1]) for at in range(0, len(loads), 2)]
        for number, name in enumerate(("input", "weight")):
            buffer = nest.buffer(name)
            indices = [pick.randrange(size) for size in buffer.shape]
            offset = sum(one * stride for one, stride in zip(indices, buffer.strides, strict=True))
            address = buffer.base + offset * buffer.itemsize
            mine = [pair for pair in pairs if pair[number] == address]
            found = script(USES, [text, way, name, indices])
            assert found["uses"] == len(mine), (text, way, name, indices)
            assert found["products"] == len(pairs)
            other = ("weight", "input")[number]
            assert addresses_of(nest, other, found[other]) == {pair[1 - number] for pair in mine}


def addresses_of(nest: Nest, name: str, elements: list[list[int]]) -> set[int]:
    buffer = nest.buffer(name)
    return {
        buffer.base + buffer.itemsize * sum(one * stride for one, stride in zip(indices, buffer.strides, strict=True))
        for indices in elements
    }


def test_an_output_uses_its_window(script):
    problem = read("1x2x5x5 k=3 3x3 s2 p1")
    found = script(USES, [short(problem), "tied", "output", [0, 2, 0, 1]])
    assert found["uses"] == 2 * 2 * 3 == len(found["weight"])
    assert sorted(found["input"]) == sorted([0, c, h, w] for c in range(2) for h in range(2) for w in range(1, 4))
    assert all(weight[0] == 2 for weight in found["weight"])
    pooled = script(USES, ["1x2x6x6 max 2x2", "tied", "input", [0, 1, 3, 2]])
    assert pooled["output"] == [[0, 1, 1, 1]] and pooled["uses"] == 1


def test_a_field_of_view_is_where_the_gradient_is(script):
    pick = random.Random(11)
    for _ in range(30):
        layers = [
            {"kernel": pick.randint(1, 4), "stride": pick.randint(1, 3), "dilation": pick.randint(1, 3),
             "padding": pick.randint(0, 3)}
            for _ in range(pick.randint(1, 3))
        ]  # fmt: skip
        x = torch.ones(1, 1, 60, dtype=torch.float64, requires_grad=True)
        y = x
        for layer in layers:
            weight = torch.ones(1, 1, layer["kernel"], dtype=torch.float64)
            y = torch.conv1d(y, weight, None, layer["stride"], layer["padding"], layer["dilation"])
        unit = pick.randrange(y.shape[2])
        y[0, 0, unit].backward()
        seen = x.grad[0, 0].nonzero().flatten().tolist()
        call = "([layers, unit]) => [reachedUnits(layers, 60, unit), stackLengths(layers, 60), receptiveFields(layers)]"
        reached, lengths, fields = script(call, [layers, unit])
        assert reached[0] == seen and lengths[-1] == y.shape[2]
        start = fields[-1]["start"] + unit * fields[-1]["jump"]
        if start >= 0 and start + fields[-1]["size"] <= 60:
            assert (seen[0], seen[-1]) == (start, start + fields[-1]["size"] - 1)


def test_only_odd_shifts_behind_stride_2_change_the_answer(script):
    call = "() => [SIGNALS, POOLINGS, Object.values(SIGNALS).map((signal) => POOLINGS.map((pooling) => "
    call += "signal.map((_, by) => detectorScore(signal, by, pooling))))]"
    signals, poolings, scores = script(call)
    for signal, (plain, sharp, blurred) in zip(signals.values(), scores, strict=True):
        assert plain == pytest.approx([1] * len(signal), abs=1e-12)
        for curve in (sharp, blurred):
            assert curve[::2] == pytest.approx([1] * (len(signal) // 2), abs=1e-12)
            assert max(curve[1::2]) < 0.99
        pooled = [np.maximum(np.roll(signal, by), np.roll(signal, by - 1))[::2] for by in (0, 1)]
        match = max(np.dot(pooled[0], np.roll(pooled[1], by)) for by in range(len(pooled[0])))
        assert sharp[1] == pytest.approx(match / np.linalg.norm(pooled[0]) / np.linalg.norm(pooled[1]))
    assert min(scores[0][1]) < 0.6 < 0.8 < min(scores[0][2]), "fine detail: the blur helps"
    assert len(poolings) == 3


def sectors(problem: Conv2dProblem, layout: str, lane: str) -> float:
    """Mean sectors of the loads of the input, by numpy."""
    p, lanes, counts = problem, np.arange(32), []
    pixels = np.arange(p.oh * p.ow)
    blocks = [pixels[at : at + 32] for at in pixels[::32]] if lane == "pixel" else pixels[:, None]
    channels = (
        np.arange(p.ic)[:, None] if lane == "pixel" else [lanes[at + lanes < p.ic] + at for at in range(0, p.ic, 32)]
    )
    for block, channel, kh, kw in itertools.product(blocks, channels, range(p.kh), range(p.kw)):
        row, column = block // p.ow * p.sh + kh * p.dh - p.ph, block % p.ow * p.sw + kw * p.dw - p.pw
        inside = (row >= 0) & (row < p.ih) & (column >= 0) & (column < p.iw)
        place = (channel * p.ih + row) * p.iw + column if layout == "nchw" else (row * p.iw + column) * p.ic + channel
        if inside.any():
            counts.append(len(np.unique((place * p.itemsize // 32)[np.broadcast_to(inside, place.shape)])))
    return float(np.mean(counts))


WARP = "([shape, options]) => warpSummary(readShape(shape), options)"


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("lane", ["pixel", "channel"])
def test_sectors_of_a_warp_are_those_of_numpy(script, layout, lane):
    for text in ("1x5x9x11 k=4 3x3 s2 p1", "1x40x6x6 k=4 3x3 p2 d2 bf16"):
        options = {"tensor": "input", "layout": layout, "lane": lane, "weights": ""}
        found = script(WARP, [text, options])
        assert found["sectors"] == pytest.approx(sectors(read(text), layout, lane)), text


@pytest.mark.parametrize(
    ("tensor", "layout", "weights", "lane", "expected"),
    [
        ("input", "nchw", "", "pixel", 4.55),
        ("input", "nhwc", "", "pixel", 31.46),
        ("input", "nhwc", "", "channel", 4.00),
        ("input", "nchw", "", "filter", 1.00),
        ("weight", "", "oc ic kh kw", "filter", 32),
        ("weight", "", "kh kw ic oc", "filter", 4),
        ("weight", "", "oc ic kh kw", "pixel", 1),
        ("weight", "", "untied: p oc ic kh kw", "pixel", 31.46),
    ],
)
def test_sectors_of_a_well_known_layer(script, tensor, layout, weights, lane, expected):
    options = {"tensor": tensor, "layout": layout, "lane": lane, "weights": weights}
    found = script(WARP, ["1x64x56x56 k=64 3x3 p1", options])
    assert found["sectors"] == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("16x32x32 k=4 3x3", "input first"),
        ("1x16x32x32 k=4", "kernel"),
        ("1x16x32x32 3x3", "oc"),
        ("1x16x32x32 k=4 3x3 t4", "t4"),
        ("1x16x32x32 k=6 3x3 g4", "divisor"),
        ("1x16x2x2 k=4 3x3", "does not fit"),
        ("1x16x8x8 max 2x2 g2", "pooling"),
    ],
)
def test_the_page_refuses_what_it_cannot_read(script, text, words):
    message = script("(text) => { try { readShape(text); return ''; } catch (error) { return error.message; } }", text)
    assert words in message
