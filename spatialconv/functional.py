"""``torch.nn.functional``'s convolution and pooling, with one more keyword: ``backend``; and ``activation`` for conv2d.
``local_conv2d``, with a filter for every output position, has no counterpart there.

``backend`` is None (``use_backend``, then SPATIALCONV_BACKEND, then automatic), a backend ("extension") or one kernel
("extension:gemm"). A request that cannot be met raises with every reason; it never falls back. Where torch raises,
these raise the same exception type, with a message of one form: op, argument, expected, got.

A plain eager call goes straight to its kernel (``eager``), every other one through ``torch.ops.spatialconv``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import eager as short
from . import eager_autograd as recorded
from .activations import FUNCTIONS
from .dispatch import requested
from .eager import recall, remember
from .errors import argument_error
from .ops import OPS, arguments
from .ops.autocast import DEVICES as AUTOCAST_DEVICES
from .ops.autocast import cast
from .problem import Problem
from .shapes import flag, integer, pair

Size = int | Sequence[int]
_compiling = torch.compiler.is_compiling
_grad = torch.is_grad_enabled


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    activation: str | None = None,
    backend: str | None = None,
) -> Tensor:
    """2-D convolution (cross-correlation), as ``torch.nn.functional.conv2d`` with the same arguments.

    Args:
        input: [n, ic, ih, iw] or [ic, ih, iw].
        weight: [oc, ic / groups, kh, kw].
        bias: [oc] or None.
        stride, dilation: one integer or (vertical, horizontal).
        padding: one integer, a pair, 'valid' or 'same' (stride 1 only).
        groups: divides the channels of input and output.
        activation: None, or what is applied to the output, by the name of its function in ``torch.nn.functional``:
            'relu', 'relu6', 'hardswish', 'silu' or 'gelu' (the exact one, ``approximate='none'``). Where no derivative
            is taken, a kernel that can applies it as it stores the output.
        backend: see the module.

    Returns:
        [n, oc, oh, ow], channels_last when input or weight is. Dtypes: those of torch's conv2d; which backend has
        which, ``spatialconv.explain`` tells.

    Raises:
        TypeError, RuntimeError: as torch does, before any kernel runs. ValueError: unknown backend or activation.
        BackendUnavailableError, UnsupportedProblemError: the request cannot be met.
    """
    options = (stride, padding, dilation, groups, activation)
    key = None if _compiling() else short.call_key("conv2d", input, weight, bias, options, (), backend)
    if key is not None:
        record = _grad() and (input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad))
        if record and activation is not None:
            arguments.check_activation("conv2d", activation, input)
            plain = conv2d(input, weight, bias, stride, padding, dilation, groups, backend=backend)
            return FUNCTIONS[activation](plain)
        entry = recall(key)
        if entry is None and input.dim() == 4 and not input.is_complex():
            geometry = _conv2d_geometry("conv2d", weight, stride, padding, dilation, groups)
            problem = _conv2d_problem(input, weight, bias, *geometry, activation)
            entry = remember(key, problem, requested(backend), input.device.index)
        if entry is not None:
            return recorded.conv2d(input, weight, bias, entry) if record else entry.plan(input, weight, bias)
    _check_tensor("conv2d", "input", input)
    _check_tensor("conv2d", "weight", weight)
    if bias is not None:
        _check_tensor("conv2d", "bias", bias)
    arguments.check_activation("conv2d", activation, input)
    if input.dim() == 3:
        unbatched = conv2d(
            input.unsqueeze(0), weight, bias, stride, padding, dilation, groups, activation=activation, backend=backend
        )
        return unbatched.squeeze(0)
    _check_batched("conv2d", input)
    geometry = _untraced(_conv2d_geometry, "conv2d", weight, stride, padding, dilation, groups)
    return OPS["conv2d"](input, weight, bias, *geometry, requested(backend), activation)


def _untraced(function: Callable, *values):
    """The function's result, with sizes as integers also where torch.jit.trace would make tensors of them."""
    if torch.compiler.is_compiling() or (state := torch._C._get_tracing_state()) is None:
        return function(*values)
    torch._C._set_tracing_state(None)
    try:
        return function(*values)
    finally:
        torch._C._set_tracing_state(state)


