"""The short way of a plain eager call: from the arguments straight to a remembered plan.

A Python-defined op costs tens of microseconds a call, so calls that nothing observes skip the ops: exact tensors
without conj or neg bit, no mode, transform, forward-AD level, autocast, profiler, tracing or compilation. Every check
runs on the first call of a kind; later calls find their plan by shapes, strides, dtypes and arguments.
"""

from __future__ import annotations

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from . import dispatch
from .backends.base import Plan
from .backends.extension import loader
from .dispatch import local
from .problem import Conv2dProblem, Problem

_MEMO_LIMIT = 4096
_C = torch._C
_EXACT = frozenset((Tensor, torch.nn.Parameter))
_SINGLE = frozenset((int, str, type(None)))
_compiling = torch.compiler.is_compiling
_profiling = torch.autograd._profiler_enabled
_dispatch_modes = _C._len_torch_dispatch_stack
_function_mode = _C._is_torch_function_mode_enabled
_transforms = _C._are_functorch_transforms_active
_autocast = _C._is_any_autocast_enabled
_tracing = _C._is_tracing
_OBSERVERS = (_dispatch_modes, _function_mode, _transforms, _autocast, _profiling, _tracing)
get_threads = torch.get_num_threads
deterministic = _C._get_deterministic_algorithms
_strided = torch.strided
# What torch.backends.mkldnn.conv.fp32_precision reads, without the properties in between, which take microseconds.
cpu_precision = _C._get_fp32_precision_getter


def _memory_keysets() -> frozenset[int]:
    """Dispatch keysets of tensors that are nothing but strided memory, made inside and outside inference mode."""
    key, keyset = _C.DispatchKey, _C.DispatchKeySet
    found = set()
    for name in ("CPU", "CUDA"):
        inference = keyset(getattr(key, name)) | keyset(getattr(key, f"Autocast{name}"))
        ordinary = inference | keyset(getattr(key, f"Autograd{name}")) | keyset(key.ADInplaceOrView)
        found |= {inference.raw_repr(), ordinary.raw_repr()}
    return frozenset(found)


_MEMORY_KEYSETS = _memory_keysets()


def plain(tensor) -> bool:
    """Whether it is exactly a Tensor or Parameter of ordinary memory. (A conj bit needs a complex dtype, which no
    remembered call has.)"""
    return type(tensor) in _EXACT and tensor.layout is _strided and not tensor.is_neg() and not tensor._is_zerotensor()


def reaches_plain_backward(grad_output) -> bool:
    """Whether a backward that nothing records or observes may call plans on this gradient; batched gradients are
    wrappers of which only the dispatch keys tell."""
    return (
        not torch.is_grad_enabled()
        and eager(grad_output)
        and _C._dispatch_keys(grad_output).raw_repr() in _MEMORY_KEYSETS
    )


def eager(input, weight=None, bias=None) -> bool:
    """Whether a call on these tensors may take the short way; ``plain`` stands here in full, for two calls are time."""
    return (
        not _compiling()
        and not _dispatch_modes()
        and not _function_mode()
        and not _transforms()
        and forward_ad._current_level < 0
        and not _autocast()
        and not _profiling()
        and not _tracing()
        and type(input) in _EXACT
        and input.layout is _strided
        and not input.is_neg()
        and not input._is_zerotensor()
        and (
            weight is None
            or (
                type(weight) in _EXACT
                and weight.layout is _strided
                and not weight.is_neg()
                and not weight._is_zerotensor()
            )
        )
        and (bias is None or plain(bias))
        and (
            (input.is_cpu and (weight is None or weight.is_cpu) and (bias is None or bias.is_cpu))
            or _on_one_gpu(input, weight, bias)
        )
    )


def _on_one_gpu(input, *others) -> bool:
    device = input.device
    return device.type == "cuda" and all(other is None or other.device == device for other in others)


