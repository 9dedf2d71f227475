"""Swap the layers of a whole model between torch's and ours, in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from ..dispatch import check_request
from .layers import BackendLayer
from .swap import concerned, forget, original, reparametrized, target


@dataclass(frozen=True)
class ConversionRow:
    """One convolution or pooling of a model; ``reason`` says why it was left, and is empty where it was swapped."""

    path: str
    layer: str
    swapped: bool
    reason: str = ""


@dataclass(frozen=True)
class ConversionReport:
    """Every convolution and pooling of a model; ``str()`` of it is a table."""

    rows: tuple[ConversionRow, ...]

    @property
    def swapped(self) -> tuple[ConversionRow, ...]:
        return tuple(row for row in self.rows if row.swapped)

    @property
    def left(self) -> tuple[ConversionRow, ...]:
        return tuple(row for row in self.rows if not row.swapped)

    def __str__(self) -> str:
        paths = [row.path or "(the model itself)" for row in self.rows]
        wide = max(map(len, paths), default=0)
        layer = max((len(row.layer) for row in self.rows), default=0)
        lines = [f"{len(self.swapped)} swapped, {len(self.left)} left"]
        for path, row in zip(paths, self.rows, strict=True):
            lines.append(f"  {path:{wide}}  {row.layer:{layer}}  {'swapped' if row.swapped else 'left: ' + row.reason}")
        return "\n".join(lines)


def convert(
    model: torch.nn.Module,
    backend: str | None = None,
    *,
    inverse: bool = False,
    report: Callable[[ConversionReport], object] | None = None,
) -> torch.nn.Module:
    """Make every 2-D convolution and pooling layer of a model spatialconv's, in place, and return the model.

    Only the class of a layer is assigned, so parameters, buffers, hooks, parametrizations, tied and shared layers and
    the layer's identity survive, and optimizers and state_dicts go on working; the model may itself be such a layer. A
    subclass of a torch layer that does not override what is computed keeps its methods. Layers that cannot be swapped
    are left, and ``report=print`` shows which and why. Convert again to change ``backend`` (None: the dispatcher's
    choice); ``inverse=True`` gives every layer the class that it had.

    A call of ``torch.nn.functional.conv2d`` in a model's own ``forward`` is no layer and stays torch's: put
    ``spatialconv.conv2d`` in its place. A model that torch.compile has compiled is compiled anew at its next call.

    Raises ValueError for an unknown ``backend``, TypeError where ``model`` is no module. Example::

        model = spatialconv.nn.convert(torchvision.models.resnet50(), report=print)
    """
    if backend is not None:
        check_request(backend)
    found = list(_verdicts(model, inverse))
    for _, module, cls, _ in found:
        if cls is None:
            continue
        if inverse:
            forget(module)
        if not isinstance(module, BackendLayer) or inverse:
            module.__class__ = reparametrized(module, cls)
        if not inverse:
            module._set_backend(backend)
    if report is not None:
        report(_report(found))
    return model


def conversion_report(model: torch.nn.Module, *, inverse: bool = False) -> ConversionReport:
    """What ``convert`` would swap and what it would leave and why; nothing is changed."""
    return _report(list(_verdicts(model, inverse)))


_Verdict = tuple[str, torch.nn.Module, "type[torch.nn.Module] | None", ConversionRow]


def _report(found: list[_Verdict]) -> ConversionReport:
    return ConversionReport(tuple(row for *_, row in found))


def _verdicts(model: torch.nn.Module, inverse: bool) -> Iterator[_Verdict]:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"spatialconv.nn.convert: model: expected a torch.nn.Module, got {type(model).__name__}")
    scripted: list[str] = []
    for path, module in model.named_modules():
        if any(path.startswith(prefix) for prefix in scripted) or not concerned(module):
            continue
        if isinstance(module, torch.jit.ScriptModule):
            scripted.append(f"{path}." if path else "")
        if inverse and not isinstance(module, BackendLayer):
            continue
        cls, reason = original(module) if inverse else target(module)
        row = ConversionRow(path, type(module).__name__, cls is not None, reason)
        yield path, module, cls, row
