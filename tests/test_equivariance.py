"""Translation: a convolution's and a pooling's output moves with its input, and shows what weight sharing is.

Kernels that declare ``shift_exact`` are held to it bitwise, the others to their tier. torch.nn.Conv2d is the judge of
the values, a fully connected and an untied map show what the property distinguishes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from cells import on_cpu
from compare import bits
from torch import Tensor

from spatialconv import dispatch, nn
from spatialconv.backends.base import DTYPES, Context
from spatialconv.backends.extension import loader
from spatialconv.bench import tolerance
from spatialconv.problem import Problem, parse
from spatialconv.shapes import memory_format

LEVELS = loader.load().levels() if loader.unavailable() is None else [""]
LAYOUTS = ("nchw", "nhwc")
# As wide as several vectors and a tail; the shifts reach every place in a tile.
ROWS, COLUMNS, SHIFTS = 9, 53, ((0, 1), (1, 0), (1, 2), (2, 4), (0, 7), (0, 16), (0, 31), (3, 38))
CONV = (
    "ic5 oc6 kh3 kw3 ph1 pw1",
    "ic5 oc6 kh3 kw3 ph2 pw2 dh2 dw2",
    "ic4 oc8 kh3 kw2 g2",
    "ic17 oc33",
    "ic5 oc6 kh3 kw3 ph1 pw1 sh2 sw2",
    "ic6 oc6 kh3 kw3 ph1 pw1 g6",
    "ic17 oc34 kh5 kw5 ph2 pw2 sh1 sw2 g17",
)
POOL = ("ic5 kh3 kw3 sh1 sw1 ph1 pw1", "ic17 kh2 kw2", "ic3 kh3 kw3 sh2 sw2 ph1 pw1")
LINEAR = ("conv2d", "avg_pool2d")


# For kernels that are interpreted: a smaller image and fewer shifts.
FEW_COLUMNS, FEW_SHIFTS = 23, ((1, 2), (0, 9))


def context(name: str, level: str) -> Context:
    return Context(isa=level, precision=dispatch.kernel(name).tier)


def cases(op: str, texts: tuple[str, ...]) -> list[tuple]:
    found = []
    for name in on_cpu(op):
        for level in LEVELS if name.startswith("extension:") else ("",):
            for text in texts:
                for dtype in ("f32", "bf16"):
                    problem = parse(f"{op} n1 ih{ROWS} iw{COLUMNS} {text} {dtype}")
                    if not dispatch.reasons_against(name, problem, context(name, level)):
                        found.append(pytest.param(name, level, problem, id=f"{name}@{level} {problem}"))
    return found


def interpreted_cases(op: str, texts: tuple[str, ...]) -> list[tuple]:
    """The first case of every kernel, the others where everything is asked for."""
    found = []
    for name in on_cpu(op, interpreted=True):
        problems = [parse(f"{op} n1 ih{ROWS} iw{FEW_COLUMNS} {text} f32") for text in texts]
        problems = [one for one in problems if not dispatch.reasons_against(name, one, context(name, ""))]
        marks = [[], *[pytest.mark.full] * len(problems)]
        found += [
            pytest.param(name, problem, id=f"{name} {problem}", marks=mark)
            for problem, mark in zip(problems, marks, strict=False)
        ]
    return found


def runner(name: str, level: str, problem: Problem, weight: Tensor | None) -> Callable[[Tensor], Tensor]:
    plan = dispatch.kernel(name).plan(problem, context(name, level))
    if problem.op == "conv2d":
        return lambda input: plan(input, weight, None)
    return lambda input: plan(input)[0] if problem.op == "max_pool2d" else plan(input)


def reach(problem: Problem) -> tuple[int, int, int, int]:
    """Outputs at the four edges (top, left, bottom, right) whose windows leave the image."""
    _, _, bottom, right = sides(problem)
    return (
        -(-problem.ph // problem.sh), -(-problem.pw // problem.sw),
        -(-max(bottom, 0) // problem.sh), -(-max(right, 0) // problem.sw),
    )  # fmt: skip


def sides(problem: Problem) -> tuple[int, int, int, int]:
    bottom = (problem.oh - 1) * problem.sh + (problem.kh - 1) * problem.dh + 1 - problem.ih - problem.ph
    right = (problem.ow - 1) * problem.sw + (problem.kw - 1) * problem.dw + 1 - problem.iw - problem.pw
    return problem.ph, problem.pw, bottom, right


def shifted_pair(problem: Problem, run: Callable, input: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """The interiors of two outputs that show the same part of a scene, seen from two places.

    ``rows`` and ``columns`` count outputs, so the input moves by multiples of the stride.
    """
    down, across = rows * problem.sh, columns * problem.sw
    here = run(crop(input, 0, 0, problem))
    there = run(crop(input, down, across, problem))
    top, left, bottom, right = reach(problem)
    first = here[:, :, top + rows : problem.oh - bottom, left + columns : problem.ow - right]
    second = there[:, :, top : problem.oh - bottom - rows, left : problem.ow - right - columns]
    return first, second


def crop(scene: Tensor, row: int, column: int, problem: Problem) -> Tensor:
    part = scene[:, :, row : row + problem.ih, column : column + problem.iw]
    return part.contiguous(memory_format=memory_format(problem.layout))


def scene_of(problem: Problem, generator: torch.Generator) -> Tensor:
    return torch.randn(1, problem.ic, problem.ih * 2, problem.iw * 3, generator=generator).to(DTYPES[problem.dtype])


def weight_of(problem: Problem, generator: torch.Generator) -> Tensor | None:
    if problem.op != "conv2d":
        return None
    return torch.randn(problem.weight_shape, generator=generator).to(DTYPES[problem.dtype])


def near(problem: Problem, first: Tensor, second: Tensor, size: float, tier: str) -> bool:
    """Within the tier of a kernel that is not shift_exact, twice since both sides err."""
    allowed = 2 * tolerance.relative(problem.dtype, tier, problem.reduction) * size
    return float((first.double() - second.double()).abs().max()) <= allowed


def moves_with_its_input(
    name: str,
    level: str,
    problem: Problem,
    shifts: tuple[tuple[int, int], ...] = SHIFTS,
    layouts: tuple[str, ...] = LAYOUTS,
) -> None:
    generator = torch.Generator().manual_seed(3)
    exact, tier = dispatch.kernel(name).shift_exact, dispatch.kernel(name).tier
    tried = 0
    for layout in layouts:
        case = problem.replace(layout=layout)
        weight = weight_of(case, generator)
        run = runner(name, level, case, weight)
        scene = scene_of(case, generator)
        size = (
            float(F.conv2d(scene.abs().float(), weight.abs().float(), groups=case.g).max())
            if weight is not None
            else 4.0
        )
        for rows, columns in shifts:
            first, second = shifted_pair(case, run, scene, rows, columns)
            if first.numel() == 0:
                continue
            tried += 1
            same = torch.equal(bits(first), bits(second)) if exact else near(case, first, second, size, tier)
            assert same, f"{layout}, moved by {rows} rows and {columns} columns of the output"
    assert tried >= len(shifts)


@pytest.mark.parametrize(("name", "level", "problem"), cases("conv2d", CONV))
def test_a_convolution_moves_with_its_input(name: str, level: str, problem: Problem) -> None:
    moves_with_its_input(name, level, problem)


@pytest.mark.parametrize(("name", "level", "problem"), cases("max_pool2d", POOL) + cases("avg_pool2d", POOL))
def test_a_pooling_moves_with_its_input(name: str, level: str, problem: Problem) -> None:
    moves_with_its_input(name, level, problem)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        case
        for op in ("conv2d", "max_pool2d", "avg_pool2d")
        for case in interpreted_cases(op, CONV if op == "conv2d" else POOL)
    ],
)
def test_an_interpreted_kernels_output_moves_with_its_input(name: str, problem: Problem) -> None:
    moves_with_its_input(name, "", problem, FEW_SHIFTS)


@pytest.mark.parametrize(("name", "level", "problem"), cases("conv2d", CONV))
def test_a_filters_response_is_the_same_wherever_the_pattern_stands(name: str, level: str, problem: Problem) -> None:
    """One pattern at every place where a filter sees it whole: one response, bitwise for shift_exact kernels."""
    generator = torch.Generator().manual_seed(4)
    weight = weight_of(problem, generator)
    height, width = (problem.kh - 1) * problem.dh + 1, (problem.kw - 1) * problem.dw + 1
    pattern = torch.randn(1, problem.ic, height, width, generator=generator).to(weight.dtype)
    size = float(
        F.conv2d(pattern.abs().float(), weight.abs().float(), dilation=(problem.dh, problem.dw), groups=problem.g).max()
    )
    for layout in LAYOUTS:
        run = runner(name, level, problem.replace(layout=layout), weight)
        responses = []
        top, left, bottom, right = reach(problem)
        for row in sorted({top, problem.oh // 2, problem.oh - bottom - 1}):
            # Every column once; the edges of the other rows.
            step = 1 if row == top else 6
            for column in range(left, problem.ow - right, step):
                input = torch.zeros(problem.input_shape, dtype=weight.dtype)
                input = input.contiguous(memory_format=memory_format(layout))
                y, x = row * problem.sh - problem.ph, column * problem.sw - problem.pw
                input[:, :, y : y + height, x : x + width] = pattern
                responses.append(run(input)[0, :, row, column])
        assert len(responses) > 20
        for response in responses[1:]:
            if dispatch.kernel(name).shift_exact:
                assert torch.equal(bits(response), bits(responses[0])), layout
            else:
                assert near(problem, response, responses[0], size, dispatch.kernel(name).tier), layout


def layer_pair(name: str, mode: str, stride: int, channels: tuple[int, int, int]) -> tuple[torch.nn.Conv2d, nn.Conv2d]:
    inputs, outputs, groups = channels
    torch.manual_seed(0)
    options = dict(stride=stride, padding=1, groups=groups, padding_mode=mode)
    theirs = torch.nn.Conv2d(inputs, outputs, 3, **options)
    ours = nn.Conv2d(inputs, outputs, 3, **options, backend=name)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def layer_channels(name: str) -> tuple[int, int, int]:
    return (6, 12, 6) if name.endswith(":depthwise") else (5, 7, 1)


def layer_cases() -> list:
    """Kernels of the ieee tier and the strides they take, of those of these layers."""
    found = []
    for name in on_cpu("conv2d"):
        inputs, outputs, groups = layer_channels(name)
        for stride in (1, 2):
            problem = parse(f"conv2d n2 ic{inputs} ih14 iw40 oc{outputs} kh3 kw3 sh{stride} sw{stride} g{groups}")
            if not dispatch.reasons_against(name, problem, Context(isa=LEVELS[-1])):
                found.append(pytest.param(name, stride, id=f"{name}-{stride}"))
    return found


@pytest.mark.parametrize(("name", "stride"), layer_cases())
def test_a_layer_with_circular_padding_moves_everywhere(name: str, stride: int) -> None:
    """Rolling the input rolls the output, at the edges too; torch.nn.Conv2d agrees on both sides."""
    channels = layer_channels(name)
    theirs, ours = layer_pair(name, "circular", stride, channels)
    input = torch.randn(2, channels[0], 12, 38, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = ours(input)
        torch.testing.assert_close(output, theirs(input))
        for rows, columns in ((1, 0), (0, 1), (3, 5), (5, 18)):
            moved = ours(input.roll((rows * stride, columns * stride), (2, 3)))
            expected = output.roll((rows, columns), (2, 3))
            if dispatch.kernel(name).shift_exact:
                assert torch.equal(bits(moved), bits(expected)), (rows, columns)
            torch.testing.assert_close(moved, expected)
            torch.testing.assert_close(theirs(input.roll((rows * stride, columns * stride), (2, 3))), moved)


@pytest.mark.parametrize("name", [case.values[0] for case in layer_cases() if case.values[1] == 2])
def test_a_shift_that_is_no_multiple_of_the_stride_does_not_move_the_output(name: str) -> None:
    channels = layer_channels(name)
    theirs, ours = layer_pair(name, "circular", 2, channels)
    input = torch.randn(1, channels[0], 12, 38, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        moved = ours(input.roll(1, 3))
        torch.testing.assert_close(moved, theirs(input.roll(1, 3)))
        assert all(gap(moved, ours(input).roll(columns, 3)) > 0.1 for columns in range(19))


def gap(first: Tensor, second: Tensor) -> float:
    """How far two outputs lie apart, as a share of their size."""
    return float((first - second).norm() / second.norm())


def maps() -> dict[str, Callable[[Tensor], Tensor]]:
    """A shared, a fully connected and an untied map between images of one size."""
    generator = torch.Generator().manual_seed(2)
    shared = torch.randn(1, 1, 3, 3, generator=generator)
    dense = torch.randn(80, 80, generator=generator)
    untied = torch.randn(80, 9, generator=generator)

    def neighbours(image: Tensor) -> Tensor:
        return F.unfold(F.pad(image, (1, 1, 1, 1), mode="circular"), 3)[0].T

    return {
        "convolution": lambda image: nn_conv(image, shared),
        "fully connected": lambda image: F.linear(image.flatten(), dense).reshape(image.shape),
        "untied": lambda image: (untied * neighbours(image)).sum(1).reshape(image.shape),
        "untied, all filters equal": lambda image: (shared.flatten() * neighbours(image)).sum(1).reshape(image.shape),
    }


def nn_conv(image: Tensor, weight: Tensor) -> Tensor:
    layer = nn.Conv2d(1, 1, 3, padding=1, bias=False, padding_mode="circular")
    layer.weight.data = weight
    return layer(image).detach()


def test_only_shared_weights_move_with_the_input() -> None:
    """Sharing is what makes the difference: an untied map moves as soon as all its filters are equal."""
    image = torch.randn(1, 1, 8, 10, generator=torch.Generator().manual_seed(0))
    gaps = {name: gap(run(image.roll((2, 3), (2, 3))), run(image).roll((2, 3), (2, 3))) for name, run in maps().items()}
    assert gaps["convolution"] == 0.0
    assert gaps["untied, all filters equal"] < 1e-6
    assert gaps["fully connected"] > 0.5
    assert gaps["untied"] > 0.5


@pytest.mark.parametrize("name", [name for name in on_cpu("conv2d_grad_weight") if "depthwise" not in name])
def test_the_gradient_of_a_shared_filter_is_the_sum_over_its_places(name: str) -> None:
    generator = torch.Generator().manual_seed(6)
    problem = parse("conv2d_grad_weight n2 ic3 ih6 iw7 oc4 kh3 kw3 ph1 pw1 f64")
    input = torch.randn(problem.input_shape, generator=generator, dtype=torch.float64)
    grad_output = torch.randn(problem.output_shape, generator=generator, dtype=torch.float64)
    shared = dispatch.choose(problem, name).plan(grad_output, input)
    patches = F.unfold(input, 3, padding=1)
    untied = torch.einsum("nop,nkp->pok", grad_output.flatten(2), patches)
    torch.testing.assert_close(shared.flatten(1), untied.sum(0))
