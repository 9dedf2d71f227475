"""A loop nest as plain lists and dicts, from which another language can rebuild it."""

from __future__ import annotations

from .nest import Affine, Guard, Let, Loop, Nest, Step
from .nest_text import text


def as_data(nest: Nest) -> dict[str, object]:
    """The nest as plain lists and dicts, for JSON: the page rebuilds its program from this."""
    return {
        "name": nest.name,
        "problem": str(nest.problem),
        "buffers": [
            {
                "name": one.name, "axes": list(one.axes), "shape": list(one.shape), "strides": list(one.strides),
                "itemsize": one.itemsize, "base": one.base,
            }
            for one in nest.buffers
        ],
        "body": [_step_data(step) for step in nest.body],
    }  # fmt: skip


def _step_data(step: Step) -> dict[str, object]:
    if isinstance(step, Loop):
        return {
            "kind": "loop", "name": step.name, "start": _affine_data(step.start),
            "stops": [_affine_data(stop) for stop in step.stops], "step": step.step,
            "body": [_step_data(inner) for inner in step.body],
        }  # fmt: skip
    if isinstance(step, Guard):
        return {
            "kind": "guard", "value": _affine_data(step.value), "low": step.low, "high": step.high,
            "body": [_step_data(inner) for inner in step.body],
        }  # fmt: skip
    if isinstance(step, Let):
        return {"kind": "let", "name": step.name, "value": _affine_data(step.value)}
    return {
        "kind": type(step).__name__.lower(),
        "text": text(step),
        "touches": [
            {
                "buffer": touch.reference.buffer.name,
                "indices": [_affine_data(one) for one in touch.reference.indices],
                "offset": _affine_data(touch.reference.offset),
                "store": touch.store,
                **({"lanes": touch.lanes} if touch.lanes > 1 else {}),
            }
            for touch in step.touches
        ],
    }


def _affine_data(expression: Affine) -> dict[str, object]:
    return {"terms": dict(expression.terms), "constant": expression.constant}
