"""The compilations of the depthwise kernels that stand for all."""

from __future__ import annotations

from ...problem import Conv2dProblem, parse
from .ahead import Variant
from .depthwise import correlate_launch, grad_weight_launches

_POINTERS = {"bf16": "*bf16", "f16": "*fp16", "f32": "*fp32", "f64": "*fp64"}
_MOBILE = "n64 ic96 ih56 iw56 oc96 kh3 kw3 ph1 pw1 g96"
_STRIDED = "n64 ic96 ih112 iw112 oc96 kh3 kw3 sh2 sw2 ph1 pw1 g96"
_SMALL = "n64 ic960 ih7 iw7 oc960 kh5 kw5 ph2 pw2 g960"
_ODD_VECTOR = "n64 ic72 ih28 iw28 oc72 kh5 kw5 sh2 sw2 ph2 pw2 g72"
_SEVEN = "n64 ic384 ih14 iw14 oc384 kh7 kw7 ph3 pw3 g384"
_LARGE = "n64 ic256 ih28 iw28 oc256 kh29 kw29 ph14 pw14 g256"
_UNALIGNED = "n8 ic37 ih29 iw31 oc74 kh3 kw3 ph2 pw2 dh2 dw2 g37"
_SHIPPED = (
    *((text, dtype) for text in (_MOBILE, _STRIDED, _SEVEN) for dtype in ("bf16", "f32")),
    (_MOBILE, "f16"),
    (_MOBILE, "f64"),
    (_SMALL, "bf16"),
    (_ODD_VECTOR, "bf16"),
    (_LARGE, "bf16"),
    (_UNALIGNED, "bf16"),
)


def shipped() -> list[Variant]:
    return [
        _variant(parse(f"{op} {text}{' bias' if op == 'conv2d' else ''} {dtype} {layout} cuda"))
        for text, dtype in _SHIPPED
        for layout in (("nhwc", "nchw") if dtype == "bf16" else ("nhwc",))
        for op in ("conv2d", "conv2d_grad_input", "conv2d_grad_weight")
    ]


def _variant(p: Conv2dProblem) -> Variant:
    element = _POINTERS[p.dtype]
    if p.op == "conv2d_grad_weight":
        launch, types = grad_weight_launches(p)[0], (element, element, "*fp64" if p.dtype == "f64" else "*fp32")
    else:
        launch, types = correlate_launch(p), (element, element, element if p.bias else None, element)
    signature, constants, aligned = launch.specialization(*types)
    whole = p.layout == "nhwc" and p.oc == p.ic and constants["VECTOR"] * p.itemsize == 16
    name = f"{launch.function.__name__} {p}"
    expects = {"vector16"} if whole else set()
    return Variant(name, launch.function, signature, constants, aligned, **launch.options, expects=expects)
