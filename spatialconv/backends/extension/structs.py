"""The plain structs of ``csrc/common/problem.h``, field by field: int64 only, strides in elements."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping

__all__ = ["Conv2d", "Pool2d", "conv2d_struct", "pool2d_struct"]

_Strides = ctypes.c_int64 * 4
_CONV2D = "n g ic ih iw oc oh ow kh kw sh sw ph pw dh dw activation accumulate".split()
_POOL2D = "n c ih iw oh ow kh kw sh sw ph pw dh dw adaptive include_pad divisor indices offsets".split()


class Conv2d(ctypes.Structure):
    """One convolution as the compiled kernels see it; ``y`` is the output, or its gradient in the other two passes.
    ``activation`` is 0 for none, else one more than its place in ``problem.ACTIVATIONS``; ``accumulate`` is 1 where the
    output is added to what is there."""

    integers = tuple(_CONV2D)
    _fields_ = [
        *((name, ctypes.c_int64) for name in _CONV2D),
        ("x_stride", _Strides),
        ("w_stride", _Strides),
        ("y_stride", _Strides),
    ]


class Pool2d(ctypes.Structure):
    """One pooling as the compiled kernels see it; ``divisor`` 0 means none was given."""

    integers = tuple(_POOL2D)
    _fields_ = [
        *((name, ctypes.c_int64) for name in _POOL2D),
        ("x_stride", _Strides),
        ("y_stride", _Strides),
    ]


def conv2d_struct(
    fields: Mapping[str, int], x_stride: Iterable[int], w_stride: Iterable[int], y_stride: Iterable[int]
) -> Conv2d:
    """A filled :class:`Conv2d`. ``fields`` must name every integer of the struct; what else it holds is ignored."""
    values = [int(fields[name]) for name in _CONV2D]
    return Conv2d(*values, _Strides(*x_stride), _Strides(*w_stride), _Strides(*y_stride))


def pool2d_struct(fields: Mapping[str, int], x_stride: Iterable[int], y_stride: Iterable[int]) -> Pool2d:
    """A filled :class:`Pool2d`. ``fields`` must name every integer of the struct; what else it holds is ignored."""
    values = [int(fields[name]) for name in _POOL2D]
    return Pool2d(*values, _Strides(*x_stride), _Strides(*y_stride))
