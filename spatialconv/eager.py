"""The short way of a plain eager call: from the arguments straight to a remembered plan.

A Python-defined op costs tens of microseconds a call, so calls that nothing observes skip the ops: exact tensors without
conj or neg bit, no mode, transform, forward-AD level, autocast, profiler, tracing or compilation. Every check runs on the
first call of a kind; later calls find their plan by shapes, strides, dtypes and arguments.
"""

from __future__ import annotations

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from . import dispatch
from .backends.base import Plan
from .problem import Conv2dProblem, Problem

_C = torch._C
_MEMO_LIMIT = 4096
_EXACT = frozenset((Tensor, torch.nn.Parameter))
_profiling = torch.autograd._profiler_enabled
_dispatch_modes = _C._len_torch_dispatch_stack
_function_mode = _C._is_torch_function_mode_enabled
_transforms = _C._are_functorch_transforms_active
_autocast = _C._is_any_autocast_enabled
_tracing = _C._get_tracing_state
_get_threads = torch.get_num_threads
_deterministic = _C._get_deterministic_algorithms
_precision = _C._get_fp32_precision_getter
_keys = _C._dispatch_keys


def _plain_keysets() -> frozenset[int]:
    """Dispatch keysets of CPU tensors that are nothing but strided memory, made outside and inside inference mode."""
    key, keyset = _C.DispatchKey, _C.DispatchKeySet
    inference = keyset(key.CPU) | keyset(key.AutocastCPU)
    ordinary = inference | keyset(key.AutogradCPU) | keyset(key.ADInplaceOrView)
    return frozenset((inference.raw_repr(), ordinary.raw_repr()))


PLAIN_KEYSETS = _plain_keysets()


def unobserved() -> bool:
    """Whether no mode, transform, autocast, profiler or tracer wants to see the ops of this thread."""
    return not (
        _dispatch_modes()
        or _function_mode()
        or _transforms()
        or forward_ad._current_level >= 0
        or _autocast()
        or _profiling()
        or _tracing() is not None
    )


def plain(tensor) -> bool:
    """Whether the tensor is exactly a Tensor or Parameter of ordinary memory."""
    return type(tensor) in _EXACT and _keys(tensor).raw_repr() in PLAIN_KEYSETS


def exact(*values) -> bool:
    """Whether every value is an integer, a word or a pair of integers: 1, True and 1.0 are one key of a dict."""
    for value in values:
        kind = type(value)
        if kind is tuple:
            if len(value) != 2 or type(value[0]) is not int or type(value[1]) is not int:
                return False
        elif kind is not int and kind is not str and value is not None:
            return False
    return True


def surroundings() -> tuple:
    """What beside the arguments decides which plan runs."""
    return dispatch.local_request(), _get_threads(), _deterministic(), _precision("mkldnn", "conv")


class Entry:
    """Plans of one kind of call: the forward one at once, those of its gradients when they are first needed."""

    __slots__ = ("problem", "request", "context", "plan", "_others")

    def __init__(self, problem: Problem, request: str) -> None:
        choice = dispatch.choose(problem, request)
        self.problem, self.request, self.context, self.plan = problem, request, choice.context, choice.plan
        self._others: dict[str, Plan] = {}

    def other(self, op: str) -> Plan:
        """The plan of another op on the same geometry, as a gradient is, of the forward call's backend."""
        found = self._others.get(op)
        if found is None:
            flag = "bias" if isinstance(self.problem, Conv2dProblem) else "indices"
            problem = self.problem.replace(op=op, **{flag: False})
            request = dispatch.gradient_request(self.request)
            found = self._others[op] = dispatch.choose(problem, request, self.context).plan
        return found


_memo: dict[tuple, Entry] = {}


def recall(key: tuple) -> Entry | None:
    """The entry of a kind of call that was seen before."""
    return _memo.get(key)


def remember(key: tuple, problem: Problem, request: str) -> Entry:
    """A new entry under the key. The number of entries is bounded."""
    if len(_memo) >= _MEMO_LIMIT:
        _memo.clear()
    entry = _memo[key] = Entry(problem, request)
    return entry


def forget() -> None:
    """Drop every remembered call."""
    _memo.clear()
