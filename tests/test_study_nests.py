"""Nests run as programs give torch's results exactly; in C they are the same programs."""

from __future__ import annotations

import random
import subprocess

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spatialconv.problem import Conv2dProblem, Pool2dProblem, parse
from spatialconv.study import nest as N
from spatialconv.study import nests, shape, valgrind
from spatialconv.study.c_source import c_source, value
from spatialconv.study.lru import extent
from spatialconv.study.nest_text import pseudocode
from spatialconv.study.padding import padded
from spatialconv.study.shape import read
from spatialconv.study.tally import tally

AXES = "n g oc oh ow ic kh kw".split()


class Machine:
    """Runs a nest on flat arrays by the buffers' names, with its two registers."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays, self.sum, self.held = arrays, 0.0, 0.0

    def run(self, body: tuple[N.Step, ...], indices: dict[str, int]) -> None:
        for step in body:
            if isinstance(step, N.Loop):
                stop = min(bound.value(indices) for bound in step.stops)
                for number in range(step.start.value(indices), stop, step.step):
                    self.run(step.body, {**indices, step.name: number})
            elif isinstance(step, N.Guard):
                if step.low <= step.value.value(indices) < step.high:
                    self.run(step.body, indices)
            elif isinstance(step, N.Let):
                indices = {**indices, step.name: step.value.value(indices)}
            else:
                self.do(step, indices)

    def do(self, step: N.Statement, indices: dict[str, int]) -> None:
        if isinstance(step, N.Set):
            self.sum = -1e30 if step.lowest else 0.0
        elif isinstance(step, N.Load):
            self.sum = self.element(step.source, indices)
        elif isinstance(step, N.Hold):
            self.held = self.element(step.source, indices)
        elif isinstance(step, N.MultiplyAdd):
            second = self.element(step.second, indices) if step.second else self.held
            self.sum += self.element(step.first, indices) * second
        elif isinstance(step, N.Add):
            self.sum += self.element(step.source, indices)
        elif isinstance(step, N.Maximum):
            self.sum = max(self.sum, self.element(step.source, indices))
        elif isinstance(step, N.Divide):
            self.sum /= step.divisor
        else:
            array, offset = self.place(step.target, indices)
            array[offset] = self.sum

    def place(self, reference: N.Reference, indices: dict[str, int]) -> tuple[np.ndarray, int]:
        array, offset = self.arrays[reference.buffer.name], reference.offset.value(indices)
        assert 0 <= offset < len(array), f"{reference} at {indices}: {offset} of {len(array)}"
        return array, offset

    def element(self, reference: N.Reference, indices: dict[str, int]) -> float:
        array, offset = self.place(reference, indices)
        return array[offset]


def laid(tensor: torch.Tensor, buffer: N.Buffer) -> np.ndarray:
    """The tensor's values in a buffer's memory; NaN between them."""
    flat = np.full(extent(buffer), np.nan)
    torch.from_numpy(flat).as_strided(buffer.shape, buffer.strides).copy_(tensor.reshape(buffer.shape))
    return flat


def output_of(nest: N.Nest, x: torch.Tensor, w: torch.Tensor | None, shape: tuple[int, ...]) -> torch.Tensor:
    """What the nest, run as a program on uninitialised memory, leaves in its output."""
    arrays = {buffer.name: np.full(extent(buffer), np.nan) for buffer in nest.buffers}
    arrays["input"] = laid(x, nest.buffer("input"))
    if w is not None:
        buffer = nest.buffer("weight")
        copies = () if buffer.axes[0] != "oh" else buffer.shape[:2]
        arrays["weight"] = laid(w.expand(*copies, *w.shape).contiguous(), buffer)
    Machine(arrays).run(nest.body, {})
    output = nest.buffer("output")
    return torch.from_numpy(arrays["output"]).as_strided(output.shape, output.strides).reshape(shape)


def integers(generator: torch.Generator, shape: tuple[int, ...]) -> torch.Tensor:
    """Small whole numbers, of which every sum is exact."""
    return torch.randint(-3, 4, shape, generator=generator).double()


def convolution(chance: random.Random) -> Conv2dProblem:
    while True:
        g = chance.choice((1, 1, 2))
        problem = Conv2dProblem(
            op="conv2d", n=chance.randint(1, 2), ic=g * chance.randint(1, 3), oc=g * chance.randint(1, 3), g=g,
            ih=chance.randint(1, 6), iw=chance.randint(1, 6), kh=chance.randint(1, 3), kw=chance.randint(1, 3),
            sh=chance.randint(1, 3), sw=chance.randint(1, 2), ph=chance.randint(0, 2), pw=chance.randint(0, 2),
            dh=chance.randint(1, 2), dw=chance.randint(1, 2), layout=chance.choice(("nchw", "nhwc")),
        )  # fmt: skip
        if not problem.empty:
            return problem


def orders(chance: random.Random) -> tuple[str, dict[str, int]]:
    """A random order of loops and random tiles; some of the tiles' loops are named, the others go outermost."""
    loops = chance.sample(AXES, len(AXES))
    tile = {axis: chance.randint(1, 4) for axis in chance.sample(AXES, chance.randint(0, 3))}
    for axis in tile:
        if chance.random() < 0.5:
            loops.insert(chance.randint(0, loops.index(axis)), axis + "0")
    return " ".join(loops), tile


