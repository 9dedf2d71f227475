"""Swap the layers of a whole model between torch's and ours, in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from ..dispatch import check_request
from .folding import Folding
from .layers import BackendLayer
from .swap import concerned, forget, original, reparametrized, target


@dataclass(frozen=True)
class ConversionRow:
    """One convolution or pooling of a model; ``reason`` says why it was left, and is empty where it was swapped.

    ``fused`` are the modules folded into it, by class and path; ``unfused`` says why what follows it was not, and is
    empty where nothing follows that could be.
    """

    path: str
    layer: str
    swapped: bool
    reason: str = ""
    fused: tuple[str, ...] = ()
    unfused: str = ""

    def __str__(self) -> str:
        """What was done to the layer."""
        parts = ["swapped" if self.swapped else f"left: {self.reason}"]
        parts += [f"with {' and '.join(self.fused)}"] if self.fused else []
        parts += [f"not fused: {self.unfused}"] if self.unfused else []
        return ", ".join(parts)


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
            lines.append(f"  {path:{wide}}  {row.layer:{layer}}  {row}")
        return "\n".join(lines)


def convert(
    model: torch.nn.Module,
    backend: str | None = None,
    *,
    inverse: bool = False,
    fuse: bool = False,
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

    ``fuse=True``, for inference: a ``BatchNorm2d`` behind a convolution is folded into its weight and bias by the
    running statistics, and a ``ReLU``, ``ReLU6``, ``Hardswish``, ``SiLU`` or exact ``GELU`` behind that becomes the
    layer's ``activation``; what was folded becomes ``torch.nn.Identity``. **That has no inverse**: convert a copy to
    keep the model. It is done only where the model, executed symbolically by ``torch.fx``, shows that the output goes
    there and nowhere else; not in training mode, nor where a module concerned has hooks or parametrizations, is used
    in several places, shares a parameter, or lacks running statistics. Where a ``forward`` cannot be executed so, what
    its parts show alone is taken for granted, such as the order of a ``Sequential``; a model that also calls such
    modules one by one must not be fused. ``report=print`` shows what was folded, and what not and why.

    Raises ValueError for an unknown ``backend`` and for ``fuse`` with ``inverse``, TypeError where ``model`` is no
    module; the model is then as it was. Example::

        model = spatialconv.nn.convert(torchvision.models.resnet50(), report=print)
    """
    if backend is not None:
        check_request(backend)
    if fuse and inverse:
        raise ValueError("spatialconv.nn.convert: fuse: expected False with inverse=True, got True")
    found = list(_verdicts(model, inverse))
    folding = _folding(model, found) if fuse else None
    for _, module, cls, _ in found:
        if cls is None:
            continue
        if inverse:
            forget(module)
        if not isinstance(module, BackendLayer) or inverse:
            module.__class__ = reparametrized(module, cls)
        if not inverse:
            module._set_backend(backend)
    result = None if report is None else _report(found, folding)
    if folding is not None:
        folding.apply()
    if result is not None:
        report(result)
    return model


def conversion_report(model: torch.nn.Module, *, inverse: bool = False, fuse: bool = False) -> ConversionReport:
    """What ``convert`` would swap and fuse and what it would leave and why; nothing is changed."""
    found = list(_verdicts(model, inverse))
    return _report(found, _folding(model, found) if fuse else None)


_Verdict = tuple[str, torch.nn.Module, "type[torch.nn.Module] | None", ConversionRow]


def _folding(model: torch.nn.Module, found: list[_Verdict]) -> Folding:
    return Folding(model, {module: cls for _, module, cls, _ in found if cls is not None})


def _report(found: list[_Verdict], folding: Folding | None) -> ConversionReport:
    rows = []
    for _, module, _, row in found:
        fold = None if folding is None else folding.folds.get(module)
        rows.append(row if fold is None else replace(row, fused=folding.names(fold), unfused=fold.reason))
    return ConversionReport(tuple(rows))


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
