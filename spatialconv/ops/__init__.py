"""``torch.ops.spatialconv``: one op per operation and pass, for everything that is not a plain eager call."""

from . import autocast, autograd, flops, vmap  # noqa: F401 registers
from .schemas import OPS

__all__ = ["OPS"]
