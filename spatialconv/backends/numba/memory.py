"""Typed views of the addresses in a kernel's context, as pointers: indexing one is one load or store, nothing else."""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic


@intrinsic
def integers(typingctx, context):
    """The context as a pointer to its int64 fields."""

    def generate(target, builder, signature, args):
        return builder.bitcast(args[0], target.get_value_type(signature.return_type))

    return types.CPointer(types.int64)(context), generate


@intrinsic
def elements(typingctx, context, address):
    """A pointer to elements of the kernel's type at an address."""

    def generate(target, builder, signature, args):
        return builder.inttoptr(args[1], target.get_value_type(signature.return_type))

    return context(context, types.int64), generate


@intrinsic
def indices_at(typingctx, address):
    """A pointer to int64 at an address."""

    def generate(target, builder, signature, args):
        return builder.inttoptr(args[0], target.get_value_type(signature.return_type))

    return types.CPointer(types.int64)(types.int64), generate


@intrinsic
def moved(typingctx, pointer, count):
    """The pointer ``count`` elements further on."""

    def generate(target, builder, signature, args):
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.int64), generate


@intrinsic
def itemsize(typingctx, pointer):
    """Bytes of an element."""

    def generate(target, builder, signature, args):
        return target.get_constant(types.int64, pointer.dtype.bitwidth // 8)

    return types.int64(pointer), generate


@intrinsic
def as_element(typingctx, pointer, value):
    """A number converted to the type the pointer points to."""

    def generate(target, builder, signature, args):
        return target.cast(builder, args[1], value, pointer.dtype)

    return pointer.dtype(pointer, value), generate
