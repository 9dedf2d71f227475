"""Convolution and pooling written several ways behind one dispatcher: PyTorch operators and drop-in ``torch.nn``
layers."""

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
    "use_backend",
]
