"""Vectors of which only some lanes touch memory, for the ends of rows and the borders of images.

The functions named ``..._first`` touch no more than ``count`` elements, the other lanes being 0.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .vectors import INT, VECTOR_BYTES, Vector, address, every_second, vector_of

# Without mask registers masks are dear, and AMD's processors store under one in some twenty steps: whole vectors are
# told apart by a branch.
_BRANCHES = VECTOR_BYTES < 64


def _integers(vector, size: int):
    return ir.VectorType(ir.IntType(size * 8), vector.count)


def _lanes_between(builder, vector, size: int, first, last):
    """The mask of lanes [first, last)."""
    wide, bits = _integers(vector, size), ir.IntType(size * 8)
    numbers = ir.Constant(wide, list(range(vector.count)))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)

    def spread(bound):
        below, above = ir.Constant(INT, 0), ir.Constant(INT, vector.count)
        bound = builder.select(builder.icmp_signed("<", bound, below), below, bound)
        bound = builder.select(builder.icmp_signed(">", bound, above), above, bound)
        bound = builder.trunc(bound, bits) if size < 8 else bound
        one = builder.insert_element(ir.Constant(wide, ir.Undefined), bound, ir.IntType(32)(0))
        return builder.shuffle_vector(one, one, zeros)

    mask = builder.icmp_signed("<", numbers, spread(last))
    if first is None:
        return mask
    return builder.and_(mask, builder.icmp_signed(">=", numbers, spread(first)))


def _masked_load(builder, vector, size: int, pointer, index, mask, other=None):
    lanes = vector.count
    kinds = [vector.as_pointer(), ir.IntType(32), ir.VectorType(ir.IntType(1), lanes), vector]
    name = f"llvm.masked.load.v{lanes}f{size * 8}.p0"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, kinds), name)
    other = ir.Constant(vector, [0.0] * lanes) if other is None else other
    at = address(builder, vector, pointer, index)
    return builder.call(function, [at, ir.Constant(ir.IntType(32), size), mask, other])


@intrinsic
def load_first(typingctx, pointer, index, count):
    """The first ``count`` elements of ``load``."""

    def generate(target, builder, signature, args):
        vector, size = vector_of(target, pointer)
        source, index, count = args

        def some():
            return _masked_load(
                builder, vector, size, source, index, _lanes_between(builder, vector, size, None, count)
            )

        if not _BRANCHES:
            return some()
        all_of_them = builder.icmp_signed(">=", count, ir.Constant(INT, vector.count))
        with builder.if_else(all_of_them, likely=True) as (then, otherwise):
            with then:
                plain, from_plain = builder.load(address(builder, vector, source, index), align=size), builder.block
            with otherwise:
                masked, from_masked = some(), builder.block
        value = builder.phi(vector)
        value.add_incoming(plain, from_plain)
        value.add_incoming(masked, from_masked)
        return value

    return Vector(pointer.dtype)(pointer, types.int64, types.int64), generate


@intrinsic
def load_between(typingctx, pointer, index, first, last):
    """The elements of ``load`` whose own index lies in [first, last), 0 for the others."""

    def generate(target, builder, signature, args):
        vector, size = vector_of(target, pointer)
        source, index, first, last = args
        mask = _lanes_between(builder, vector, size, builder.sub(first, index), builder.sub(last, index))
        return _masked_load(builder, vector, size, source, index, mask)

    return Vector(pointer.dtype)(pointer, types.int64, types.int64, types.int64), generate


@intrinsic
def load_even_between(typingctx, pointer, index, first, last):
    """pointer[2 * index], pointer[2 * (index + 1)], ... where index, index + 1, ... lie in [first, last), else 0."""

    def generate(target, builder, signature, args):
        vector, size = vector_of(target, pointer)
        source, index, first, last = args
        two, behind = ir.Constant(INT, 2), ir.Constant(INT, vector.count)
        at = builder.mul(index, two)
        first = builder.mul(builder.sub(first, index), two)
        last = builder.sub(builder.mul(builder.sub(last, index), two), ir.Constant(INT, 1))
        mask = _lanes_between(builder, vector, size, first, last)
        low = _masked_load(builder, vector, size, source, at, mask)
        mask = _lanes_between(builder, vector, size, builder.sub(first, behind), builder.sub(last, behind))
        high = _masked_load(builder, vector, size, source, builder.add(at, behind), mask)
        return builder.shuffle_vector(low, high, every_second(vector.count))

    return Vector(pointer.dtype)(pointer, types.int64, types.int64, types.int64), generate


@intrinsic
def mask_between(typingctx, pointer, first, last):
    """A mask that can be stored: lanes [first, last) have all bits set."""

    def generate(target, builder, signature, args):
        vector, size = vector_of(target, pointer)
        mask = _lanes_between(builder, vector, size, args[1], args[2])
        return builder.bitcast(builder.sext(mask, _integers(vector, size)), vector)

    return Vector(pointer.dtype)(pointer, types.int64, types.int64), generate


@intrinsic
def load_where(typingctx, mask, pointer, index, other):
    """The elements of ``load`` in the lanes of a mask, those of ``other`` elsewhere."""

    def generate(target, builder, signature, args):
        vector, size = vector_of(target, pointer)
        mask, source, index, other = args
        kind = _integers(vector, size)
        chosen = builder.icmp_signed("<", builder.bitcast(mask, kind), ir.Constant(kind, [0] * vector.count))
        return _masked_load(builder, vector, size, source, index, chosen, other)

    return mask(mask, pointer, types.int64, other), generate


@intrinsic
def store_first(typingctx, pointer, index, value, count):
    """The first ``count`` lanes."""

    def generate(target, builder, signature, args):
        vector, size = vector_of(target, pointer)
        to, index, value, count = args
        at = address(builder, vector, to, index)

        def some():
            lanes = vector.count
            kinds = [vector, vector.as_pointer(), ir.IntType(32), ir.VectorType(ir.IntType(1), lanes)]
            name = f"llvm.masked.store.v{lanes}f{size * 8}.p0"
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), kinds), name)
            mask = _lanes_between(builder, vector, size, None, count)
            builder.call(function, [value, at, ir.Constant(ir.IntType(32), size), mask])

        if not _BRANCHES:
            some()
            return target.get_dummy_value()
        all_of_them = builder.icmp_signed(">=", count, ir.Constant(INT, vector.count))
        with builder.if_else(all_of_them, likely=True) as (then, otherwise):
            with then:
                builder.store(value, at, align=size)
            with otherwise:
                some()
        return target.get_dummy_value()

    return types.void(pointer, types.int64, value, types.int64), generate