def _check_tensor(op: str, name: str, value) -> None:
    if not isinstance(value, Tensor):
        raise argument_error(op, name, "a tensor", type(value).__name__, TypeError)


def _check_batched(op: str, input: Tensor) -> None:
    if input.dim() != 4:
        raise argument_error(op, "input", "3 dimensions (unbatched) or 4", f"{input.dim()}: {tuple(input.shape)}")


def _conv2d_geometry(op: str, weight: Tensor, stride, padding, dilation, groups) -> tuple:
    """stride, padding, dilation and groups as the op takes them."""
    stride, dilation = pair(op, "stride", stride), pair(op, "dilation", dilation)
    groups = integer(op, "groups", groups)
    if isinstance(padding, str):
        padding = _padding_of_word(op, padding, weight, stride, dilation)
    else:
        padding = pair(op, "padding", padding)
        arguments.check_not_negative(op, "padding", padding)
    return stride, padding, dilation, groups


def _padding_of_word(op: str, word: str, weight: Tensor, stride, dilation) -> tuple[int, ...]:
    if word == "valid":
        return 0, 0
    if word != "same":
        raise argument_error(op, "padding", "integers, 'same' or 'valid'", repr(word))
    if stride != (1, 1):
        raise argument_error(op, "padding", "'same' with stride 1 only", f"stride {stride}")
    arguments.check_rank(op, "weight", weight, 6 if op == "local_conv2d" else 4)
    vertical, horizontal = (step * (size - 1) for step, size in zip(dilation, weight.shape[-2:], strict=True))
    top, left = vertical // 2, horizontal // 2
    return top, left, vertical - top, horizontal - left


def _conv2d_problem(input, weight, bias, stride, padding, dilation, groups, activation) -> Problem:
    shape = arguments.check_conv2d("conv2d", input, weight, bias, stride, padding, dilation, groups)
    arguments.check_activation("conv2d", activation, input)
    return arguments.conv2d_problem(
        "conv2d", input.shape, weight.shape, shape, stride, padding, dilation, groups, bias is not None, input, weight,
        activation=activation,
    )  # fmt: skip


