"""Makes Triton's interpreter (TRITON_INTERPRET=1) compute what a GPU would, and makes it strict.

Upstream keeps bfloat16 as uint16 bits and computes with the bits, cuts where hardware rounds, gives comparisons the
type of their operands, multiplies in full float32 whatever precision a dot asks for and in whichever order numpy's BLAS
likes, and reads any address. Here bfloat16 is widened to float32 and rounded back to nearest even, dots sum in the
order of k, masked lanes without an ``other`` hold NaN, and every lane's address is checked (``checked_memory.py``).
This file alone uses the interpreter's private names; ``missing_names`` says which of them this triton lacks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import triton
import triton.language as tl
from triton._C.libtriton import ir
from triton.runtime import interpreter as upstream
from triton.runtime.errors import InterpreterError

from .checked_memory import Access, CheckedMemory, OutOfBoundsError

_WANTED = {
    upstream: (
        "_get_np_dtype",
        "_implicit_cvt",
        "_interpreter",
        "_patch_lang",
        "_patch_lang_tensor",
        "_unwrap_tensor",
        "interpreter_builder",
        "interpreter_semantic",
        "InterpreterOptions",
        "TensorHandle",
    ),
    upstream.InterpreterBuilder: (
        "binary_op",
        "unary_op",
        "ternary_op",
        "cast_impl",
        "create_clampf",
        "create_dot",
        "create_fma",
        "create_masked_load",
        "create_maxnumf",
        "create_minnumf",
        "set_grid_idx",
    ),
    upstream.GridExecutor: ("__call__",),
    upstream.ReduceOps: ("apply_impl",),
}
_COMPARISONS = (np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal)


def missing_names() -> list[str]:
    """The private names used here that this triton lacks; empty on every supported one."""
    return [
        f"{owner.__name__}.{name}" for owner, names in _WANTED.items() for name in names if not hasattr(owner, name)
    ]


def mend() -> None:
    """Replaces what is wrong in the interpreter, once; does nothing where kernels are compiled."""
    if not triton.knobs.runtime.interpret or isinstance(upstream._interpreter, CheckedMemory):
        return
    _mend_arithmetic(upstream.InterpreterBuilder)
    _mend_reductions(upstream.ReduceOps)
    _mend_scalars()
    _mend_patching()
    _mend_launches(upstream.GridExecutor)
    _mend_loads(upstream.InterpreterBuilder)
    _mend_memory()


@contextmanager
def recorded() -> Iterator[list[Access]]:
    """A list that gets every block that interpreted kernels load or store meanwhile, in order; blocks of which all
    lanes are masked are none."""
    mend()
    accesses: list[Access] = []
    memory = upstream._interpreter
    memory.listener = accesses.append
    try:
        yield accesses
    finally:
        memory.listener = None


def _widened(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _narrowed(values: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16, ties to even."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), bits >> 16 | 0x40, nearest).astype(np.uint16)


def _cut_to_tf32(values: np.ndarray) -> np.ndarray:
    """What a tensor core takes of float32 bits: the low 13 are ignored, and Triton does not round beforehand."""
    cut = (np.asarray(values, np.float32).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isnan(values), values, cut)


def _product(a: np.ndarray, b: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The matrix product, each element summed in the order of k: a BLAS adds up another way where a row is another."""
    a, b = a.astype(dtype), b.astype(dtype)
    total = np.zeros((*a.shape[:-1], b.shape[-1]), dtype)
    for k in range(a.shape[-1]):
        total += a[..., :, k, None] * b[..., None, k, :]
    return total


def _is_bfloat16(handle: object) -> bool:
    return isinstance(handle, upstream.TensorHandle) and handle.dtype.scalar == tl.bfloat16


def _wide(handle: object) -> object:
    return upstream.TensorHandle(_widened(handle.data), tl.float32) if _is_bfloat16(handle) else handle


def _in_float32(method):
    """The method with bfloat16 operands widened and its float32 result rounded back."""

    def widening(self, *operands):
        if not any(map(_is_bfloat16, operands)):
            return method(self, *operands)
        result = method(self, *map(_wide, operands))
        if result.dtype.scalar != tl.float32:
            return result
        return upstream.TensorHandle(_narrowed(result.data), tl.bfloat16)

    return widening


