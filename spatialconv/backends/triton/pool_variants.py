"""The compilations of the pooling kernels that stand for all."""

from __future__ import annotations

from ...problem import Pool2dProblem, parse
from .ahead import Variant
from .pool import as_windows, average_gradient_launch, forward_launch, gather_launch, scatter_launches

_POINTERS = {"bf16": "*bf16", "f16": "*fp16", "f32": "*fp32", "f64": "*fp64"}
_FIRST = "n64 ic64 ih112 iw112 kh3 kw3 sh2 sw2 ph1 pw1"
_PAIRS = "n64 ic64 ih224 iw224 kh2 kw2"
_OVERLAPPING = "n8 ic512 ih20 iw20 kh5 kw5 sh1 sw1 ph2 pw2"
_WIDE = "n8 ic512 ih20 iw20 kh13 kw13 sh1 sw1 ph6 pw6"
_GLOBAL = "n64 ic2048 ih7 iw7 oh1 ow1"
_UNEQUAL = "n64 ic256 ih13 iw13 oh6 ow6"
_OPS = ("max_pool2d", "max_pool2d_scatter", "max_pool2d_gather", "avg_pool2d", "avg_pool2d_grad_input")
_WINDOWS = (
    *((text, dtype) for text in (_FIRST, _OVERLAPPING) for dtype in ("bf16", "f32")),
    (_FIRST, "f16"),
    (_FIRST, "f64"),
    (_PAIRS, "bf16"),
    (_WIDE, "bf16"),
)


def shipped() -> list[Variant]:
    texts = [f"{op} {text} {dtype}" for text, dtype in _WINDOWS for op in _OPS]
    texts += [f"max_pool2d {_FIRST} {places} bf16" for places in ("indices", "offsets")]
    texts += [f"max_pool2d {_OVERLAPPING} {places} f32" for places in ("indices", "offsets")]
    texts += [f"max_pool2d_scatter {_FIRST} offsets bf16"]
    texts += [f"adaptive_{op} {text} bf16" for text in (_GLOBAL, _UNEQUAL) for op in _OPS]
    placed = [f"{text} nhwc" for text in texts] + [f"{text} nchw" for text in texts if text.endswith("bf16")]
    return [_variant(as_windows(parse(f"{text} cuda"))) for text in placed]


def _variant(p: Pool2dProblem) -> Variant:
    element = _POINTERS[p.dtype]
    places = "*u8" if p.offsets else "*i64"
    if p.op == "max_pool2d_scatter":
        launch, types = scatter_launches(p)[0], (element, places, element, None if p.offsets else "*i32")
    elif p.op == "max_pool2d_gather":
        launch, types = gather_launch(p), (element, places, element)
    elif p.op == "avg_pool2d_grad_input":
        launch = average_gradient_launch(p)
        types = (element, None, element, None) if p.adaptive else (element, element)
    else:
        launch = forward_launch(p)
        placed = "places" in launch.function.arg_names
        types = (element, element, *((places if p.indices or p.offsets else None,) if placed else ()))
    signature, constants, aligned = launch.specialization(*types)
    whole = p.layout == "nhwc" and constants.get("VECTOR", 0) * p.itemsize == 16 and not p.offsets
    name = f"{launch.function.__name__} {p}"
    expects = {"vector16"} if whole else set()
    return Variant(name, launch.function, signature, constants, aligned, **launch.options, expects=expects)