def check_convolutions(seed: int, count: int) -> None:
    chance, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    for _ in range(count):
        problem = convolution(chance)
        x, w = integers(generator, problem.input_shape), integers(generator, problem.weight_shape)
        stride, padding, dilation = (problem.sh, problem.sw), (problem.ph, problem.pw), (problem.dh, problem.dw)
        expected = F.conv2d(x, w, None, stride, padding, dilation, problem.g)
        order, tile = orders(chance)
        made = [nests.named(problem, name) for name in ("nchw", "nhwc", "tiled", "im2col")]
        made += [nests.direct(problem, order, tile), nests.direct(problem, order, tile, "untied")]
        made.append(padded(made[0], "input", chance.choice(("n", "ic", "ih")), chance.randint(1, 9)))
        for nest in made:
            got = output_of(nest, x, w, expected.shape)
            assert torch.equal(got, expected), f"{problem}, {nest.name}, {order}, {tile}"
            counted = tally(nest)
            accesses = dict.fromkeys((buffer.name for buffer in nest.buffers), 0)
            for name, _, _ in nest.addresses():
                accesses[name] += 1
            assert counted.accesses == accesses, f"{problem}, {nest.name}, {order}, {tile}"


def test_convolution_nests_compute_convolutions():
    check_convolutions(seed=1, count=12)


@pytest.mark.full(cost=2)
@pytest.mark.parametrize("seed", range(2, 8))
def test_many_convolution_nests_compute_convolutions(seed):
    check_convolutions(seed, count=60)


def test_a_dense_nest_is_a_matrix_product():
    problem, generator = read("2x2x3x4 k=3 3x3 p1"), torch.Generator().manual_seed(0)
    x, w = integers(generator, problem.input_shape), integers(generator, (36, 24))
    got = output_of(nests.dense(problem), x, w, (2, 36))
    assert torch.equal(got, F.linear(x.flatten(1), w))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(("op", "function"), [("max_pool2d", F.max_pool2d), ("avg_pool2d", F.avg_pool2d)])
def test_pooling_nests_pool(op, function, layout):
    chance, generator = random.Random(3), torch.Generator().manual_seed(3)
    for _ in range(12):
        problem = Pool2dProblem(
            op=op, n=2, ic=chance.randint(1, 3), ih=chance.randint(3, 6), iw=chance.randint(3, 6), kh=2, kw=4,
            sh=chance.randint(1, 3), sw=chance.randint(1, 2), ph=1, pw=chance.randint(1, 2), layout=layout,
        )  # fmt: skip
        x = integers(generator, problem.input_shape)
        expected = function(x, (2, 4), (problem.sh, problem.sw), (problem.ph, problem.pw))
        # The window of eight: a power of two, so that averages are exact too.
        assert torch.equal(output_of(nests.pool(problem), x, None, expected.shape), expected), problem


@pytest.mark.parametrize(
    ("text", "name"), [("1x3x7x6 k=4 3x3 s2x1 p1 d1x2", "im2col"), ("1x3x7x6 max 3x3 s2 p1 f64", "pool")]
)
@pytest.mark.parametrize("exact", [True, False])
def test_a_nest_in_c_computes_the_same(text, name, exact, tmp_path):
    nest = nests.named(read(text), name)
    try:
        program = valgrind.build(nest, tmp_path, exact)
    except valgrind.MissingToolError as error:
        pytest.skip(str(error))
    written = subprocess.run([program, "values"], capture_output=True, check=True).stdout
    got = np.frombuffer(written, {"f32": np.float32, "f64": np.float64}[nest.problem.dtype])
    arrays = {one.name: np.array([float(value(i)) for i in range(extent(one))]) for one in nest.buffers}
    Machine(arrays).run(nest.body, {})
    assert len(set(got)) > 3 and np.array_equal(got, arrays["output"])


def test_c_of_other_types_is_refused():
    with pytest.raises(ValueError, match="bf16"):
        c_source(nests.direct(read("1x3x7x6 k=4 3x3 bf16")))


def test_a_padding_is_refused_where_there_is_no_such_axis():
    nest = nests.direct(read("1x3x7x6 k=4 3x3"))
    with pytest.raises(ValueError, match="input .n ic ih iw."):
        padded(nest, "input", "oc", 1)
    with pytest.raises(ValueError, match="at least 1"):
        padded(nest, "input", "ic", 0)


@pytest.mark.parametrize("name", ["nchw", "nhwc", "tiled", "untied", "im2col", "dense"])
@pytest.mark.parametrize("text", ["conv2d n0 ic8 ih8 iw8 oc4 kh3 kw3", "conv2d n1 ic8 ih2 iw2 oc4 kh3 kw3"])
def test_a_layer_without_outputs_is_refused(name, text):
    with pytest.raises(ValueError, match="pixels and outputs"):
        nests.named(parse(text), name)
    with pytest.raises(ValueError, match="pixels and outputs"):
        shape.read(text)


def test_a_pool_is_named_as_it_was_asked_for_and_tiles_are_those_given():
    pool = shape.read("1x8x9x9 max 3x3 s2 p1")
    assert [nests.named(pool, name).name for name in ("pool", "nchw", "nhwc")] == ["pool", "nchw", "nhwc"]
    tiled = nests.named(shape.read("1x8x16x16 k=8 3x3 p1"), "tiled", tile={"oc": 4})
    assert "for oc0" in pseudocode(tiled) and "oh0" not in pseudocode(tiled)
