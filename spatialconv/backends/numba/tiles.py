"""The inner loop of the matrix products: register tiles written in LLVM's vector instructions.

A tile is out[i][j] (+)= sum over k of a[i][k] * b[k][j], each sum in the order of k, for a fixed number of rows and of
vectors of columns. The depth is cut into runs of one length: what is packed goes on from run to run, and the other
operand begins each run at an offset of its own. LLVM does not find this form in plain loops.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .vectors import VECTOR_BYTES

# Tall tiles read rows of ``a`` side by side and packed panels of ``b``; wide ones the reverse. Both fill the registers.
TALL_ROWS, TALL_VECTORS = (14, 2) if VECTOR_BYTES == 64 else (6, 2)
WIDE_ROWS, WIDE_VECTORS = (8, 3) if VECTOR_BYTES == 64 else (4, 3)

# Rows that are addressed from one pointer: with a pointer for each of them LLVM runs out of registers, and sums go to
# memory and back in the innermost loop.
_ROWS_A_BASE = 3

_INT = ir.IntType(64)


def _tile(rows: int, vectors: int, panel: int | None):
    """An intrinsic ``tile(runs, offsets, depth, a, a_step, b, b_step, out, out_step, accumulate)``.

    Args:
        panel: None where row i of ``a`` begins at a + offsets[run] + i * a_step, and ``b`` is packed; else ``a`` is
            packed, a[i][k] = a[k * panel + i], and ``b`` begins at b + offsets[run].
    """

    def tile(typingctx, runs, offsets, depth, a, a_step, b, b_step, out, out_step, accumulate):
        def generate(target, builder, signature, args):
            runs, offsets, depth, a, a_step, b, b_step, out, out_step, accumulate = args
            element = target.get_value_type(signature.args[3].dtype)
            size = signature.args[3].dtype.bitwidth // 8
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

            def hidden(pointer):
                """The same pointer, of which LLVM does not know how it was reached."""
                number = builder.ptrtoint(pointer, _INT)
                number = builder.asm(ir.FunctionType(_INT, [_INT]), "", "=r,0", [number], side_effect=False)
                return builder.inttoptr(number, pointer.type)

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
            with cgutils.for_range(builder, runs) as run:
                offset = builder.load(builder.gep(offsets, [run.index]))
                packed = builder.mul(run.index, depth)
                if panel is None:
                    first_a, first_b = builder.gep(a, [offset]), builder.gep(b, [builder.mul(packed, b_step)])
                else:
                    first_a = builder.gep(a, [builder.mul(packed, ir.Constant(_INT, panel))])
                    first_b = builder.gep(b, [offset])
                with cgutils.for_range(builder, depth) as loop:
                    right = builder.gep(first_b, [builder.mul(loop.index, b_step)])
                    columns = [load(right, column(j)) for j in range(vectors)]
                    here = loop.index if panel is None else builder.mul(loop.index, ir.Constant(_INT, panel))
                    left = builder.gep(first_a, [here])
                    for i in range(rows):
                        if panel is not None:
                            start = ir.Constant(_INT, i)
                        else:
                            if i and i % _ROWS_A_BASE == 0:
                                left = hidden(builder.gep(left, [builder.mul(a_step, ir.Constant(_INT, _ROWS_A_BASE))]))
                            start = builder.mul(a_step, ir.Constant(_INT, i % _ROWS_A_BASE))
                        value = broadcast(left, start)
                        for j in range(vectors):
                            total = builder.call(multiply_add, [value, columns[j], builder.load(sums[i][j])])
                            builder.store(total, sums[i][j])
            for i in range(rows):
                for j in range(vectors):
                    place = vector_at(out, builder.add(row_starts[i], column(j)))
                    builder.store(builder.load(sums[i][j]), place, align=size)
            return target.get_dummy_value()

        number = types.int64
        table = types.CPointer(number)
        return types.void(number, table, number, a, number, b, number, out, number, number), generate

    return intrinsic(tile)


tall_tile = _tile(TALL_ROWS, TALL_VECTORS, None)
narrow_tile = _tile(TALL_ROWS, 1, None)
wide_tile = _tile(WIDE_ROWS, WIDE_VECTORS, WIDE_ROWS)
two_wide_tile = _tile(WIDE_ROWS, 2, WIDE_ROWS)
one_wide_tile = _tile(WIDE_ROWS, 1, WIDE_ROWS)
