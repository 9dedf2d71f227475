"""What is computed, as integers and short words: the key of logs, tests, benchmark rows, tuned tables and errors.

Letters are oneDNN's, dilation is torch's (1 means none): ``n`` images, ``g`` groups, ``ic``/``oc`` channels of all
groups, ``ih iw``/``oh ow`` sizes, ``kh kw`` kernel, ``sh sw`` stride, ``ph pw`` padding before the first row and
column (what is padded behind follows from ``oh ow``), ``dh dw`` dilation.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property
from math import gcd, prod

from .shapes import adaptive_window, conv_output_size, pool_output_size

ITEMSIZE = {
    "f32": 4, "f64": 8, "bf16": 2, "f16": 2, "c32": 4, "c64": 8, "c128": 16,
    "i64": 8, "i32": 4, "i16": 2, "i8": 1, "u8": 1,
}  # fmt: skip
LAYOUTS = ("nchw", "nhwc")
# What may be applied to a forward convolution's output, in the order of csrc/common/problem.h.
ACTIVATIONS = ("relu", "relu6", "hardswish", "silu", "gelu")
CONV_OPS = {"conv2d": "forward", "conv2d_grad_input": "grad_input", "conv2d_grad_weight": "grad_weight"}
# The same with a filter of its own, and a bias, at every output position.
LOCAL_OPS = {f"local_{op}": pass_name for op, pass_name in CONV_OPS.items()}
POOL_OPS = {
    "max_pool2d": "forward",
    "max_pool2d_scatter": "grad_input",
    "max_pool2d_gather": "gather",
    "avg_pool2d": "forward",
    "avg_pool2d_grad_input": "grad_input",
}
_PASSES = CONV_OPS | LOCAL_OPS | POOL_OPS
OPS = tuple(_PASSES)
INDEXED = ("max_pool2d_scatter", "max_pool2d_gather")


def _axis_taps(size: int, outputs: int, kernel: int, stride: int, before: int, dilation: int) -> int:
    """How many (output, tap) combinations along one axis read the input and not the padding."""
    total = 0
    for tap in range(kernel):
        offset = tap * dilation - before
        first = max(0, -(offset // stride))
        last = min(outputs - 1, (size - 1 - offset) // stride)
        total += max(0, last - first + 1)
    return total


def _taps_met(kernel: int, stride: int, dilation: int) -> int:
    """How many taps of a filter can meet one input position along an axis."""
    return -(-kernel // (stride // gcd(stride, dilation)))


class _Printed:
    """The printed form: the op, every field that differs from its default, then dtype, layout and device."""

    def __str__(self) -> str:
        words = [self.printed_op]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("op", "adaptive", "dtype", "layout", "device") or value == self._default(field.name):
                continue
            words.append(_printed(field.name, value))
        return " ".join([*words, self.dtype, self.layout, self.device])

    @property
    def pass_name(self) -> str:
        """'forward', 'grad_input', 'grad_weight' or, for max pooling's second derivative, 'gather'."""
        return _PASSES[self.op]

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return ITEMSIZE[self.dtype]

    def replace(self, **changes):
        """A copy with some fields changed."""
        return replace(self, **changes)


def _printed(name: str, value: object) -> str:
    if name == "activation":
        return str(value)
    return _FLAGS[name] if isinstance(value, bool) else f"{name}{value}"


_FLAGS = {"bias": "bias", "ceil": "ceil", "include_pad": "exclude_pad", "indices": "indices", "offsets": "offsets"}


