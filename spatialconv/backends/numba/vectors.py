"""Vectors of the machine's width as values. Kernels hold them in variables, so that sums stay in registers, and move
rows that are shorter than an unrolled loop whole vectors at a time; LLVM finds neither in plain loops.

The functions named ``..._first`` touch no more than ``count`` elements of memory, the other lanes being 0.
"""

from __future__ import annotations

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model


def _features() -> set[str]:
    """What numba compiles for: NUMBA_CPU_FEATURES, else what this machine has."""
    if config.CPU_FEATURES is not None:
        return {word[1:] for word in config.CPU_FEATURES.split(",") if word.startswith("+")}
    return {name for name, there in binding.get_host_cpu_features().items() if there}


VECTOR_BYTES = 64 if "avx512f" in _features() else 32 if "avx" in _features() else 16
_INT = ir.IntType(64)


class Vector(types.Type):
    """``lanes`` floats of one type."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Vector({dtype})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind: Vector) -> None:
        element = ir.FloatType() if kind.dtype.bitwidth == 32 else ir.DoubleType()
        super().__init__(manager, kind, ir.VectorType(element, kind.lanes))


def _address(builder, vector, pointer, index):
    return builder.bitcast(builder.gep(pointer, [index]), vector.as_pointer())


def _lanes_between(builder, lanes: int, first, last):
    """The mask of lanes [first, last)."""
    small = ir.IntType(32)
    wide = ir.VectorType(small, lanes)
    numbers, zeros = ir.Constant(wide, list(range(lanes))), ir.Constant(wide, [0] * lanes)

    def spread(bound):
        below, above = ir.Constant(_INT, 0), ir.Constant(_INT, lanes)
        bound = builder.select(builder.icmp_signed("<", bound, below), below, bound)
        bound = builder.select(builder.icmp_signed(">", bound, above), above, bound)
        one = builder.insert_element(ir.Constant(wide, ir.Undefined), builder.trunc(bound, small), small(0))
        return builder.shuffle_vector(one, one, zeros)

    mask = builder.icmp_signed("<", numbers, spread(last))
    if first is None:
        return mask
    return builder.and_(mask, builder.icmp_signed(">=", numbers, spread(first)))


def _masked_load(builder, vector, size: int, pointer, index, first, last):
    lanes = vector.count
    kinds = [vector.as_pointer(), ir.IntType(32), ir.VectorType(ir.IntType(1), lanes), vector]
    name = f"llvm.masked.load.v{lanes}f{size * 8}.p0"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, kinds), name)
    nothing = ir.Constant(vector, [0.0] * lanes)
    mask = _lanes_between(builder, lanes, first, last)
    at = _address(builder, vector, pointer, index)
    return builder.call(function, [at, ir.Constant(ir.IntType(32), size), mask, nothing])


def _evens(lanes: int):
    return ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(0, 2 * lanes, 2)))


def _of(target, pointer) -> tuple[Vector, ir.VectorType, int]:
    kind = Vector(pointer.dtype)
    return kind, target.get_value_type(kind), pointer.dtype.bitwidth // 8


@intrinsic
def lanes(typingctx, pointer):
    """Elements of a vector."""

    def generate(target, builder, signature, args):
        return target.get_constant(types.int64, Vector(pointer.dtype).lanes)

    return types.int64(pointer), generate


@intrinsic
def splat(typingctx, pointer, value):
    """A number in every lane, converted to the type the pointer points to."""

    def generate(target, builder, signature, args):
        _, vector, _ = _of(target, pointer)
        number = target.cast(builder, args[1], value, pointer.dtype)
        undefined = ir.Constant(vector, ir.Undefined)
        one = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
        return builder.shuffle_vector(one, undefined, zeros)

    return Vector(pointer.dtype)(pointer, value), generate


@intrinsic
def load(typingctx, pointer, index):
    """pointer[index], pointer[index + 1], ..."""

    def generate(target, builder, signature, args):
        _, vector, size = _of(target, pointer)
        return builder.load(_address(builder, vector, *args), align=size)

    return Vector(pointer.dtype)(pointer, types.int64), generate


@intrinsic
def load_first(typingctx, pointer, index, count):
    """The first ``count`` elements of ``load``."""

    def generate(target, builder, signature, args):
        _, vector, size = _of(target, pointer)
        return _masked_load(builder, vector, size, args[0], args[1], None, args[2])

    return Vector(pointer.dtype)(pointer, types.int64, types.int64), generate


@intrinsic
def load_even(typingctx, pointer, index):
    """pointer[index], pointer[index + 2], ...; the element behind the last is read, too."""

    def generate(target, builder, signature, args):
        _, vector, size = _of(target, pointer)
        low = builder.load(_address(builder, vector, *args), align=size)
        behind = builder.add(args[1], ir.Constant(_INT, vector.count))
        high = builder.load(_address(builder, vector, args[0], behind), align=size)
        return builder.shuffle_vector(low, high, _evens(vector.count))

    return Vector(pointer.dtype)(pointer, types.int64), generate


@intrinsic
def load_between(typingctx, pointer, index, first, last):
    """The elements of ``load`` whose own index lies in [first, last), 0 for the others."""

    def generate(target, builder, signature, args):
        _, vector, size = _of(target, pointer)
        source, index, first, last = args
        first, last = builder.sub(first, index), builder.sub(last, index)
        return _masked_load(builder, vector, size, source, index, first, last)

    return Vector(pointer.dtype)(pointer, types.int64, types.int64, types.int64), generate


@intrinsic
def load_even_between(typingctx, pointer, index, first, last):
    """pointer[2 * index], pointer[2 * (index + 1)], ... where index, index + 1, ... lie in [first, last), else 0."""

    def generate(target, builder, signature, args):
        _, vector, size = _of(target, pointer)
        source, index, first, last = args
        lanes, two = vector.count, ir.Constant(_INT, 2)
        at = builder.mul(index, two)
        first = builder.mul(builder.sub(first, index), two)
        last = builder.sub(builder.mul(builder.sub(last, index), two), ir.Constant(_INT, 1))
        low = _masked_load(builder, vector, size, source, at, first, last)
        behind = ir.Constant(_INT, lanes)
        first, last = builder.sub(first, behind), builder.sub(last, behind)
        high = _masked_load(builder, vector, size, source, builder.add(at, behind), first, last)
        return builder.shuffle_vector(low, high, _evens(lanes))

    return Vector(pointer.dtype)(pointer, types.int64, types.int64, types.int64), generate


@intrinsic
def store(typingctx, pointer, index, value):
    def generate(target, builder, signature, args):
        _, vector, size = _of(target, pointer)
        builder.store(args[2], _address(builder, vector, args[0], args[1]), align=size)
        return target.get_dummy_value()

    return types.void(pointer, types.int64, value), generate


@intrinsic
def store_first(typingctx, pointer, index, value, count):
    """The first ``count`` lanes."""

    def generate(target, builder, signature, args):
        _, vector, size = _of(target, pointer)
        lanes = vector.count
        kinds = [vector, vector.as_pointer(), ir.IntType(32), ir.VectorType(ir.IntType(1), lanes)]
        name = f"llvm.masked.store.v{lanes}f{size * 8}.p0"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), kinds), name)
        at, mask = _address(builder, vector, args[0], args[1]), _lanes_between(builder, lanes, None, args[3])
        builder.call(function, [args[2], at, ir.Constant(ir.IntType(32), size), mask])
        return target.get_dummy_value()

    return types.void(pointer, types.int64, value, types.int64), generate


@intrinsic
def multiply_add(typingctx, a, b, c):
    """a * b + c."""

    def generate(target, builder, signature, args):
        vector = target.get_value_type(a)
        name = f"llvm.fmuladd.v{vector.count}f{a.dtype.bitwidth}"
        return builder.call(
            cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name), args
        )

    return a(a, b, c), generate


@intrinsic
def add(typingctx, a, b):
    def generate(target, builder, signature, args):
        return builder.fadd(*args)

    return a(a, b), generate


@intrinsic
def divide(typingctx, a, b):
    def generate(target, builder, signature, args):
        return builder.fdiv(*args)

    return a(a, b), generate


@intrinsic
def larger(typingctx, held, value):
    """The larger of each two lanes, the held one where they are equal; a NaN is larger than anything."""

    def generate(target, builder, signature, args):
        held, value = args
        better = builder.select(builder.fcmp_ordered(">", value, held), value, held)
        return builder.select(builder.fcmp_unordered("uno", value, value), value, better)

    return held(held, value), generate


@intrinsic
def sum_of_lanes(typingctx, vector):
    """The halves added until one number is left: an order that depends on nothing."""

    def generate(target, builder, signature, args):
        value, count = args[0], vector.lanes
        while count > 1:
            count //= 2
            low = ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(count)))
            high = ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(count, 2 * count)))
            value = builder.fadd(builder.shuffle_vector(value, value, low), builder.shuffle_vector(value, value, high))
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return vector.dtype(vector), generate


@intrinsic
def transpose_square(typingctx, to, to_step, source, source_step):
    """to[i * to_step + j] = source[j * source_step + i] for a vector's number of rows and columns."""

    def generate(target, builder, signature, args):
        _, vector, size = _of(target, to)
        to_pointer, to_step, from_pointer, from_step = args
        count = vector.count
        at = [
            _address(builder, vector, from_pointer, builder.mul(from_step, ir.Constant(_INT, j))) for j in range(count)
        ]
        rows = [builder.load(place, align=size) for place in at]
        # Each stage interleaves row i with row i + count / 2; after log2(count) of them rows have become columns.
        halves = [
            ir.Constant(ir.VectorType(ir.IntType(32), count), [k // 2 + first + k % 2 * count for k in range(count)])
            for first in (0, count // 2)
        ]
        for _ in range(count.bit_length() - 1):
            pairs = [(rows[i], rows[i + count // 2]) for i in range(count // 2)]
            rows = [builder.shuffle_vector(low, high, half) for low, high in pairs for half in halves]
        for i, row in enumerate(rows):
            place = _address(builder, vector, to_pointer, builder.mul(to_step, ir.Constant(_INT, i)))
            builder.store(row, place, align=size)
        return target.get_dummy_value()

    return types.void(to, types.int64, source, types.int64), generate
