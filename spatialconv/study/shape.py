"""The layers that the study speaks of, as the library's own problems.

Two notations are read: the printed form of a problem (``conv2d n1 ic64 ih28 iw28 oc64 kh3 kw3 ph1 pw1 f32 nchw cpu``),
and a short one made for typing, ``1x64x28x28 k=64 3x3 s1 p1 d1 g1``: input shape, number of filters, then in any
order the kernel, stride, padding, dilation, groups, dtype and layout, of which all but the kernel may be left out. For
pooling ``max`` or ``avg`` stands in place of the filters: ``1x64x112x112 max 3x3 s2 p1``. Pairs are written ``s2x1``.
"""

from __future__ import annotations

import re

from torch import nn

from ..problem import CONV_OPS, ITEMSIZE, LAYOUTS, OPS, Conv2dProblem, Pool2dProblem, Problem, parse

EXAMPLE = "1x64x28x28 k=64 3x3 s1 p1"
_POOLS = {"max": "max_pool2d", "avg": "avg_pool2d"}
_LETTERS = {"s": ("sh", "sw"), "p": ("ph", "pw"), "d": ("dh", "dw")}


def read(text: str) -> Problem:
    """The problem that either notation describes. Raises ValueError on anything else, and for a layer without a pixel
    or an output, saying what was expected."""
    problem = _read(text)
    if problem.empty:
        raise ValueError(f"study: shape: expected a layer with pixels and outputs, {text!r} has none")
    return problem


def _read(text: str) -> Problem:
    words = text.split()
    if not words:
        raise ValueError(f"study: shape: expected one like '{EXAMPLE}', got an empty text")
    if words[0] in OPS or words[0].startswith(("adaptive_", "conv_transpose2d")):
        return parse(text)
    sizes = _numbers(words[0], 4)
    if sizes is None:
        raise ValueError(f"study: shape: expected the input first, as in '{EXAMPLE}', got {words[0]!r}")
    values: dict[str, object] = dict(zip(("n", "ic", "ih", "iw"), sizes, strict=True))
    for word in words[1:]:
        found = _field(word)
        if found is None:
            raise ValueError(f"study: shape: cannot read {word!r} in {text!r}; it is written like '{EXAMPLE}'")
        if twice := sorted(found.keys() & values.keys()):
            raise ValueError(f"study: shape: {text!r} says {', '.join(twice)} twice")
        values.update(found)
    if "kh" not in values:
        raise ValueError(f"study: shape: expected a kernel like 3x3, {text!r} has none")
    if "op" in values:
        if taken := sorted(values.keys() & {"oc", "g"}):
            raise ValueError(f"study: shape: pooling has no {', '.join(taken)}, got {text!r}")
        return Pool2dProblem(**values)
    if "oc" not in values:
        raise ValueError(f"study: shape: expected k=FILTERS, max or avg, {text!r} has none of them")
    return Conv2dProblem(op="conv2d", **values)


def _numbers(word: str, count: int) -> list[int] | None:
    parts = word.split("x")
    return [int(part) for part in parts] if len(parts) == count and all(map(str.isdecimal, parts)) else None


def _field(word: str) -> dict[str, object] | None:
    """The fields that a word of the short notation gives, or None where it is none."""
    if word in _POOLS:
        return {"op": _POOLS[word]}
    if word in ITEMSIZE:
        return {"dtype": word}
    if word in LAYOUTS:
        return {"layout": word}
    if pair := _numbers(word, 2):
        return dict(zip(("kh", "kw"), pair, strict=True))
    if match := re.fullmatch("k=([0-9]+)", word):
        return {"oc": int(match[1])}
    if match := re.fullmatch("g([0-9]+)", word):
        return {"g": int(match[1])}
    if match := re.fullmatch("([spd])([0-9]+)(?:x([0-9]+))?", word):
        first, second = _LETTERS[match[1]]
        return {first: int(match[2]), second: int(match[3] or match[2])}
    return None


def short(problem: Problem) -> str:
    """The short notation of a forward problem with symmetric padding; the printed form of any other."""
    forward = problem.op in ("conv2d", *_POOLS.values())
    plain = forward and not getattr(problem, "adaptive", False) and not getattr(problem, "ceil", False)
    words = [f"{problem.n}x{problem.ic}x{problem.ih}x{problem.iw}"]
    if isinstance(problem, Conv2dProblem):
        words.append(f"k={problem.oc}")
    else:
        words += [word for word, op in _POOLS.items() if op == problem.op]
    words.append(f"{problem.kh}x{problem.kw}")
    for letter, (first, second) in _LETTERS.items():
        pair = getattr(problem, first), getattr(problem, second)
        words.append(f"{letter}{pair[0]}" if pair[0] == pair[1] else f"{letter}{pair[0]}x{pair[1]}")
    words += [f"g{problem.g}"] if getattr(problem, "g", 1) > 1 else []
    words += [problem.dtype] if problem.dtype != "f32" else []
    words += [problem.layout] if problem.layout != "nchw" else []
    text = " ".join(words)
    return text if plain and read(text) == problem.replace(device="cpu") else str(problem)


def of_module(module: nn.Module, input_shape: tuple[int, ...], layout: str = "nchw") -> Problem:
    """The forward problem of one convolution or pooling layer of ``torch.nn`` or ``spatialconv.nn`` for an input of
    that shape, (N, C, H, W), float32. Raises TypeError for any other layer, ValueError for one whose padding is not
    zeros of equal width on opposite sides."""
    n, ic, ih, iw = input_shape
    common = {"n": n, "ic": ic, "ih": ih, "iw": iw, "layout": layout}
    if isinstance(module, nn.Conv2d):
        if module.padding_mode != "zeros":
            raise ValueError(f"study: expected padding_mode 'zeros', got {module.padding_mode!r}")
        return Conv2dProblem(
            op="conv2d", oc=module.out_channels, g=module.groups, bias=module.bias is not None,
            **_pair("kh", "kw", module.kernel_size), **_pair("sh", "sw", module.stride),
            **_pair("ph", "pw", _conv_padding(module)), **_pair("dh", "dw", module.dilation), **common,
        )  # fmt: skip
    if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
        kind = "max" if isinstance(module, nn.MaxPool2d) else "avg"
        dilation = module.dilation if kind == "max" else 1
        return Pool2dProblem(
            op=_POOLS[kind], ceil=module.ceil_mode, **_pair("kh", "kw", module.kernel_size),
            **_pair("sh", "sw", module.stride), **_pair("ph", "pw", module.padding), **_pair("dh", "dw", dilation),
            **common,
        )  # fmt: skip
    raise TypeError(f"study: expected a Conv2d, MaxPool2d or AvgPool2d layer, got {type(module).__name__}")


def _pair(first: str, second: str, value: int | tuple[int, int]) -> dict[str, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    return {first: pair[0], second: pair[1]}


def _conv_padding(module: nn.Conv2d) -> tuple[int, int]:
    if module.padding == "valid":
        return 0, 0
    if module.padding == "same":
        reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        if any(width % 2 for width in reach):
            raise ValueError("study: expected padding of equal width on both sides, 'same' of an even kernel has none")
        return reach[0] // 2, reach[1] // 2
    return tuple(module.padding)


def forward_conv(text: str) -> Conv2dProblem:
    """The forward convolution that a text describes; ValueError where it describes anything else."""
    problem = read(text)
    if problem.op not in CONV_OPS or problem.pass_name != "forward":
        raise ValueError(f"study: shape: expected a forward convolution, got {problem}")
    return problem
