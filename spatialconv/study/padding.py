"""A nest whose buffers are laid out with gaps: the cure for strides that send everything into the same sets."""

from __future__ import annotations

from dataclasses import replace

from .lru import extent
from .nest import Buffer, Guard, Loop, Nest, Reference, Step


def padded(nest: Nest, name: str, axis: str, gap: int) -> Nest:
    """The nest with ``gap`` elements left free behind each step along ``axis`` of the buffer ``name``: the axis' stride
    grows by ``gap``, and so do the strides that span it. Raises ValueError on an unknown buffer or axis, or a gap below
    1."""
    found = [buffer for buffer in nest.buffers if buffer.name == name and axis in buffer.axes]
    if not found:
        known = ", ".join(f"{buffer.name} ({' '.join(buffer.axes)})" for buffer in nest.buffers)
        raise ValueError(f"study: padding: expected a buffer and its axis out of {known}, got {name} {axis}")
    if gap < 1:
        raise ValueError(f"study: padding: expected a gap of at least 1 element, got {gap}")
    old = found[0]
    new = replace(old, strides=_with_gap(old, axis, gap))
    buffers = tuple(new if buffer is old else buffer for buffer in nest.buffers)
    return replace(nest, buffers=buffers, body=_moved(nest.body, old, new))


def _with_gap(buffer: Buffer, axis: str, gap: int) -> tuple[int, ...]:
    number = buffer.axes.index(axis)
    span = buffer.strides[number] * buffer.shape[number]
    more = gap * buffer.shape[number]
    return tuple(
        stride + gap if place == number else stride + stride // span * more if stride >= span else stride
        for place, stride in enumerate(buffer.strides)
    )


def wasted(nest: Nest, plain: Nest) -> int:
    """Bytes by which a padded nest's buffers are longer than the plain one's."""
    pairs = zip(nest.buffers, plain.buffers, strict=True)
    return sum((extent(one) - extent(other)) * one.itemsize for one, other in pairs)


def _moved(body: tuple[Step, ...], old: Buffer, new: Buffer) -> tuple[Step, ...]:
    return tuple(_moved_step(step, old, new) for step in body)


def _moved_step(step: Step, old: Buffer, new: Buffer) -> Step:
    if isinstance(step, (Loop, Guard)):
        return replace(step, body=_moved(step.body, old, new))
    references = {
        field: new.at(*value.indices)
        for field, value in vars(step).items()
        if isinstance(value, Reference) and value.buffer == old
    }
    return replace(step, **references) if references else step
