"""Vectors of the machine's width as values. Kernels hold them in variables, so that sums stay in registers, and move
rows that are shorter than an unrolled loop whole vectors at a time; LLVM finds neither in plain loops. What touches
only some lanes' memory is in ``masked.py``.
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
INT = ir.IntType(64)


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


def address(builder, vector, pointer, index):
    return builder.bitcast(builder.gep(pointer, [index]), vector.as_pointer())


def every_second(lanes: int):
    return ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(0, 2 * lanes, 2)))


def vector_of(target, pointer) -> tuple[ir.VectorType, int]:
    """LLVM's type of a vector of what the pointer points to, and the bytes of an element."""
    return target.get_value_type(Vector(pointer.dtype)), pointer.dtype.bitwidth // 8


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
        vector, _ = vector_of(target, pointer)
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
        vector, size = vector_of(target, pointer)
        return builder.load(address(builder, vector, *args), align=size)

    return Vector(pointer.dtype)(pointer, types.int64), generate


@intrinsic
def load_even(typingctx, pointer, index):
    """pointer[index], pointer[index + 2], ..., and nothing behind the last of them."""

    def generate(target, builder, signature, args):
        vector, size = vector_of(target, pointer)
        count = vector.count
        low = builder.load(address(builder, vector, *args), align=size)
        behind = builder.add(args[1], ir.Constant(INT, count - 1))
        high = builder.load(address(builder, vector, args[0], behind), align=size)
        chosen = [*range(0, count, 2), *range(count + 1, 2 * count, 2)]
        return builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(ir.IntType(32), count), chosen))

    return Vector(pointer.dtype)(pointer, types.int64), generate


def _of_pair(lane: int):
    """An intrinsic that takes lane 0 or 1 of each pair of lanes of two vectors."""

    def pick(typingctx, low, high):
        def generate(target, builder, signature, args):
            count, block = low.lanes, 16 * 8 // low.dtype.bitwidth
            chosen = [first + side * count + i for first in range(0, count, block) for side in (0, 1)
                      for i in range(lane, block, 2)]  # fmt: skip
            return builder.shuffle_vector(*args, ir.Constant(ir.VectorType(ir.IntType(32), count), chosen))

        return low(low, high), generate

    return intrinsic(pick)


# Elements 0, 2, 4, ... or 1, 3, 5, ... of two vectors that follow each other in memory, in the order in which a
# processor picks them at once, within blocks of 16 bytes; ``in_order`` sorts a result that was computed in that order.
evens, odds = _of_pair(0), _of_pair(1)


@intrinsic
def in_order(typingctx, vector):
    """The lanes of what was computed from ``evens`` or ``odds`` in the order of memory."""

    def generate(target, builder, signature, args):
        count, half = vector.lanes, 8 * 8 // vector.dtype.bitwidth
        chosen = [block + i for side in (0, half) for block in range(side, count, 2 * half) for i in range(half)]
        return builder.shuffle_vector(args[0], args[0], ir.Constant(ir.VectorType(ir.IntType(32), count), chosen))

    return vector(vector), generate


@intrinsic
def store(typingctx, pointer, index, value):
    def generate(target, builder, signature, args):
        vector, size = vector_of(target, pointer)
        builder.store(args[2], address(builder, vector, args[0], args[1]), align=size)
        return target.get_dummy_value()

    return types.void(pointer, types.int64, value), generate


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
def multiply(typingctx, a, b):
    def generate(target, builder, signature, args):
        return builder.fmul(*args)

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


def _interleaved(builder, rows):
    """The elements of ``rows``, a power of two of vectors, in the order (lane, row)."""
    count = rows[0].type.count
    # Each stage interleaves row i with row i + rows / 2.
    halves = [
        ir.Constant(ir.VectorType(ir.IntType(32), count), [k // 2 + first + k % 2 * count for k in range(count)])
        for first in (0, count // 2)
    ]
    middle = len(rows) // 2
    for _ in range(len(rows).bit_length() - 1):
        pairs = [(rows[i], rows[i + middle]) for i in range(middle)]
        rows = [builder.shuffle_vector(low, high, half) for low, high in pairs for half in halves]
    return rows


def _transposition(row_count: int | None):
    def transpose(typingctx, to, to_step, source, source_step):
        def generate(target, builder, signature, args):
            vector, size = vector_of(target, to)
            to_pointer, to_step, from_pointer, from_step = args
            count = row_count or vector.count
            at = [
                address(builder, vector, from_pointer, builder.mul(from_step, ir.Constant(INT, j)))
                for j in range(count)
            ]
            rows = _interleaved(builder, [builder.load(place, align=size) for place in at])
            for i, row in enumerate(rows):
                place = address(builder, vector, to_pointer, builder.mul(to_step, ir.Constant(INT, i)))
                builder.store(row, place, align=size)
            return target.get_dummy_value()

        return types.void(to, types.int64, source, types.int64), generate

    return intrinsic(transpose)


# to[i * to_step + j] = source[j * source_step + i] for a vector's number of rows and columns.
transpose_square = _transposition(None)


def interleaving(rows: int):
    """to[i * rows + j] = source[j * source_step + i] for i up to a vector's lanes and j up to ``rows``, a power of two;
    ``to_step`` is a vector's lanes."""
    return _transposition(rows)
