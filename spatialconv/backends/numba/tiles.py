"""The inner loop of the matrix products: register tiles written in LLVM's vector instructions.

A tile is out[i][j] (+)= sum over k of a[i][k] * b[k][j], each sum in the order of k, for a fixed number of rows and of
vectors of columns. LLVM does not find this form in plain loops.
"""

from __future__ import annotations

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_FEATURES = binding.get_host_cpu_features()
VECTOR_BYTES = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx") else 16
# Tall tiles read rows of ``a`` side by side and packed panels of ``b``; wide ones the reverse. Both fill the registers.
TALL_ROWS, TALL_VECTORS = (14, 2) if VECTOR_BYTES == 64 else (6, 2)
WIDE_ROWS, WIDE_VECTORS = (8, 3) if VECTOR_BYTES == 64 else (4, 3)

_INT = ir.IntType(64)


def _tile(rows: int, vectors: int, panel: int | None):
    """An intrinsic ``tile(depth, a, a_step, b, b_step, out, out_step, accumulate)``.

    Args:
        panel: None where row i of ``a`` begins at a + i * a_step; else ``a`` is packed, a[i][k] = a[k * panel + i].
    """

    def tile(typingctx, depth, a, a_step, b, b_step, out, out_step, accumulate):
        def generate(target, builder, signature, args):
            depth, a, a_step, b, b_step, out, out_step, accumulate = args
            element = target.get_value_type(signature.args[1].dtype)
            size = signature.args[1].dtype.bitwidth // 8
            lanes = VECTOR_BYTES // size
            vector = ir.VectorType(element, lanes)
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
            undefined = ir.Constant(vector, ir.Undefined)
            name = f"llvm.fmuladd.v{lanes}f{size * 8}"
            multiply_add = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)

            def vector_at(pointer, offset):
                return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())

            def load(pointer, offset):
                return builder.load(vector_at(pointer, offset), align=size)

            def broadcast(pointer, offset):
                value = builder.load(builder.gep(pointer, [offset]))
                return builder.shuffle_vector(builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0)),
                                              undefined, zeros)  # fmt: skip

            def column(j):
                return ir.Constant(_INT, j * lanes)

            row_starts = [builder.mul(out_step, ir.Constant(_INT, i)) for i in range(rows)]
            sums = [[cgutils.alloca_once(builder, vector) for _ in range(vectors)] for _ in range(rows)]
            adding = builder.icmp_signed("!=", accumulate, ir.Constant(_INT, 0))
            with builder.if_else(adding) as (then, otherwise):
                with then:
                    for i in range(rows):
                        for j in range(vectors):
                            builder.store(load(out, builder.add(row_starts[i], column(j))), sums[i][j])
                with otherwise:
                    for i in range(rows):
                        for j in range(vectors):
                            builder.store(ir.Constant(vector, [0.0] * lanes), sums[i][j])
            if panel is None:
                starts = [builder.mul(a_step, ir.Constant(_INT, i)) for i in range(rows)]
            else:
                starts = [ir.Constant(_INT, i) for i in range(rows)]
            with cgutils.for_range(builder, depth) as loop:
                here = loop.index if panel is None else builder.mul(loop.index, ir.Constant(_INT, panel))
                left = builder.gep(a, [here])
                right = builder.gep(b, [builder.mul(loop.index, b_step)])
                columns = [load(right, column(j)) for j in range(vectors)]
                for i in range(rows):
                    value = broadcast(left, starts[i])
                    for j in range(vectors):
                        total = builder.call(multiply_add, [value, columns[j], builder.load(sums[i][j])])
                        builder.store(total, sums[i][j])
            for i in range(rows):
                for j in range(vectors):
                    place = vector_at(out, builder.add(row_starts[i], column(j)))
                    builder.store(builder.load(sums[i][j]), place, align=size)
            return target.get_dummy_value()

        number = types.int64
        return types.void(number, a, number, b, number, out, number, number), generate

    return intrinsic(tile)


tall_tile = _tile(TALL_ROWS, TALL_VECTORS, None)
narrow_tile = _tile(TALL_ROWS, 1, None)
wide_tile = _tile(WIDE_ROWS, WIDE_VECTORS, WIDE_ROWS)


@intrinsic
def lanes(typingctx, pointer):
    """Elements of a vector."""

    def generate(target, builder, signature, args):
        return target.get_constant(types.int64, VECTOR_BYTES // (pointer.dtype.bitwidth // 8))

    return types.int64(pointer), generate
