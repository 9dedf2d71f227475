"""convert() assigns classes and nothing else: all that hangs on a layer survives, and the way back is exact."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import spatialconv.nn as ours
from spatialconv.nn import convert


class ScaledConv(nn.Conv2d):
    """A subclass that adds to torch's layer and computes as it does."""

    def __init__(self, *args, scale=2.0, **options):
        super().__init__(*args, **options)
        self.scale = scale

    def scaled_weight(self):
        return self.weight * self.scale

    def extra_repr(self):
        return f"{super().extra_repr()}, scale={self.scale}"


class OwnForward(nn.Conv2d):
    def forward(self, input):
        return super().forward(input) + 1


class OwnConvForward(nn.Conv2d):
    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, weight * 2, bias)


class WithBackend(nn.Conv2d):
    backend = "mine"


def small_model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.MaxPool2d(2, return_indices=False),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, padding_mode="circular"),
        nn.AvgPool2d(2),
        nn.ConvTranspose2d(8, 4, 2, 2),
        nn.AdaptiveMaxPool2d(4),
        nn.AdaptiveAvgPool2d(1),
    ).double()


def image(channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def gradients(model: nn.Module, input: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    output = model(input)
    output.square().sum().backward()
    return [output.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


def assert_same(mine, theirs):
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


def test_whole_model_and_back():
    model = small_model()
    classes = [type(module) for module in model.modules()]
    attributes = [sorted(vars(module)) for module in model.modules()]
    parameters = [id(parameter) for parameter in model.parameters()]
    modules = [id(module) for module in model.modules()]
    shown, state = repr(model), {key: value.clone() for key, value in model.state_dict().items()}
    before = gradients(copy.deepcopy(model), image())

    assert convert(model) is model
    swapped = [type(module) for module in model.modules() if type(module).__module__.startswith("spatialconv")]
    assert swapped == [ours.Conv2d, ours.MaxPool2d, ours.Conv2d, ours.AvgPool2d, ours.ConvTranspose2d,
                       ours.AdaptiveMaxPool2d, ours.AdaptiveAvgPool2d]  # fmt: skip
    assert repr(model) == shown
    assert [id(parameter) for parameter in model.parameters()] == parameters
    assert [id(module) for module in model.modules()] == modules
    assert_same(gradients(copy.deepcopy(model), image()), before)

    assert convert(model, inverse=True) is model
    assert [type(module) for module in model.modules()] == classes
    assert [sorted(vars(module)) for module in model.modules()] == attributes
    assert_same(dict(model.state_dict()), state)
    assert repr(model) == shown


def test_backend_is_set_changed_and_removed():
    model = convert(small_model(), "reference")
    layers = [module for module in model.modules() if hasattr(module, "backend")]
    assert len(layers) == 7 and all(layer.backend == "reference" for layer in layers)
    convert(model, "extension")
    assert all(layer.backend == "extension" for layer in layers)
    convert(model)
    assert all(layer.backend is None and "backend" not in vars(layer) for layer in layers)
    convert(convert(model, "reference"), inverse=True)
    assert not any(hasattr(layer, "backend") for layer in layers)


def test_wrong_arguments_change_nothing():
    model = small_model()
    with pytest.raises(ValueError, match="extension"):
        convert(model, "no such backend")
    assert type(model[0]) is nn.Conv2d
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        convert([model])


def test_the_model_itself_is_a_layer():
    layer = nn.Conv2d(3, 4, 3).double()
    expected = layer(image())
    seen = []
    assert convert(layer, report=seen.append) is layer
    assert type(layer) is ours.Conv2d
    assert "(the model itself)" in str(seen[0])
    assert_same(layer(image()), expected)


def test_shared_and_tied():
    shared = nn.Conv2d(4, 4, 3, padding=1)
    tied = nn.Conv2d(4, 4, 3, padding=1)
    tied.weight = shared.weight
    model = nn.Sequential(shared, nn.ReLU(), shared, tied).double()
    expected = gradients(model, image(4))
    report = ours.conversion_report(model)
    assert [row.path for row in report.rows] == ["0", "3"]
    convert(model)
    assert model[0] is model[2] is shared and tied.weight is shared.weight
    assert_same(gradients(model, image(4)), expected)


def test_hooks_training_flag_and_optimizer():
    model = small_model().eval()
    calls = []
    model[0].register_forward_pre_hook(lambda module, args: calls.append("before"))
    model[0].register_forward_hook(lambda module, args, output: calls.append("after"))
    model[0].register_full_backward_hook(lambda module, grad_input, grad_output: calls.append("backward"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    convert(model)
    assert not any(module.training for module in model.modules())
    before = model[0].weight.detach().clone()
    gradients(model, image())
    optimizer.step()
    assert calls == ["before", "after", "backward"]
    assert not torch.equal(before, model[0].weight)


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm,
                                  parametrizations.orthogonal])  # fmt: skip
def test_parametrized(wrap):
    torch.manual_seed(0)
    layer = wrap(nn.Conv2d(4, 3, 3).double()).eval()
    other = copy.deepcopy(layer)
    old_class = type(layer)
    expected = gradients(layer, image(4))
    names = list(layer.state_dict())
    convert(layer, "reference")
    assert isinstance(layer, ours.Conv2d) and parametrize.is_parametrized(layer, "weight")
    assert not isinstance(other, ours.Conv2d) and type(other) is old_class
    assert parametrize.type_before_parametrizations(layer) is ours.Conv2d
    assert list(layer.state_dict()) == names
    assert_same(gradients(layer, image(4)), expected)
    assert_same(gradients(copy.deepcopy(layer), image(4)), expected)

    back = convert(copy.deepcopy(layer), inverse=True)
    assert parametrize.type_before_parametrizations(back) is nn.Conv2d and not hasattr(back, "backend")
    assert type(back).__name__ == old_class.__name__
    assert_same(gradients(back, image(4)), expected)
    parametrize.remove_parametrizations(back, "weight")
    assert type(back) is nn.Conv2d

    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is ours.Conv2d and layer.backend == "reference"
    assert_same(layer(image(4)), expected[0])


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_hook_based_norms(wrap):
    torch.manual_seed(0)
    layer = wrap(nn.Conv2d(4, 3, 3).double()).eval()
    expected = gradients(layer, image(4))
    assert_same(gradients(convert(layer), image(4)), expected)
    remove = nn.utils.remove_weight_norm if wrap is nn.utils.weight_norm else nn.utils.remove_spectral_norm
    assert_same(remove(layer)(image(4)), expected[0])
    assert type(layer) is ours.Conv2d


def test_pruned():
    layer = nn.Conv2d(4, 3, 3).double()
    prune.l1_unstructured(layer, "weight", amount=0.5)
    expected = gradients(layer, image(4))
    convert(layer)
    assert_same(gradients(layer, image(4)), expected)
    prune.remove(layer, "weight")
    assert type(layer) is ours.Conv2d and (layer.weight == 0).sum() == layer.weight.numel() // 2
    assert_same(layer(image(4)), expected[0])


def test_subclass_keeps_its_methods():
    layer = ScaledConv(4, 3, 3, scale=3.0).double()
    expected, shown = gradients(layer, image(4)), repr(layer)
    convert(layer, "reference")
    assert isinstance(layer, ScaledConv) and isinstance(layer, ours.Conv2d)
    assert_same(layer.scaled_weight(), layer.weight * 3)
    assert repr(layer) == shown.replace(", scale", ", backend='reference', scale")
    assert_same(gradients(layer, image(4)), expected)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(copied) is type(layer) and copied.scale == 3.0 and copied.backend == "reference"
        assert_same(copied(image(4)), expected[0])
    assert type(convert(ScaledConv(4, 3, 3))) is type(layer)
    assert type(convert(layer, inverse=True)) is ScaledConv
    assert repr(layer) == shown


def test_subclass_under_a_parametrization():
    layer = parametrizations.weight_norm(ScaledConv(4, 3, 3).double())
    expected = layer(image(4))
    convert(layer)
    assert isinstance(layer, ScaledConv) and isinstance(layer, ours.Conv2d)
    assert_same(layer(image(4)), expected)
    assert parametrize.type_before_parametrizations(convert(layer, inverse=True)) is ScaledConv
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is ScaledConv


def left_alone() -> list[tuple[nn.Module, str]]:
    replaced = nn.Conv2d(4, 4, 1)
    replaced.forward = lambda input: input
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(4, 4, 1)))
    quantized = torch.ao.nn.quantized.Conv2d(4, 4, 1)
    return [
        (nn.Conv1d(4, 4, 1), "1-D"),
        (nn.Conv3d(4, 4, 1), "3-D"),
        (nn.MaxPool1d(2), "1-D"),
        (nn.AdaptiveAvgPool3d(2), "3-D"),
        (nn.LazyConv2d(4, 1), "not initialised"),
        (nn.LPPool2d(2, 2), "no LPPool2d"),
        (nn.MaxUnpool2d(2), "no MaxUnpool2d"),
        (OwnForward(4, 4, 1), "overrides forward"),
        (OwnConvForward(4, 4, 1), "overrides _conv_forward"),
        (WithBackend(4, 4, 1), "backend of its own"),
        (replaced, "replaced on this instance"),
        (scripted, "TorchScript"),
        (quantized, "quantized"),
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_what_is_left_and_why():
    for module, why in left_alone():
        before, model, seen = type(module), nn.Sequential(nn.Conv2d(1, 1, 1), module), []
        convert(model, report=seen.append)
        (report,) = seen
        assert type(module) is before, why
        assert [(row.path, row.swapped) for row in report.rows] == [("0", True), ("1", False)]
        assert why in report.left[0].reason, (why, report.left[0].reason)
        assert "1 swapped, 1 left" in str(report) and report.left[0].reason in str(report)


def test_layers_of_other_kinds_are_not_reported():
    report = ours.conversion_report(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm2d(2), nn.Upsample(2), nn.ReLU()))
    assert report.rows == ()


def test_lazy_once_initialised():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.LazyConvTranspose2d(3, 3))
    convert(model)
    expected = model(torch.zeros(1, 3, 8, 8))
    assert type(convert(model)[0]) is ours.Conv2d and type(model[2]) is ours.ConvTranspose2d
    torch.testing.assert_close(model(torch.zeros(1, 3, 8, 8)), expected)


