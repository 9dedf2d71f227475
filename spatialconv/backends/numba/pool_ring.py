"""Pooling of nchw rows whose windows are narrow and step by one or two columns: they are read where they lie.

Every input row is reduced along its columns once, to one value an output column; the last reduced rows are kept in a
ring, from which the rows of a window are reduced to an output row. So overlapping windows share the first step, and
nothing is copied. Ascending rows and columns keep torch's choice among NaNs, the last.

Memory of a slab, in elements: the masks of the loads at the borders, the divisors of a row of averages, the ring.
"""

from __future__ import annotations

from numba import njit

from . import pool_fields as f
from .arithmetic import larger
from .borders import bordered, whole
from .masked import mask_between, store_first
from .memory import as_element, elements, itemsize, moved
from .variants import variant
from .vectors import divide, evens, in_order, lanes, load, multiply, odds, splat, store
from .windows import column_divisor, nonzero, row_divisor, row_window


@njit(error_model="numpy")
def shift_of(p, number, width):
    """Where the loads of one vector of outputs lie: at every tap, or both halves of every second one."""
    return number if p[f.SW] == 1 else number // 2 * 2 + number % 2 * width


@njit(error_model="numpy")
def masks_size(p, masks):
    return (p[f.OW] + lanes(masks) - 1) // lanes(masks) * p[f.LOADS] * lanes(masks)


@njit(error_model="numpy")
def find_masks(p, masks):
    """Of the loads of every vector of outputs of a row."""
    width = lanes(masks)
    for i in range(0, p[f.OW], width):
        for number in range(p[f.LOADS]):
            column = i * p[f.SW] - p[f.PW] + shift_of(p, number, width)
            store(masks, (i * p[f.LOADS]) + number * width, mask_between(masks, -column, p[f.IW] - column))


def _column_reduction(name: str, combine, fetch):
    @variant(f"{name}_{fetch.__name__}", forceinline=True)
    def reduced(here, masks, neutral, stride, taps):
        """A vector of outputs of one input row, in the order of ``evens`` where the stride is two."""
        width = lanes(here)
        if stride == 1:
            best = fetch(here, 0, load(masks, 0), neutral)
            for kw in range(1, taps):
                best = combine(best, fetch(here, kw, load(masks, kw * width), neutral))
            return best
        low, high = fetch(here, 0, load(masks, 0), neutral), fetch(here, width, load(masks, width), neutral)
        best = evens(low, high)
        if taps > 1:
            best = combine(best, odds(low, high))
        for kw in range(2, taps, 2):
            low = fetch(here, kw, load(masks, kw * width), neutral)
            high = fetch(here, kw + width, load(masks, (kw + 1) * width), neutral)
            best = combine(best, evens(low, high))
            if kw + 1 < taps:
                best = combine(best, odds(low, high))
        return best

    return reduced


def ring_of(name: str, combine, neutral: float):
    """The function that computes the slabs [begin, end) of output rows of ``maximum`` or ``average`` pooling."""
    averaged = name == "average"
    inside, at_border = _column_reduction(name, combine, whole), _column_reduction(name, combine, bordered)

    @variant(name, forceinline=True)
    def reduce_by(p, row, masks, to, stride, taps, loads):
        width, nothing = lanes(to), splat(to, neutral)
        columns, left = p[f.IW], p[f.PW]
        reach = (taps - 1 if stride == 1 else (loads - 2) + width) + width
        for i in range(0, p[f.OW], width):
            column = i * stride - left
            here, own = moved(row, column), moved(masks, i * loads)
            if column >= 0 and column + reach <= columns:
                store(to, i, inside(here, own, nothing, stride, taps))
            else:
                store(to, i, at_border(here, own, nothing, stride, taps))

    @variant(name)
    def reduce_row(p, row, masks, to):
        """An input row to one value an output column; the usual windows by loops of a known length."""
        if p[f.SW] == 2 and p[f.KW] == 3:
            reduce_by(p, row, masks, to, 2, 3, 4)
        elif p[f.SW] == 2 and p[f.KW] == 2:
            reduce_by(p, row, masks, to, 2, 2, 2)
        elif p[f.SW] == 1 and p[f.KW] == 3:
            reduce_by(p, row, masks, to, 1, 3, 3)
        else:
            reduce_by(p, row, masks, to, p[f.SW], p[f.KW], p[f.LOADS])

    @variant(name)
    def output_row(p, ring, oh, divisors, y, room):
        """What it stores past its end, within ``room``, the next row stores again."""
        first, count, step = row_window(p, oh)
        last_slot, pitch, two = p[f.RING] - 1, p[f.PITCH], p[f.SW] == 2
        down = splat(y, nonzero(row_divisor(p, oh))) if averaged else splat(y, 1)
        for i in range(0, p[f.OW], lanes(y)):
            best = splat(ring, neutral)
            if count > 0:
                best = load(ring, (first & last_slot) * pitch + i)
            for tap in range(1, count):
                best = combine(best, load(ring, (first + tap * step & last_slot) * pitch + i))
            if two:
                best = in_order(best)
            if averaged:
                best = divide(best, multiply(down, load(divisors, i)))
            store_first(y, i, best, room - i)

    @variant(name)
    def output_rows(p, x, y, masks, begin, end):
        divisors = moved(masks, masks_size(p, y))
        ring, held, reduced = moved(divisors, p[f.PITCH]), -1, 0
        find_masks(p, masks)
        for ow in range(p[f.OW]):
            divisors[ow] = as_element(y, nonzero(column_divisor(p, ow)) if averaged else 1)
        for task in range(begin, end):
            oh, plane = task % p[f.OH], task // p[f.OH]
            if plane != held:
                held, reduced = plane, 0
            first, count, step = row_window(p, oh)
            # Later windows begin no earlier than this one does, rows above the image left out.
            reduced = larger(reduced, larger(0, oh * p[f.SH] - p[f.PH]))
            image = moved(x, plane * (p[f.IH] * p[f.IW]))
            for ih in range(reduced, first + (count - 1) * step + 1 if count else 0):
                reduce_row(p, moved(image, ih * p[f.IW]), masks, moved(ring, (ih & (p[f.RING] - 1)) * p[f.PITCH]))
                reduced = ih + 1
            output_row(p, ring, oh, divisors, moved(y, task * p[f.OW]), (end - task) * p[f.OW])

    @variant(name)
    def slabs(p, x, y, begin, end):
        for slab in range(begin, end):
            memory = elements(x, p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(x))
            output_rows(p, x, y, memory, p[f.TASKS] * slab // p[f.SLABS], p[f.TASKS] * (slab + 1) // p[f.SLABS])

    return slabs
