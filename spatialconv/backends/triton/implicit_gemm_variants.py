"""The compilations of the implicit GEMMs that stand for all: every config, on a problem of the kind it is meant for."""

from __future__ import annotations

from ...problem import Conv2dProblem, parse
from .ahead import TARGETS, Variant
from .configs import Config, cheapest, fitting, menu
from .tilings import TILINGS

_POINTERS = {"bf16": "*bf16", "f16": "*fp16", "f32": "*fp32", "f64": "*fp64"}
_DENSE = "n32 ic256 ih56 iw56 oc256 kh3 kw3 ph1 pw1"
_STRIDED = f"{_DENSE} sh2 sw2"
_POINT = "n32 ic256 ih56 iw56 oc256"
_FIRST = "n32 ic3 ih224 iw224 oc64 kh7 kw7 sh2 sw2 ph3 pw3"
_GROUPED = "n32 ic128 ih56 iw56 oc128 kh3 kw3 ph1 pw1 g32"
# Problems, layout, element type, precision, and whether all configs are compiled or the one that would be chosen.
_SHIPPED = (
    ((_DENSE,), "nhwc", "bf16", "ieee", True),
    ((_DENSE,), "nchw", "bf16", "ieee", True),
    ((_STRIDED, _POINT, _FIRST, _GROUPED), "nhwc", "bf16", "ieee", False),
    ((_STRIDED, _POINT, _FIRST, _GROUPED), "nchw", "bf16", "ieee", False),
    ((_DENSE,), "nhwc", "f16", "ieee", False),
    ((_DENSE,), "nhwc", "f32", "tf32", True),
    ((_DENSE,), "nchw", "f32", "tf32", True),
    ((_DENSE,), "nhwc", "f32", "tf32x3", True),
    ((_DENSE,), "nhwc", "f32", "ieee", True),
    ((_DENSE,), "nchw", "f32", "ieee", True),
    ((_DENSE,), "nhwc", "f64", "ieee", True),
)
# Their tensor-core instructions want the axis of the sum contiguous, also where it is not in memory. Triton turns such
# operands while it copies them to shared memory, element by element.
_TURNED = {
    ("conv2d_grad_weight", "tf32"),
    ("conv2d_grad_weight", "tf32x3"),
    ("conv2d_grad_weight", "f64"),
}


def shipped() -> list[Variant]:
    listed = []
    for texts, layout, dtype, precision, every in _SHIPPED:
        for text in texts:
            for op in TILINGS:
                problem = parse(f"{op} {text}{' bias' if op == 'conv2d' else ''} {dtype} {layout} cuda")
                tiling = TILINGS[op](problem)
                configs = menu(dtype, precision, tiling.load_bytes)
                if not every:
                    configs = (cheapest(configs, tiling.programs, tiling.depth),)
                listed += [_variant(problem, config, precision) for config in configs]
    return [*listed, *(_addition(layout) for layout in ("nhwc", "nchw"))]


def _addition(layout: str) -> Variant:
    """The second kernel of the weight's gradient."""
    tiling = TILINGS["conv2d_grad_weight"](parse(f"conv2d_grad_weight {_DENSE} bf16 {layout} cuda"))
    _, add = tiling.launches(menu("bf16", "ieee", tiling.load_bytes)[0], "ieee")
    signature, constants, aligned = add.specialization("*fp32", "*bf16")
    name = f"{add.function.__name__} bf16 {layout}"
    return Variant(name, add.function, signature, constants, aligned, **add.options, expects={"vector16"})


def _variant(problem: Conv2dProblem, config: Config, precision: str) -> Variant:
    """The compilation of the matrix product."""
    tiling = TILINGS[problem.op](problem)
    launches = tiling.launches(config, precision)
    element = _POINTERS[problem.dtype]
    types = [element, element, element]
    if problem.op == "conv2d":
        types.insert(2, element if problem.bias else None)
    elif len(launches) > 1:
        types[2] = "*fp64" if problem.dtype == "f64" else "*fp32"
    expects = set()
    if precision != "ieee" or problem.itemsize == 2:
        expects.add("tensor_core")
    if tiling.load_bytes == 16:
        expects.add("async_copy")
        if (problem.op, problem.dtype if precision == "ieee" else precision) not in _TURNED:
            expects.add("vector16")
    multiply = launches[0]
    name = f"{multiply.function.__name__} {problem} {precision} {config}"
    signature, constants, aligned = multiply.specialization(*types)
    targets = [isa for isa in TARGETS if fitting((config,), problem.itemsize, isa)]
    if precision == "tf32x3":
        targets.remove("gfx942")
    return Variant(
        name, multiply.function, signature, constants, aligned, config.warps, config.stages, expects, targets
    )