def exact(values: tuple) -> bool:
    """Whether each is an integer, a word, None or a pair of integers; for a dict, 1, True and 1.0 are one key."""
    for value in values:
        kind = type(value)
        if kind not in _SINGLE and (
            kind is not tuple or len(value) != 2 or type(value[0]) is not int or type(value[1]) is not int
        ):
            return False
    return True


def are_flags(values: tuple) -> bool:
    """Whether every value is True or False."""
    for value in values:
        if type(value) is not bool:
            return False
    return True


def conv_surroundings(input) -> tuple:
    """What beside the arguments decides which plan of a convolution runs."""
    return (
        local.request,
        get_threads(),
        deterministic(),
        cpu_precision("mkldnn", "conv") if input.is_cpu else gpu(input),
    )


def gpu(input) -> tuple:
    """The same for a tensor on a GPU: which one, and the precision asked for."""
    return input.device, dispatch.precision("cuda")


def python_key(op: str, input, weight, bias, options: tuple, flags: tuple, backend: str | None) -> tuple | None:
    """What decides which plan a call gets, as a dict's key; None where it may not take the short way. Without a weight
    there is no precision to choose.

    ``options`` are those of the caller's arguments that are integers, words, None or pairs, ``flags`` those that are
    booleans. The compiled part's ``call_key`` builds the same for tensors on the CPU.
    """
    if not (exact(options) and are_flags(flags) and eager(input, weight, bias)):
        return None
    tensors = (input.shape, input.stride(), input.dtype)
    surroundings = conv_surroundings(input)
    if weight is not None:
        kind = None if bias is None else (bias.shape, bias.dtype)
        tensors += (weight.shape, weight.stride(), weight.dtype, kind)
    elif input.is_cpu:
        surroundings = surroundings[:-1]
    return (op, *tensors, options, flags, backend, *surroundings)


def _first_key(*arguments) -> tuple | None:
    """Stands for ``call_key`` until the first call, which is soon enough to load the compiled part."""
    global call_key
    # An editable install keeps its compiled module when the sources beside it change.
    module = None if loader.unavailable() else loader.load()
    if not hasattr(module, "call_key"):
        call_key = python_key
    else:
        module.watch(
            Tensor, torch.nn.Parameter, _strided, _OBSERVERS, forward_ad, (get_threads, deterministic), cpu_precision,
            ("mkldnn", "conv"), local, python_key,
        )  # fmt: skip
        call_key = module.call_key
    return call_key(*arguments)


# Called where nothing is compiled: what traces Python code cannot look into it.
call_key = _first_key


class Entry:
    """Plans of one kind of call: the forward one at once, those of its gradients when they are first needed."""

    __slots__ = ("problem", "request", "context", "plan", "_others")

    def __init__(self, problem: Problem, request: str, index: int | None) -> None:
        choice = dispatch.choose(problem, request, index=index)
        self.problem, self.request, self.context, self.plan = problem, request, choice.context, choice.plan
        self._others: dict[str, Plan] = {}

    def other(self, op: str) -> Plan:
        """The plan of another op on the same geometry, as a gradient is, of the forward call's backend."""
        found = self._others.get(op)
        if found is None:
            # Offsets stay: they say how the gradient's own operand is to be read.
            forward_only = {"indices": False}
            if isinstance(self.problem, Conv2dProblem):
                forward_only = {"bias": False, "activation": None}
            problem = self.problem.replace(op=op, **forward_only)
            request = dispatch.gradient_request(self.request)
            found = self._others[op] = dispatch.choose(problem, request, self.context).plan
        return found


_memo: dict[tuple, Entry] = {}


recall = _memo.get  # the entry of a kind of call that was seen before, or None


def remember(key: tuple, problem: Problem, request: str, index: int | None) -> Entry:
    """A new entry under the key; ``index``: of the GPU that the tensors are on. The number of entries is bounded."""
    if len(_memo) >= _MEMO_LIMIT:
        _memo.clear()
    entry = _memo[key] = Entry(problem, request, index)
    return entry


def forget() -> None:
    """Drop every remembered call."""
    _memo.clear()