def test_report_changes_nothing():
    model = small_model()
    report = ours.conversion_report(model)
    assert len(report.swapped) == 7 and not report.left and type(model[0]) is nn.Conv2d
    assert report.rows[0].path == "0" and report.rows[0].layer == "Conv2d"


def test_inverse_leaves_what_has_no_torch_class():
    class Derived(ours.Conv2d):
        pass

    model = nn.Sequential(Derived(3, 4, 1), ours.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    report = ours.conversion_report(model, inverse=True)
    assert [row.swapped for row in report.rows] == [False, True]
    convert(model, inverse=True)
    assert [type(module) for module in model] == [Derived, nn.Conv2d, nn.Conv2d]


def test_compiled_model_follows():
    graphs = []

    def record(graph_module, inputs):
        graphs.append({str(node.target) for node in graph_module.graph.nodes})
        return graph_module

    torch._dynamo.reset()
    model = small_model()[:3].eval()
    compiled = torch.compile(model, fullgraph=True, backend=record)
    expected = compiled(image())
    convert(model)
    assert_same(compiled(image()), expected)
    assert len(graphs) == 2
    assert not any("spatialconv" in target for target in graphs[0])
    assert any("spatialconv" in target for target in graphs[1])


def test_state_dict_goes_both_ways():
    plain, converted = small_model(), convert(small_model())
    converted.load_state_dict(plain.state_dict())
    assert_same(converted.eval()(image()), plain.eval()(image()))
    plain.load_state_dict(converted.state_dict())
    whole = pickle.loads(pickle.dumps(converted))
    assert [type(module) for module in whole.modules()] == [type(module) for module in converted.modules()]