def local_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    backend: str | None = None,
) -> Tensor:
    """2-D convolution with untied weights: ``conv2d`` with a filter, and a bias, of its own at every output position.

    torch has none (pytorch/pytorch#499). Equivalent, without groups: ``columns = F.unfold(input, (kh, kw), dilation,
    padding, stride)``, then ``einsum("pok,nkp->nop", weight.flatten(0, 1).flatten(2), columns)``, its last axis
    unflattened to (oh, ow).

    Args:
        input: [n, ic, ih, iw] or [ic, ih, iw].
        weight: [oh, ow, oc, ic / groups, kh, kw]: at each output position the weight of a ``conv2d``. What a position
            needs lies together, so every pass reads or writes it once from front to back, for all images.
        bias: [oh, ow, oc] or None.
        stride, dilation, padding, groups: as in ``conv2d``.
        backend: see the module.

    Returns:
        [n, oc, oh, ow], channels_last when input is. Dtypes: those of ``conv2d``.

    Raises:
        As ``conv2d``.
    """
    op = "local_conv2d"
    for name, value in (("input", input), ("weight", weight)):
        _check_tensor(op, name, value)
    if bias is not None:
        _check_tensor(op, "bias", bias)
    if input.dim() == 3:
        unbatched = local_conv2d(input.unsqueeze(0), weight, bias, stride, padding, dilation, groups, backend=backend)
        return unbatched.squeeze(0)
    _check_batched(op, input)
    options = (stride, padding, dilation, groups)
    key = None if _compiling() else short.call_key(op, input, weight, bias, options, (), backend)
    if key is not None and not input.is_complex():
        entry = recall(key)
        if entry is None:
            geometry = _conv2d_geometry(op, weight, *options)
            shape = arguments.check_local_conv2d(op, input, weight, bias, *geometry)
            problem = arguments.conv2d_problem(op, input.shape, weight.shape, shape, *geometry, bias is not None, input)
            entry = remember(key, problem, requested(backend), input.device.index)
        if _grad() and (input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)):
            return recorded.local_conv2d(input, weight, bias, entry)
        return entry.plan(input, weight, bias)
    geometry = _untraced(_conv2d_geometry, op, weight, *options)
    return OPS[op](input, weight, bias, *geometry, requested(backend))


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    backend: str | None = None,
) -> Tensor:
    """Transposed 2-D convolution, as ``torch.nn.functional.conv_transpose2d``: a convolution's grad_input, called
    forward.

    Args:
        input: [n, ic, ih, iw] or [ic, ih, iw].
        weight: [ic, oc / groups, kh, kw].
        bias: [oc] or None.
        stride, padding, output_padding, dilation: one integer or (vertical, horizontal).
        groups: divides the channels of input and output.
        backend: see the module; one kernel is one of ``conv2d_grad_input``.

    Returns:
        [n, oc, (ih - 1) * stride - 2 * padding + dilation * (kh - 1) + output_padding + 1, ...], channels_last when
        input or weight is.

    Raises:
        As ``conv2d``.
    """
    name = "conv_transpose2d"
    for argument, value in (("input", input), ("weight", weight)):
        _check_tensor(name, argument, value)
    if input.dim() == 3:
        unbatched = conv_transpose2d(
            input.unsqueeze(0), weight, bias, stride, padding, output_padding, groups, dilation, backend=backend
        )
        return unbatched.squeeze(0)
    options = (stride, padding, output_padding, groups, dilation)
    key = None if _compiling() else short.call_key(name, input, weight, bias, options, (), backend)
    if key is not None and not input.is_complex():
        entry = recall(key)
        if entry is None:
            size, *geometry = arguments.conv_transpose2d_geometry(input, weight, bias, *options)
            shape = (input.shape[0], weight.shape[1] * groups, *size)
            problem = arguments.conv2d_problem(
                "conv2d_grad_input", shape, weight.shape, input.shape, *geometry, False, input, weight
            )
            entry = remember(key, problem, requested(backend), input.device.index)
        if _grad() and (input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)):
            return recorded.conv_transpose2d(input, weight, bias, entry)
        output = entry.plan(input, weight)
        return output if bias is None else output.add_(bias.reshape(1, -1, 1, 1))
    device = input.device.type
    if device in AUTOCAST_DEVICES and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        input, weight, bias = (cast(value, device, dtype) for value in (input, weight, bias))
    size, *geometry = _untraced(arguments.conv_transpose2d_geometry, input, weight, bias, *options)
    output = OPS["conv2d_grad_input"](input, weight, size, *geometry, requested(backend))
    return output if bias is None else output + bias.reshape(1, -1, 1, 1)


def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """2-D max pooling, as ``torch.nn.functional.max_pool2d``: NaN wins, the first of equals wins.

    A window without any input element gives -inf, the index of its first row and column drawn into the plane, and no
    gradient.

    Args:
        input: [n, c, ih, iw] or [c, ih, iw].
        kernel_size, stride, padding, dilation: one integer or (vertical, horizontal); stride None means kernel_size.
        ceil_mode: whether a last window may reach past the padded input.
        return_indices: also return the int64 position of each maximum in its plane, ``row * iw + column``.
        backend: see the module.

    Returns:
        [n, c, oh, ow] of input's dtype and memory format, with ``return_indices`` and the indices.

    Raises:
        As ``conv2d``.
    """
    given = (kernel_size, stride, padding, dilation)
    return _max_pool2d("max_pool2d", input, given, (ceil_mode,), return_indices, backend)


