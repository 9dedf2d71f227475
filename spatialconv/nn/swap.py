"""Which class a module gets when a model is converted, or why it keeps its own. Nothing here changes a module."""

from __future__ import annotations

import copyreg
from functools import cache
from typing import Any

import torch
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from .layers import LAYERS, BackendLayer

_TORCH = {ours: theirs for theirs, ours in LAYERS.items()}
# A layer computes what these say; a class or an instance that has its own is not torch's layer any more.
_COMPUTES = ("forward", "_conv_forward", "__call__", "_call_impl")
_NAMES = ("Conv", "ConvTranspose", "MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool")
_OTHER_RANK = {getattr(torch.nn, f"{name}{rank}d"): f"{rank}-D" for name in _NAMES for rank in (1, 3)}
_OTHER_KIND = tuple(
    getattr(torch.nn, name)
    for name in (
        "LPPool1d", "LPPool2d", "LPPool3d", "FractionalMaxPool2d", "FractionalMaxPool3d",
        "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d", "Unfold", "Fold",
    )
)  # fmt: skip


class MixedLayer:
    """Marks the classes made here of a user's subclass of a torch layer and ours."""

    _original: type[torch.nn.Module]

    def __reduce_ex__(self, protocol):
        reduced = super().__reduce_ex__(protocol)
        if reduced[0] is copyreg.__newobj__:
            return (_new_mixed, (self._original,), *reduced[2:])
        return reduced


@cache
def mixed(original: type[torch.nn.Module]) -> type[torch.nn.Module]:
    """The class that has the methods of a user's subclass of a torch layer and computes with ours.

    The user's class comes first, so all it defines still holds and its ``super()`` calls reach our layer, then torch's.
    """
    ours = LAYERS[_layer_of(original)]
    return type(original)(
        original.__name__,
        (MixedLayer, original, ours),
        {"__module__": original.__module__, "__qualname__": original.__qualname__, "_original": original},
    )


def _new_mixed(original: type[torch.nn.Module]) -> torch.nn.Module:
    made = mixed(original)
    return made.__new__(made)


def unparametrized(module: torch.nn.Module) -> type[torch.nn.Module]:
    """The module's class, without the class that ``torch.nn.utils.parametrize`` puts before it."""
    return parametrize.type_before_parametrizations(module)


def reparametrized(module: torch.nn.Module, base: type[torch.nn.Module]) -> type[torch.nn.Module]:
    """``base``, or where the module is parametrized a class of its properties over ``base``.

    A new class, since a copied module shares the old one with the module that it was copied from.
    """
    cls = type(module)
    if unparametrized(module) is cls:
        return base
    own = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__", "__doc__")}
    return type(cls)(f"Parametrized{base.__name__}", (base,), own)


def _layer_of(cls: type) -> type[torch.nn.Module] | None:
    return next((theirs for theirs in LAYERS if issubclass(cls, theirs)), None)


def concerned(module: torch.nn.Module) -> bool:
    """Whether a report should name the module: a convolution or a pooling in whatever form."""
    if isinstance(module, torch.jit.ScriptModule):
        return any(_named_so(getattr(inner, "original_name", "")) for inner in module.modules())
    return isinstance(module, (*LAYERS, *_OTHER_RANK, *_OTHER_KIND)) or _is_quantized(module)


def _named_so(name: str) -> bool:
    return "Conv" in name or "Pool" in name


def _is_quantized(module: torch.nn.Module) -> bool:
    cls = type(module)
    folders = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
    return _named_so(cls.__name__) and cls.__module__.startswith(folders)


def target(module: torch.nn.Module) -> tuple[type[torch.nn.Module] | None, str]:
    """The class (before parametrization) that conversion gives, or None and the reason in words."""
    cls = unparametrized(module)
    if isinstance(module, torch.jit.ScriptModule):
        return None, "compiled by TorchScript: convert the model before it is scripted or traced"
    if isinstance(module, BackendLayer):
        return cls, ""
    if _is_quantized(module):
        return None, "quantized: spatialconv computes in floating point"
    theirs = _layer_of(cls)
    if theirs is None:
        rank = next((rank for other, rank in _OTHER_RANK.items() if issubclass(cls, other)), None)
        return None, f"{rank}: spatialconv computes in 2-D" if rank else f"spatialconv has no {cls.__name__}"
    if isinstance(module, LazyModuleMixin):
        return None, "its parameters are not initialised yet: call the model once, then convert again"
    reason = _override(module, cls, theirs)
    if reason:
        return None, reason
    if cls is theirs:
        return LAYERS[theirs], ""
    try:
        return mixed(cls), ""
    except TypeError as error:
        return None, f"no class can be made of {cls.__name__} and spatialconv.nn.{theirs.__name__}: {error}"


def _override(module: torch.nn.Module, cls: type, theirs: type) -> str:
    for name in _COMPUTES:
        if getattr(cls, name, None) is not getattr(theirs, name, None):
            return f"{cls.__name__} overrides {name}"
        if name in vars(module):
            return f"{name} was replaced on this instance"
    for name in ("backend", "activation") if theirs is torch.nn.Conv2d else ("backend",):
        if hasattr(module, name):
            return f"{cls.__name__} has an attribute named {name} of its own"
    return ""


def original(module: torch.nn.Module) -> tuple[type[torch.nn.Module] | None, str]:
    """The class (before parametrization) that the module had, or would have, in plain torch, or None and why."""
    cls = unparametrized(module)
    if not isinstance(module, BackendLayer):
        return None, "not a layer of spatialconv"
    if getattr(module, "activation", None) is not None:
        return None, f"its activation, {module.activation}, is no part of torch's layer"
    if issubclass(cls, MixedLayer):
        return cls._original, ""
    if cls in _TORCH:
        return _TORCH[cls], ""
    return None, f"{cls.__name__} derives from a layer of spatialconv: torch has no class for it"


def forget(module: torch.nn.Module) -> None:
    """Drop the attributes that only our layers have."""
    own: dict[str, Any] = module.__dict__
    own.pop("backend", None)
    own.pop("_packed", None)