def _mend_arithmetic(builder: type) -> None:
    binary_op, cast_impl = builder.binary_op, builder.cast_impl

    def typed_binary_op(self, lhs, rhs, op):
        if op in _COMPARISONS:
            return upstream.TensorHandle(op(lhs.data, rhs.data), tl.int1)
        return binary_op(self, lhs, rhs, op)

    def rounding_cast(self, source, result_type):
        if source.dtype.scalar == result_type.scalar:
            return source
        source = _wide(source)
        if result_type.scalar != tl.bfloat16:
            return cast_impl(self, source, result_type)
        values = source if source.dtype.scalar == tl.float32 else cast_impl(self, source, tl.float32)
        return upstream.TensorHandle(_narrowed(values.data), tl.bfloat16)

    def dot(self, a, b, acc, input_precision, *rest):
        a, b = _wide(a), _wide(b)
        if input_precision == ir.INPUT_PRECISION.TF32 and a.dtype.scalar == tl.float32:
            a, b = (upstream.TensorHandle(_cut_to_tf32(operand.data), tl.float32) for operand in (a, b))
        return upstream.TensorHandle(acc.data + _product(a.data, b.data, acc.data.dtype), acc.dtype.scalar)

    def clampf(self, value, low, high, propagate_nan):
        if propagate_nan == ir.PROPAGATE_NAN.NONE:
            return self.binary_op(self.binary_op(value, low, np.fmax), high, np.fmin)
        return self.ternary_op(value, low, high, np.clip)

    builder.binary_op = _in_float32(typed_binary_op)
    builder.unary_op = _in_float32(builder.unary_op)
    builder.ternary_op = _in_float32(builder.ternary_op)
    builder.create_fma = _in_float32(builder.create_fma)
    builder.cast_impl = rounding_cast
    builder.create_dot = dot
    builder.create_clampf = clampf
    # The hardware's maximum and minimum return the operand that is a number.
    builder.create_maxnumf = lambda self, lhs, rhs: self.binary_op(lhs, rhs, np.fmax)
    builder.create_minnumf = lambda self, lhs, rhs: self.binary_op(lhs, rhs, np.fmin)
    builder.get_bf16 = lambda self, value: self.cast_impl(self.get_fp32(value), tl.bfloat16)


def _mend_reductions(reduce_ops: type) -> None:
    apply_impl = reduce_ops.apply_impl

    def widening_apply(self, operands):
        narrow = [operand.dtype == tl.bfloat16 for operand in operands]
        if not any(narrow):
            return apply_impl(self, operands)
        cast = upstream.interpreter_semantic.cast
        results = apply_impl(self, tuple(cast(operand, tl.float32) for operand in operands))
        if isinstance(results, tl.tensor):
            return cast(results, tl.bfloat16)
        return tuple(cast(result, tl.bfloat16) if was else result for result, was in zip(results, narrow, strict=True))

    reduce_ops.apply_impl = widening_apply


def _mend_scalars() -> None:
    """numpy 2.4 and newer turns only arrays of no dimension into integers, and a scalar here is an array of one."""
    patch_tensor = upstream._patch_lang_tensor

    def patch_tensor_and_index(tensor, scope):
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    upstream._patch_lang_tensor = patch_tensor_and_index


class _Patches:
    """What one launch has patched in triton.language, one scope for each module whose functions it called."""

    def __init__(self) -> None:
        self.scopes: dict[int, object] = {}

    def restore(self) -> None:
        for scope in reversed(self.scopes.values()):
            scope.restore()
        self.scopes.clear()


def _mend_patching() -> None:
    """Upstream patches the language anew, for milliseconds, at every call of a device function, and leaves it so; and
    it computes whether integers overflow, for half of its time, only to look at the answer where options.debug is set.
    """
    patch, patches = upstream._patch_lang, _Patches()
    builder = upstream.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=builder.options.debug)

    def patch_once(function):
        module = id(function.__globals__)
        if module not in patches.scopes:
            patches.scopes[module] = patch(function)
        return patches

    upstream._patch_lang = patch_once


def _mend_launches(executor: type) -> None:
    """One launch at a time, since the interpreter's state is global; no warnings, since a GPU gives none."""
    call, lock = executor.__call__, threading.Lock()

    def launch(self, *args, **kwargs):
        with lock, np.errstate(all="ignore"):
            upstream._interpreter.forget()
            try:
                return call(self, *args, **kwargs)
            except InterpreterError as error:
                cause: BaseException | None = error
                while cause is not None and not isinstance(cause, OutOfBoundsError):
                    cause = cause.__cause__
                if cause is None:
                    raise
                raise cause from None

    executor.__call__ = launch


def _mend_loads(builder: type) -> None:
    masked_load = builder.create_masked_load

    def poisoned_load(self, pointers, mask, other, *rest):
        if other is None:
            element = pointers.get_element_ty()
            dtype = upstream._get_np_dtype(element)
            # All bits set is a NaN in every float format.
            poison = np.full(pointers.data.shape + (dtype.itemsize,), 0xFF, np.uint8).view(dtype)[..., 0]
            other = upstream.TensorHandle(poison, element)
        return masked_load(self, pointers, mask, other, *rest)

    builder.create_masked_load = poisoned_load


def _mend_memory() -> None:
    def program() -> tuple[int, ...]:
        return upstream.interpreter_builder.grid_idx

    memory, convert = CheckedMemory(upstream._interpreter, program), upstream._implicit_cvt

    def tagging_convert(argument):
        converted = convert(argument)
        if hasattr(argument, "data_ptr"):
            base = upstream._unwrap_tensor(argument)
            converted.handle.data = converted.handle.data + np.uint64(memory.tag(base))
        return converted

    upstream._interpreter = memory
    upstream._implicit_cvt = tagging_convert
