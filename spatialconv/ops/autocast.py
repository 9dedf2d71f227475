"""Autocast: a convolution runs in the dtype the caller's autocast region asks for, as torch's does.

``torch.library.register_autocast`` fixes one dtype for good, hence the keys' own kernels. Pooling keeps its input's
dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .schemas import LIBRARY, OPS

# The devices whose autocast regions are obeyed, and their dispatch keys.
DEVICES = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}
_KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.AutocastCUDA
)


def cast(value, device: str, dtype: torch.dtype):
    """The value in the region's dtype where autocast applies to it."""
    if not isinstance(value, Tensor) or value.device.type != device:
        return value
    return value.to(dtype) if value.is_floating_point() and value.dtype != torch.float64 else value


def _register(name: str, device: str, key: str) -> None:
    def convolve(*args):
        dtype = torch.get_autocast_dtype(device)
        with torch._C._ExcludeDispatchKeyGuard(_KEYS):
            return OPS[name](*(cast(value, device, dtype) for value in args))

    LIBRARY.impl(name, convolve, key)


for _device, _key in DEVICES.items():
    for _name in ("conv2d", "local_conv2d"):
        _register(_name, _device, _key)
