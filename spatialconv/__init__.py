"""Convolution and pooling written several ways behind one dispatcher: PyTorch operators and drop-in ``torch.nn``
layers."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from . import errors, nn
from .dispatch import backends, use_backend
from .explain import explain
from .functional import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    conv2d,
    conv_transpose2d,
    local_conv2d,
    max_pool2d,
)

try:
    __version__ = version("spatialconv")
except PackageNotFoundError:
    __version__ = "0+not.installed"


def __getattr__(name: str):
    """The study is imported when it is first asked for."""
    if name == "study":
        return import_module(".study", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "__version__",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "backends",
    "conv2d",
    "conv_transpose2d",
    "errors",
    "explain",
    "local_conv2d",
    "max_pool2d",
    "nn",
    "study",
    "use_backend",
]