def adaptive_max_pool2d(
    input: Tensor, output_size, return_indices: bool = False, *, backend: str | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """Max pooling to a given output size, as ``torch.nn.functional.adaptive_max_pool2d``.

    Args:
        input: [n, c, ih, iw] or [c, ih, iw].
        output_size: one integer or a pair; None stands for the input's own size.
        return_indices: also return the int64 positions in the plane.
        backend: see the module.

    Returns:
        [n, c, *output_size], with ``return_indices`` and the indices.

    Raises:
        As ``conv2d``.
    """
    return _max_pool2d("adaptive_max_pool2d", input, (output_size,), (), return_indices, backend)


def avg_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """2-D average pooling, as ``torch.nn.functional.avg_pool2d``.

    Args:
        input: [n, c, ih, iw] or [c, ih, iw].
        kernel_size, stride, padding: one integer or (vertical, horizontal); stride None means kernel_size.
        ceil_mode: whether a last window may reach past the padded input.
        count_include_pad: whether padding counts as elements of a window.
        divisor_override: what every window's sum is divided by.
        backend: see the module.

    Returns:
        [n, c, oh, ow] of input's dtype and memory format.

    Raises:
        As ``conv2d``.
    """
    given = (kernel_size, stride, padding, divisor_override)
    return _avg_pool2d("avg_pool2d", input, given, (ceil_mode, count_include_pad), backend)


def adaptive_avg_pool2d(input: Tensor, output_size, *, backend: str | None = None) -> Tensor:
    """Average pooling to a given output size, as ``torch.nn.functional.adaptive_avg_pool2d``.

    Args:
        input: [n, c, ih, iw] or [c, ih, iw].
        output_size: one integer or a pair; None stands for the input's own size.
        backend: see the module.

    Returns:
        [n, c, *output_size] of input's dtype and memory format.

    Raises:
        As ``conv2d``.
    """
    return _avg_pool2d("adaptive_avg_pool2d", input, (output_size,), (), backend)


def _max_pool2d(op: str, input, given: tuple, flags: tuple, return_indices: bool, backend: str | None):
    """Both max poolings; ``given`` and ``flags`` are the caller's arguments that say which windows."""
    wanted = *flags, bool(return_indices)
    key = None if _compiling() else short.call_key(op, input, None, None, given, wanted, backend)
    if key is not None:
        record = _grad() and input.requires_grad
        indices = bool(return_indices or record)
        key = *key, indices
        entry = recall(key)
        if entry is None and input.dim() == 4:
            windows = _max_windows(op, input, given, flags)
            shape = arguments.check_pool2d("max_pool2d", input, *windows)
            offsets = not return_indices and indices and _keeps_offsets(input, windows)
            problem = arguments.pool2d_problem(
                "max_pool2d", input.shape, shape[2:], *windows, input, indices=indices and not offsets, offsets=offsets
            )
            entry = remember(key, problem, requested(backend), input.device.index)
        if entry is not None:
            values, positions = recorded.max_pool2d(input, entry) if record else entry.plan(input)
            return (values, positions) if return_indices else values
    _check_tensor(op, "input", input)
    if input.dim() == 3:
        pooled = _max_pool2d(op, input.unsqueeze(0), given, flags, return_indices, backend)
        return tuple(part.squeeze(0) for part in pooled) if return_indices else pooled.squeeze(0)
    _check_batched(op, input)
    windows = _untraced(_max_windows, op, input, given, flags)
    name = "max_pool2d_offsets" if not return_indices and _keeps_offsets(input, windows) else "max_pool2d"
    values, positions = OPS[name](input, *windows, requested(backend))
    return (values, positions) if return_indices else values


def _keeps_offsets(input: Tensor, windows: tuple) -> bool:
    """Whether backward is told by uint8 window offsets where the maxima stand: an eighth of the memory of int64
    indices, which counts where a pooling is as fast as its memory. The CPU's kernels are written for indices."""
    kernel_size, *_, adaptive_size = windows
    return input.is_cuda and not adaptive_size and kernel_size[0] * kernel_size[1] <= 256


def _avg_pool2d(op: str, input, given: tuple, flags: tuple, backend: str | None) -> Tensor:
    """Both average poolings; ``given`` and ``flags`` are the caller's arguments that say which windows and divisor."""
    key = None if _compiling() else short.call_key(op, input, None, None, given, flags, backend)
    if key is not None:
        entry = recall(key)
        if entry is None and input.dim() == 4 and not input.is_complex():
            kernel, step, edge, ceil, include_pad, divisor, size = _avg_windows(op, input, given, flags)
            windows = (kernel, step, edge, (1, 1), ceil, size)
            shape = arguments.check_pool2d("avg_pool2d", input, *windows)
            problem = arguments.pool2d_problem(
                "avg_pool2d", input.shape, shape[2:], *windows, input, include_pad=include_pad, divisor=divisor
            )
            entry = remember(key, problem, requested(backend), input.device.index)
        if entry is not None:
            return recorded.avg_pool2d(input, entry) if _grad() and input.requires_grad else entry.plan(input)
    _check_tensor(op, "input", input)
    if input.dim() == 3:
        return _avg_pool2d(op, input.unsqueeze(0), given, flags, backend).squeeze(0)
    _check_batched(op, input)
    return OPS["avg_pool2d"](input, *_untraced(_avg_windows, op, input, given, flags), requested(backend))


_ONE_BY_ONE = ((1, 1), (1, 1), (0, 0))


def _max_windows(op: str, input: Tensor, given: tuple, flags: tuple) -> tuple:
    """kernel_size, stride, padding, dilation, ceil_mode and adaptive_size, as the op takes them."""
    if op == "adaptive_max_pool2d":
        return (*_ONE_BY_ONE, (1, 1), False, _adaptive_size(op, input, *given))
    kernel_size, stride, padding, dilation = given
    ceil_mode = flag(op, "ceil_mode", *flags)
    return (*_windows(op, kernel_size, stride, padding), pair(op, "dilation", dilation), ceil_mode, [])


def _avg_windows(op: str, input: Tensor, given: tuple, flags: tuple) -> tuple:
    """kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override and adaptive_size."""
    if op == "adaptive_avg_pool2d":
        return (*_ONE_BY_ONE, False, True, None, _adaptive_size(op, input, *given))
    kernel_size, stride, padding, divisor = given
    ceil_mode, count_include_pad = flag(op, "ceil_mode", flags[0]), flag(op, "count_include_pad", flags[1])
    divisor = arguments.check_divisor(op, None if divisor is None else integer(op, "divisor_override", divisor))
    return (*_windows(op, kernel_size, stride, padding), ceil_mode, count_include_pad, divisor, [])


def _windows(op: str, kernel_size, stride, padding) -> tuple:
    kernel = pair(op, "kernel_size", kernel_size)
    step = kernel if stride is None or (isinstance(stride, (list, tuple)) and len(stride) == 0) else stride
    return kernel, pair(op, "stride", step), pair(op, "padding", padding)


def _adaptive_size(op: str, input: Tensor, output_size) -> list[int]:
    """Rows and columns asked for; None stands for the input's own."""
    if output_size is None or isinstance(output_size, (list, tuple)):
        sizes = [None, None] if output_size is None else list(output_size)
        if len(sizes) != 2:
            raise argument_error(op, "output_size", "one integer or two", sizes)
    else:
        sizes = [output_size, output_size]
    return [
        input.shape[axis] if size is None else integer(op, "output_size", size)
        for axis, size in zip((-2, -1), sizes, strict=True)
    ]
