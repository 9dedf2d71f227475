"""freeze() runs a whole model as recorded: the same values whatever the graph, its memory its own, no edit unseen."""

from __future__ import annotations

import copy
import io
import operator
import threading

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spatialconv
from spatialconv.backends import load as load_backend
from spatialconv.nn import Frozen, convert, freeze
from spatialconv.nn.memory_plan import Buffer, offsets
from spatialconv.nn.recording import Generic, Native

# Large enough for the kernels that can add, and more channels than they hold in registers.
CHANNELS, SHAPE = 20, (2, 20, 6, 5)

needs_extension = pytest.mark.skipif(
    load_backend("extension").unavailable() is not None, reason=str(load_backend("extension").unavailable())
)


def integers(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randint(-2, 3, shape, generator=generator).double()


class Graph(nn.Module):
    """A forward of instructions (word, operand, operand), each on two of the values so far; the last few values are
    returned. On small integers every sum is exact."""

    def __init__(self, instructions: list[tuple[str, int, int]], returned: int) -> None:
        super().__init__()
        self.instructions, self.returned = instructions, returned
        generator = torch.Generator().manual_seed(len(instructions))
        self.layers = nn.ModuleList()
        for word, _, _ in instructions:
            self.layers.append(self._layer(word))
            for parameter in self.layers[-1].parameters():
                parameter.data = integers(*parameter.shape, generator=generator)
                # Most taps are zero, so that values stay small however deep the graph is.
                parameter.data *= (torch.rand(parameter.shape, generator=generator) < 0.3).double()

    @staticmethod
    def _layer(word: str) -> nn.Module:
        if word in ("conv", "convrelu", "convid"):
            convolution = nn.Conv2d(CHANNELS, CHANNELS, 1)
            behind = {"conv": [], "convrelu": [nn.ReLU()], "convid": [nn.Identity()]}[word]
            return nn.Sequential(convolution, *behind)
        kinds = {
            "conv3": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            "joined": lambda: nn.Conv2d(2 * CHANNELS, CHANNELS, 1, bias=False),
            "pool": lambda: nn.MaxPool2d(3, 1, 1),
            "relu": nn.ReLU,
            "relu6_": lambda: nn.ReLU6(inplace=True),
        }
        return kinds.get(word, nn.Identity)()

    def forward(self, input: Tensor) -> list[Tensor]:
        values = [input]
        for (word, first, second), layer in zip(self.instructions, self.layers, strict=True):
            a, b = values[first % len(values)], values[second % len(values)]
            if word in ("add", "iadd"):
                value = getattr(operator, word)(a, b)
            elif word == "method":
                value = a.add(b)
            elif word == "joined":
                value = layer(torch.cat([a, b], dim=1))
            elif word == "function":
                value = F.relu(a)
            elif word == "view":
                value = a.flatten(1).view(a.shape)
            elif word == "transposed":
                value = a.transpose(2, 3).contiguous().transpose(2, 3)
            else:
                value = layer(a)
            values.append(value)
        return values[-self.returned :]


WORDS = (
    "conv", "convid", "convrelu", "conv3", "joined", "pool", "relu", "relu6_", "add", "add", "iadd", "method",
    "function", "view", "transposed", "identity",
)  # fmt: skip
INSTRUCTIONS = st.lists(st.tuples(st.sampled_from(WORDS), st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=9)


@needs_extension
@settings(max_examples=150, deadline=None, derandomize=True)
@given(INSTRUCTIONS, st.integers(1, 3), st.booleans())
def test_any_graph_gives_the_values_of_the_model(instructions, returned, last) -> None:
    """Also where steps overwrite their operands, values are read late, and several are returned."""
    check(instructions, returned, last)


# Where a kernel must not add onto the other summand, or not wait for it.
TRAPS = {
    "the summand is read later": ([("conv3", 0, 0), ("conv", 0, 0), ("add", 1, 2), ("method", 3, 1)], 1),
    "a view of it is read later": ([("conv3", 0, 0), ("view", 1, 1), ("conv", 0, 0), ("add", 1, 3), ("add", 4, 2)], 1),
    "it is returned": ([("conv3", 0, 0), ("conv", 0, 0), ("add", 1, 2)], 3),
    "the kernel reads it": ([("conv3", 0, 0), ("conv", 1, 1), ("add", 1, 2)], 1),
    "the kernel reads a view of it": ([("conv3", 0, 0), ("view", 1, 1), ("conv", 2, 2), ("add", 1, 3)], 1),
    "its input is overwritten meanwhile": ([("conv3", 0, 0), ("conv", 1, 1), ("relu6_", 1, 1), ("add", 2, 3)], 1),
    "it is the model's input": ([("conv", 0, 0), ("iadd", 0, 1)], 1),
    "it is a convolution after": ([("conv", 0, 0), ("conv3", 0, 0), ("iadd", 1, 2), ("relu", 3, 3)], 1),
    "twice the same": ([("conv", 0, 0), ("add", 1, 1)], 1),
    "a sum of sums": ([("conv3", 0, 0), ("conv", 0, 0), ("add", 1, 2), ("conv", 0, 0), ("iadd", 3, 4)], 1),
}


@needs_extension
@pytest.mark.parametrize("trap", TRAPS)
def test_traps(trap) -> None:
    for last in (False, True):
        check(*TRAPS[trap], last)


def check(instructions, returned: int, last: bool) -> None:
    """Three calls, of which none changes another's result."""
    model = Graph(instructions, returned).eval()
    generator = torch.Generator().manual_seed(3)
    frozen, kept = freeze(model), []
    with torch.no_grad():
        for _ in range(3):
            input = integers(*SHAPE, generator=generator)
            input = input.contiguous(memory_format=torch.channels_last) if last else input
            own, other = input.clone(), input.clone()
            expected, got = model(own), frozen(other)
            kept.append((expected, got))
            assert torch.equal(own, other), "the input was left otherwise"
        for expected, got in kept:
            assert all(map(torch.equal, expected, got)), "a later call wrote into an earlier one's result"
            assert [one.stride() for one in expected] == [one.stride() for one in got]


class Block(nn.Module):
    """A residual block whose shortcut is a convolution, calculated after the body's last one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16))
        self.shortcut = nn.Sequential(nn.Conv2d(4, 16, 1), nn.BatchNorm2d(16))
        self.end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))

    def forward(self, input: Tensor) -> Tensor:
        output = self.body(input)
        output += self.shortcut(input)
        return self.end(F.relu(output))


def block() -> tuple[Block, Tensor]:
    torch.manual_seed(0)
    return Block().eval(), torch.randn(2, 4, 9, 8)


def steps(frozen: Frozen) -> list:
    (program,) = frozen._programs.values()
    return program.steps


@needs_extension
@torch.no_grad()
def test_what_becomes_a_kernel_call():
    """The sum of a residual block is the kernel's own, and calls that follow each other know all their addresses."""
    model, input = block()
    frozen = freeze(model)
    first, second = frozen(input), frozen(input)
    expected = copy.deepcopy(model).double()(input.double())
    for output in (first, second):
        torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-5)
    native = [step for step in steps(frozen) if isinstance(step, Native)]
    assert len(native) == 5 and sum(step.onto is not None for step in native) == 1
    assert [step.node.name for step in steps(frozen) if type(step) is Generic] == ["relu"]
    assert torch.equal(second, frozen(input))


@needs_extension
@torch.no_grad()
def test_an_activation_module_behind_the_sum_is_the_kernels():
    class Activated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.act = nn.Conv2d(20, 20, 3, padding=1), nn.Conv2d(20, 20, 1), nn.Hardswish()

        def forward(self, input: Tensor) -> Tensor:
            input = self.first(input)
            return self.act(input + self.second(torch.sigmoid(input))).mean()

    torch.manual_seed(0)
    model, input = Activated().eval(), torch.randn(SHAPE)
    frozen = freeze(model)
    for _ in range(3):
        torch.testing.assert_close(frozen(input), model(input))
    (last,) = [step for step in steps(frozen) if isinstance(step, Native) and step.onto is not None]
    assert last.node.target == "act"


@torch.no_grad()
def test_every_form_of_input_is_recorded_alone():
    model, input = block()
    frozen = freeze(model)
    forms = [
        input, input[:1], input.contiguous(memory_format=torch.channels_last), input[:, :, ::2, 1:],
        input.transpose(2, 3), torch.randn(3, 4, 5, 5),
    ]  # fmt: skip
    for _ in range(3):
        for form in forms:
            torch.testing.assert_close(frozen(form), model(form))
    assert len(frozen._programs) == len(forms)


@torch.no_grad()
def test_unbatched_and_double():
    layer = nn.Sequential(nn.Conv2d(4, 3, 3), nn.ReLU(), nn.MaxPool2d(2)).eval()
    frozen = freeze(layer)
    for _ in range(2):
        torch.testing.assert_close(frozen(torch.ones(4, 7, 7)), layer(torch.ones(4, 7, 7)))
    frozen.double()
    assert frozen(torch.ones(1, 4, 7, 7, dtype=torch.float64)).dtype == torch.float64


def test_other_calls_go_through_the_layers():
    model, input = block()
    frozen = freeze(model)
    output = frozen(input)
    assert output.requires_grad and not frozen._programs
    output.sum().backward()
    assert frozen.model.shortcut[0].weight.grad is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert frozen(input).dtype == torch.bfloat16 and not frozen._programs
    with torch.inference_mode():
        torch.testing.assert_close(frozen(input=input), output)
        torch.testing.assert_close(torch.func.vmap(frozen)(input[None])[0], output)
        assert not frozen._programs
        torch.testing.assert_close(frozen(input), output)
        assert len(frozen._programs) == 1


def assign(frozen: Frozen) -> None:
    frozen.model.body[0].weight = nn.Parameter(2 * frozen.model.body[0].weight)


def edit(frozen: Frozen) -> None:
    frozen.model.body[0].weight.mul_(2)


def edit_bias(frozen: Frozen) -> None:
    frozen.model.shortcut[0].bias.add_(1)


def load_state(frozen: Frozen) -> None:
    frozen.load_state_dict({name: 2 * value for name, value in frozen.state_dict().items()})


@pytest.mark.parametrize("change", [assign, edit, edit_bias, load_state])
@torch.no_grad()
def test_new_weights_are_noticed(change):
    model, input = block()
    frozen = freeze(model)
    before = frozen(input), frozen(input)
    change(frozen)
    expected = copy.deepcopy(frozen.model)(input)
    assert not torch.allclose(expected, before[1])
    for _ in range(2):
        torch.testing.assert_close(frozen(input), expected)


@torch.no_grad()
def test_the_model_itself_stays_as_it_was():
    model, input = block()
    expected, before = model(input), copy.deepcopy(model.state_dict())
    freeze(model)(input)
    assert torch.equal(model(input), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@torch.no_grad()
def test_hooks_are_called():
    model, input = block()
    called = []
    model.body[0].register_forward_hook(lambda *_: called.append("body"))
    frozen = freeze(model)
    for _ in range(3):
        frozen(input)
    assert called == 3 * ["body"]
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: called.append("any"))
    frozen(input)
    handle.remove()
    assert called.count("any") > 5


@needs_extension
def test_inference_mode_before_no_grad():
    """What is kept from a call in inference mode may be written to by a later one outside of it."""
    for instructions in (
        [("conv3", 0, 0), ("relu6_", 1, 1), ("conv", 1, 1), ("iadd", 2, 3), ("pool", 4, 4)],
        [("conv", 0, 0)],
    ):
        model = Graph(instructions, 1).eval()
        frozen, input = freeze(model), integers(*SHAPE, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            frozen(input), frozen(input)
        with torch.no_grad():
            for _ in range(2):
                assert torch.equal(frozen(input)[0], model(input)[0])


@torch.no_grad()
def test_a_weight_that_a_hook_makes():
    """torch.nn.utils.weight_norm, whose layer has no parameter of that name."""
    model, input = block()
    with pytest.warns(FutureWarning):
        torch.nn.utils.weight_norm(model.body[0])
    frozen = freeze(model)
    for _ in range(3):
        torch.testing.assert_close(frozen(input), model(input))
    assert len(frozen._programs) == 1
    frozen.model.body[0].weight_g.mul_(2)
    torch.testing.assert_close(frozen(input), copy.deepcopy(frozen.model)(input))


@torch.no_grad()
def test_threads_share_nothing():
    model, _ = block()
    frozen = freeze(model)
    inputs = [torch.randn(2, 4, 9, 8) for _ in range(4)]
    for input in inputs[:1] * 2:
        frozen(input)
    expected, wrong = [frozen(input) for input in inputs], []

    def work(number: int) -> None:
        with torch.no_grad():
            for _ in range(50):
                if not torch.equal(frozen(inputs[number]), expected[number]):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@torch.no_grad()
def test_copies_files_and_release():
    model, input = block()
    frozen = freeze(model)
    expected = [frozen(input), frozen(input)][1]
    file = io.BytesIO()
    torch.save(frozen, file)
    file.seek(0)
    for other in (copy.deepcopy(frozen), torch.load(file, weights_only=False)):
        other(input)
        assert torch.equal(other(input), expected)
    frozen.release()
    assert not frozen._programs
    frozen(input)
    assert torch.equal(frozen(input), expected)


@torch.no_grad()
def test_a_value_of_another_form_is_noticed():
    """What a mask leaves has a size that the input's form does not tell."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, 1, bias=False)

        def forward(self, input: Tensor) -> Tensor:
            input = self.first(input)
            return self.second(input[input > 0].reshape(1, 1, 1, -1))

    model = Masked().eval()
    model.first.weight.fill_(1)
    frozen = freeze(model)
    for number in (3, 3, 2, 3, 1):
        input = -torch.ones(1, 1, 2, 2)
        input.flatten()[:number] = 1
        assert frozen(input).shape == (1, 1, 1, number)
        torch.testing.assert_close(frozen(input), model(input))


def test_what_cannot_be_frozen():
    class Branching(nn.Module):
        def forward(self, input: Tensor) -> Tensor:
            return input if input.sum() > 0 else -input

    with pytest.raises(ValueError, match="freeze: model: expected eval mode"):
        freeze(nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match="torch.fx can execute symbolically"):
        freeze(Branching().eval())
    with pytest.raises(TypeError, match="freeze: model: expected a torch.nn.Module, got int"):
        freeze(3)
    with pytest.raises(ValueError, match="backend"):
        freeze(nn.Conv2d(1, 1, 1).eval(), "none such")
    assert not any(module.training for module in nn.Sequential(freeze(nn.Conv2d(1, 1, 1).eval())).train()[0].modules())
    with pytest.raises(RuntimeError):
        freeze(nn.Conv2d(1, 1, 1).eval())(torch.ones(1, 2, 3, 3))


@torch.no_grad()
def test_the_request_is_kept():
    layer = nn.Conv2d(CHANNELS, 4, 3).eval()
    reports = []
    frozen = freeze(layer, "reference", report=reports.append)
    assert frozen.model[0].backend == "reference" and len(reports[0].swapped) == 1
    input = torch.randn(SHAPE)
    for _ in range(2):
        assert torch.equal(frozen(input), spatialconv.conv2d(input, layer.weight, layer.bias, backend="reference"))
    with spatialconv.use_backend("numba"):
        plain = convert(copy.deepcopy(layer))
        assert torch.equal(freeze(layer)(input), plain(input))


BUFFERS = st.lists(st.tuples(st.integers(1, 500), st.integers(0, 9), st.integers(0, 5)), max_size=20)


@given(BUFFERS)
def test_buffers_that_meet_lie_apart(drawn) -> None:
    buffers = [Buffer(size, first, first + length) for size, first, length in drawn]
    places, total = offsets(buffers)
    for number, one in enumerate(buffers):
        assert places[one] % 64 == 0 and places[one] + one.size <= total
        for other in buffers[:number]:
            if one.first <= other.last and other.first <= one.last:
                assert places[one] + one.size <= places[other] or places[other] + other.size <= places[one]
    if buffers:
        together = max(sum(b.size for b in buffers if b.first <= step <= b.last) for step in range(20))
        assert together <= total <= sum(b.size + 63 for b in buffers)


class Keeper(nn.Module):
    """A layer of somebody's own that keeps what it was given, and gives it back where its values say so."""

    def forward(self, input: Tensor) -> Tensor:
        self.seen = input
        return input if input.sum() > 0 else input.clone()


@needs_extension
@torch.no_grad()
def test_what_somebody_keeps_is_theirs():
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(5)]
    model = nn.Sequential(layers[0], Keeper(), layers[1], nn.Identity(), *layers[2:]).eval()
    kept: list[Tensor] = []
    model[3].register_forward_hook(lambda module, given, output: kept.append(output))
    frozen, plain = freeze(model), model
    for _ in range(4):
        input = torch.randn(1, 8, 9, 9)
        kept.clear()
        expected = plain(input)
        seen, hooked = plain[1].seen, kept.pop()
        torch.testing.assert_close(frozen(input), expected)
        torch.testing.assert_close(frozen.model[1].seen, seen)
        torch.testing.assert_close(kept.pop(), hooked)


@torch.no_grad()
def test_hooks_of_the_model_and_of_what_contains_layers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()), nn.Conv2d(4, 4, 1)).eval()
    model.register_forward_pre_hook(lambda module, given: (given[0] * 2,))
    model.register_forward_hook(lambda module, given, output: output * 3)
    model[0].register_forward_hook(lambda module, given, output: output - float(output.mean()))
    frozen, input = freeze(model), torch.randn(1, 4, 7, 7)
    for _ in range(3):
        torch.testing.assert_close(frozen(input), model(input))


@torch.no_grad()
def test_forms_changed_in_place_and_constants_of_the_forward():
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, input: Tensor) -> dict[str, Tensor]:
            value = self.first(input)
            value.transpose_(2, 3)
            return {"turned": self.second(value + torch.ones(1))}

    torch.manual_seed(0)
    model, input = Turned().eval(), torch.randn(1, 4, 8, 7)
    frozen = freeze(model)
    for _ in range(4):
        output = frozen(input)
        assert type(output) is dict
        torch.testing.assert_close(output, model(input))


def test_edits_of_a_model_frozen_in_inference_mode():
    model, input = block()
    with torch.inference_mode():
        frozen = freeze(model)
        frozen(input), frozen(input)
        frozen.load_state_dict({name: 2 * value for name, value in frozen.state_dict().items()})
        expected = copy.deepcopy(frozen.model)(input)
        torch.testing.assert_close(frozen(input), expected)
        frozen.model.double()
        with pytest.raises(RuntimeError):
            frozen(input)
        with pytest.raises(TypeError, match="positional argument"):
            frozen(input, input)