@dataclass(frozen=True)
class Conv2dProblem(_Printed):
    """One pass of a 2-D convolution, tied or, where the op says so, untied: every output position has its own filter.
    ``oh`` and ``ow`` of 0 at creation mean: as symmetric padding gives them. ``activation``: what is applied to the
    forward pass's output, one of ``ACTIVATIONS`` or None.

    Raises ValueError where a field makes no sense; the ops check a caller's arguments before they get here.
    """

    op: str
    n: int
    ic: int
    ih: int
    iw: int
    oc: int
    oh: int = 0
    ow: int = 0
    kh: int = 1
    kw: int = 1
    sh: int = 1
    sw: int = 1
    ph: int = 0
    pw: int = 0
    dh: int = 1
    dw: int = 1
    g: int = 1
    bias: bool = False
    activation: str | None = None
    dtype: str = "f32"
    layout: str = "nchw"
    device: str = "cpu"

    def __post_init__(self) -> None:
        _check_words(self, CONV_OPS | LOCAL_OPS)
        if self.activation is not None:
            _check_activation(self)
        for name in ("kh", "kw", "sh", "sw", "dh", "dw", "g"):
            _check_least(self, name, 1)
        for name in ("n", "ic", "ih", "iw", "oc", "oh", "ow", "ph", "pw"):
            _check_least(self, name, 0)
        if self.ic % self.g or self.oc % self.g:
            raise ValueError(f"{self.op}: g: expected a divisor of ic{self.ic} and oc{self.oc}, got {self.g}")
        for name in ("oh", "ow"):
            if getattr(self, name) == 0:
                object.__setattr__(self, name, max(self._default(name), 0))

    def _default(self, name: str) -> object:
        if name == "oh":
            return conv_output_size(self.ih, self.kh, self.sh, self.ph, self.ph, self.dh)
        if name == "ow":
            return conv_output_size(self.iw, self.kw, self.sw, self.pw, self.pw, self.dw)
        return _DEFAULTS.get(name)

    @property
    def printed_op(self) -> str:
        return self.op

    @property
    def untied(self) -> bool:
        """Whether every output position has a filter and a bias of its own."""
        return self.op in LOCAL_OPS

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return self.n, self.ic, self.ih, self.iw

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """[oc, ic / g, kh, kw]; untied one of these at every output position, [oh, ow, oc, ic / g, kh, kw]."""
        places = (self.oh, self.ow) if self.untied else ()
        return (*places, self.oc, self.ic // self.g, self.kh, self.kw)

    @property
    def bias_shape(self) -> tuple[int, ...]:
        """[oc], untied [oh, ow, oc]."""
        return (self.oh, self.ow, self.oc) if self.untied else (self.oc,)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Shape of the forward output, that is of grad_output."""
        return self.n, self.oc, self.oh, self.ow

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape of what this pass computes."""
        return {
            "forward": self.output_shape, "grad_input": self.input_shape, "grad_weight": self.weight_shape,
        }[self.pass_name]  # fmt: skip

    @property
    def sides(self) -> tuple[int, int, int, int]:
        """The padding that is read, (top, left, bottom, right); negative where the last rows or columns are not."""
        bottom = (self.oh - 1) * self.sh + (self.kh - 1) * self.dh + 1 - self.ih - self.ph
        right = (self.ow - 1) * self.sw + (self.kw - 1) * self.dw + 1 - self.iw - self.pw
        return self.ph, self.pw, bottom, right

    @property
    def empty(self) -> bool:
        """Whether the operands hold no element, so that the result is empty, zero or the bias alone."""
        return 0 in (*self.input_shape, *self.weight_shape, *self.output_shape)

    @property
    def depthwise(self) -> bool:
        """Whether every group holds one input channel."""
        return self.g == self.ic and self.g > 1

    @property
    def reduction(self) -> int:
        """How many products are summed into one element of the result."""
        taps_met = _taps_met(self.kh, self.sh, self.dh) * _taps_met(self.kw, self.sw, self.dw)
        return {
            "forward": self.ic // self.g * self.kh * self.kw,
            "grad_input": self.oc // self.g * taps_met,
            "grad_weight": self.n if self.untied else self.n * self.oh * self.ow,
        }[self.pass_name]

    def flops(self, count_padding: bool = True) -> int:
        """Multiplications and additions; without ``count_padding`` those with padding zeros are left out."""
        if count_padding:
            taps = self.oh * self.kh * self.ow * self.kw
        else:
            taps = _axis_taps(self.ih, self.oh, self.kh, self.sh, self.ph, self.dh) * _axis_taps(
                self.iw, self.ow, self.kw, self.sw, self.pw, self.dw
            )
        return 2 * self.n * self.oc * (self.ic // self.g) * taps

    @cached_property
    def compulsory_bytes(self) -> int:
        """Bytes that must move if every tensor is touched once."""
        elements = self.n * self.ic * self.ih * self.iw + self.n * self.oc * self.oh * self.ow
        elements += prod(self.weight_shape) + (prod(self.bias_shape) if self.bias else 0)
        return elements * self.itemsize


@dataclass(frozen=True)
class Pool2dProblem(_Printed):
    """One pass of 2-D pooling. ``adaptive`` windows follow from the sizes alone; ``divisor`` 0 means none given.

    ``offsets``: where each maximum stands is kept as a uint8, tap row * kw + tap column of its window, in place of
    an int64 index into the plane; a tap outside the input (an empty window has no other) stands for nothing.
    """

    op: str
    n: int
    ic: int
    ih: int
    iw: int
    oh: int = 0
    ow: int = 0
    kh: int = 1
    kw: int = 1
    sh: int = 0
    sw: int = 0
    ph: int = 0
    pw: int = 0
    dh: int = 1
    dw: int = 1
    ceil: bool = False
    include_pad: bool = True
    divisor: int = 0
    adaptive: bool = False
    indices: bool = False
    offsets: bool = False
    dtype: str = "f32"
    layout: str = "nchw"
    device: str = "cpu"

    def __post_init__(self) -> None:
        _check_words(self, POOL_OPS)
        if self.adaptive:
            for name in ("kh", "kw", "dh", "dw"):
                object.__setattr__(self, name, 1)
        if self.offsets and (self.adaptive or self.kh * self.kw > 256):
            raise ValueError(f"{self.op}: offsets: expected windows of one size and at most 256 taps, got {self}")
        for name, kernel in (("sh", self.kh), ("sw", self.kw)):
            if getattr(self, name) == 0:
                object.__setattr__(self, name, kernel)
        for name in ("kh", "kw", "sh", "sw", "dh", "dw"):
            _check_least(self, name, 1)
        for name in ("n", "ic", "ih", "iw", "oh", "ow", "ph", "pw"):
            _check_least(self, name, 0)
        for name in ("oh", "ow"):
            if getattr(self, name) == 0 and not self.adaptive:
                object.__setattr__(self, name, max(self._default(name), 0))

    def _default(self, name: str) -> object:
        if self.adaptive and name in ("oh", "ow"):
            return None
        if name == "oh":
            return pool_output_size(self.ih, self.kh, self.sh, self.ph, self.dh, self.ceil)
        if name == "ow":
            return pool_output_size(self.iw, self.kw, self.sw, self.pw, self.dw, self.ceil)
        if name in ("sh", "sw"):
            return self.kh if name == "sh" else self.kw
        return _POOL_DEFAULTS.get(name)

    @property
    def printed_op(self) -> str:
        return f"adaptive_{self.op}" if self.adaptive else self.op

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return self.n, self.ic, self.ih, self.iw

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return self.n, self.ic, self.oh, self.ow

    @property
    def result_shape(self) -> tuple[int, int, int, int]:
        """Shape of what this pass computes."""
        return self.input_shape if self.pass_name == "grad_input" else self.output_shape

    @property
    def empty(self) -> bool:
        """Whether the operands hold no element, so that the result is empty."""
        return 0 in (*self.input_shape, *self.output_shape)

    def rows(self) -> list[range]:
        """The input rows of each window, clipped to the input."""
        return self._windows(self.ih, self.oh, self.kh, self.sh, self.ph, self.dh)

    def columns(self) -> list[range]:
        """The input columns of each window, clipped to the input."""
        return self._windows(self.iw, self.ow, self.kw, self.sw, self.pw, self.dw)

    def _windows(self, size: int, outputs: int, kernel: int, stride: int, before: int, dilation: int) -> list[range]:
        if self.adaptive:
            return [range(*adaptive_window(index, size, outputs)) for index in range(outputs)]
        windows = []
        for index in range(outputs):
            start = index * stride - before
            first = start if start >= 0 else start + -(start // dilation) * dilation
            windows.append(range(first, min(start + dilation * (kernel - 1) + 1, size), dilation))
        return windows

    @property
    def reduction(self) -> int:
        """How many elements the largest window holds."""
        return max(map(len, self.rows()), default=0) * max(map(len, self.columns()), default=0)

    def flops(self, count_padding: bool = True) -> int:
        """Comparisons or additions."""
        if self.adaptive:
            # Neighbouring windows share an element wherever their common border is none of the input's.
            down = self.ih + self.oh - gcd(self.ih, self.oh)
            across = self.iw + self.ow - gcd(self.iw, self.ow)
            return self.n * self.ic * down * across
        if count_padding:
            return self.n * self.ic * self.oh * self.ow * self.kh * self.kw
        return self.n * self.ic * sum(map(len, self.rows())) * sum(map(len, self.columns()))

    @cached_property
    def compulsory_bytes(self) -> int:
        """Bytes that must move if every tensor is touched once; indices are int64, window offsets uint8."""
        outputs = self.n * self.ic * self.oh * self.ow
        index_size = 1 if self.offsets else 8 if self.indices or self.op in INDEXED else 0
        return (self.n * self.ic * self.ih * self.iw + outputs) * self.itemsize + index_size * outputs


_DEFAULTS = {field.name: field.default for field in fields(Conv2dProblem)}
_POOL_DEFAULTS = {field.name: field.default for field in fields(Pool2dProblem)}
_INT_FIELDS = {
    kind: {field.name for field in fields(kind) if field.type == "int"} for kind in (Conv2dProblem, Pool2dProblem)
}
_NEEDED = {
    kind: [field.name for field in fields(kind) if field.default is MISSING] for kind in (Conv2dProblem, Pool2dProblem)
}
Problem = Conv2dProblem | Pool2dProblem


def _check_words(problem: Problem, ops: dict[str, str]) -> None:
    for name, known in (("op", ops), ("dtype", ITEMSIZE), ("layout", LAYOUTS)):
        if getattr(problem, name) not in known:
            raise ValueError(f"problem: {name}: expected one of {', '.join(known)}, got {getattr(problem, name)!r}")


def _check_activation(problem: Conv2dProblem) -> None:
    if problem.activation not in ACTIVATIONS:
        expected = ", ".join(ACTIVATIONS)
        raise ValueError(f"problem: activation: expected one of {expected}, got {problem.activation!r}")
    if problem.op != "conv2d":
        raise ValueError(f"problem: activation: expected none with {problem.op}, got {problem.activation!r}")


def _check_least(problem: Problem, name: str, least: int) -> None:
    value = getattr(problem, name)
    if type(value) is not int or value < least:
        raise ValueError(f"{problem.op}: {name}: expected an integer of at least {least}, got {value!r}")


def parse(text: str) -> Problem:
    """The problem that a printed form, or a line of a suite, describes.

    The op may be left out (conv2d), and may be ``conv_transpose2d``, whose ``ic ih iw`` are those of its own input:
    it is the ``conv2d_grad_input`` of the convolution that maps its output to its input. Raises ValueError on
    anything else.
    """
    words = text.split()
    op = words.pop(0) if words and words[0] in (*OPS, "conv_transpose2d") + _ADAPTIVE else "conv2d"
    kind = Conv2dProblem if op in (*CONV_OPS, *LOCAL_OPS, "conv_transpose2d") else Pool2dProblem
    values: dict[str, object] = {"op": op}
    if op in _ADAPTIVE:
        values.update(op=op.removeprefix("adaptive_"), adaptive=True)
    flags = {word: name for name, word in _FLAGS.items() if name in {field.name for field in fields(kind)}}
    for word in words:
        name = word.rstrip("-0123456789") if word not in ITEMSIZE else word
        if word in ITEMSIZE:
            values["dtype"] = word
        elif word in LAYOUTS:
            values["layout"] = word
        elif word in ("cpu", "cuda", "mps", "xpu", "meta"):
            values["device"] = word
        elif word in ACTIVATIONS and kind is Conv2dProblem:
            values["activation"] = word
        elif word in flags:
            values[flags[word]] = word != "exclude_pad"
        elif name in _INT_FIELDS[kind] and re.fullmatch("-?[0-9]+", word[len(name) :]):
            values[name] = int(word[len(name) :])
        else:
            raise ValueError(f"problem: cannot read {word!r} in {text!r}")
    lacking = [name for name in _NEEDED[kind] if name not in values]
    if lacking:
        raise ValueError(f"problem: {text!r} is incomplete: it lacks {', '.join(lacking)}")
    return kind(**(_transposed(values) if op == "conv_transpose2d" else values))


_ADAPTIVE = tuple(f"adaptive_{op}" for op in POOL_OPS)


def _transposed(values: dict) -> dict:
    """The fields of the grad_input that a transposed convolution is."""
    swapped = dict(values, op="conv2d_grad_input", ic=values["oc"], oc=values["ic"], oh=values["ih"], ow=values["iw"])
    for size, kernel, stride, padding, dilation in (("ih", "kh", "sh", "ph", "dh"), ("iw", "kw", "sw", "pw", "dw")):
        reach = values.get(dilation, 1) * (values.get(kernel, 1) - 1) + 1
        swapped[size] = (values[size] - 1) * values.get(stride, 1) - 2 * values.get(padding, 0) + reach
    return swapped
