"""The loop nests of shipped C++ kernels, vector by vector: what a recording of the kernel has to be equal to.

Each describes one path of one kernel of the extension, forward and on one thread, for a level whose vectors have so
many lanes; the C++ file is named with it. ``packed`` is the part of the workspace that holds re-laid weights. What else
a kernel keeps in its workspace (tables of pointers, zeros that stand for padding) is no tensor's and is left out.
"""

from __future__ import annotations

from collections.abc import Callable

from ..problem import Conv2dProblem, Pool2dProblem, Problem
from .nest import Affine, Buffer, Guard, Let, Loop, Nest, Step, Touch, Vectors, index
from .nests import laid_operands, laid_pool_operands

VECTOR_BYTES = {"baseline": 16, "avx2": 32, "avx512": 64}
_ZERO = Affine()


def kernel_nest(problem: Problem, name: str, level: str) -> Nest:
    """The nest of ``extension:NAME`` at an instruction-set level. Raises ValueError where that kernel, or the path that
    it takes on such a problem, has no nest here."""
    if name not in _NESTS:
        raise ValueError(f"study: kernel: expected one of {', '.join(_NESTS)} for a nest, got {name!r}")
    if problem.dtype not in ("f32", "f64"):
        raise ValueError(f"study: kernel: expected f32 or f64 for a nest, got {problem.dtype}")
    return _NESTS[name](problem, VECTOR_BYTES[level])


def _expect(holds: bool, expected: str, problem: Problem) -> None:
    if not holds:
        raise ValueError(f"study: kernel: expected {expected} for a nest, got {problem}")


def _loop(name: str, start: int, stop: int, step: int, *body: Step) -> tuple[Step, ...]:
    """A loop over whole steps; nothing where there is none."""
    last = start + (stop - start) // step * step
    return (Loop(name, Affine(constant=start), (Affine(constant=last),), step, body),) if last > start else ()


def _ceil(count: int, size: int) -> int:
    return -(-count // size)


def _inside(place: str, value: Affine, size: int, *body: Step) -> tuple[Step, ...]:
    return Let(place, value), Guard(index(place), 0, size, body)


def _direct(problem: Conv2dProblem, vector_bytes: int) -> Nest:
    """``csrc/cpu/direct_channel.h``: dot products along the channels, a tile of filters by neighbouring columns."""
    lanes = vector_bytes // problem.itemsize
    inputs, outputs = problem.ic // problem.g, problem.oc // problem.g
    _expect(problem.layout == "nhwc" and 2 * inputs >= lanes, "channels_last and half a vector of channels", problem)
    x, w, y = laid_operands(problem)
    n, oh, g = index("n"), index("oh"), index("g")
    columns = 4 if vector_bytes == 64 else 2

    def tile(filters: int, width: int) -> tuple[Step, ...]:
        oc, ow, kh, kw = g * outputs + index("oc"), index("ow"), index("kh"), index("kw")

        def vectors(size: int) -> tuple[Step, ...]:
            ic = index("ic")
            weights = tuple(Touch(w.at(oc + k, ic, kh, kw), lanes=size) for k in range(filters))
            steps: tuple[Step, ...] = (Vectors(f"{filters} vectors of weights", weights),)
            for r in range(width):
                read = Touch(x.at(n, g * inputs + ic, index("ih"), index(f"iw{r}")), lanes=size)
                load = (Vectors("a vector of the input, times each of them", (read,)),)
                steps += (Guard(index("ih"), 0, problem.ih, (Guard(index(f"iw{r}"), 0, problem.iw, load),)),)
            return steps

        rest = inputs % lanes
        tail = _loop("ic", inputs - rest, inputs, rest, *vectors(rest)) if rest else ()
        places = [Let("ih", oh * problem.sh + kh * problem.dh + -problem.ph)]
        places += [Let(f"iw{r}", (ow + r) * problem.sw + kw * problem.dw + -problem.pw) for r in range(width)]
        taps = _loop(
            "kh", 0, problem.kh, 1,
            *_loop("kw", 0, problem.kw, 1, *places, *_loop("ic", 0, inputs, lanes, *vectors(lanes)), *tail),
        )  # fmt: skip
        written = tuple(Touch(y.at(n, oc + k, oh, ow + r), True) for k in range(filters) for r in range(width))
        return (*taps, Vectors("the lanes of each sum added", written))

    def row(filters: int) -> tuple[Step, ...]:
        whole = problem.ow - problem.ow % columns
        return _loop("ow", 0, whole, columns, *tile(filters, columns)) + _loop(
            "ow", whole, problem.ow, 1, *tile(filters, 1)
        )

    whole = outputs - outputs % 4
    blocks = _loop("oc", 0, whole, 4, *row(4)) + _loop("oc", whole, outputs, 1, *row(1))
    body = _loop("n", 0, problem.n, 1, *_loop("oh", 0, problem.oh, 1, *_loop("g", 0, problem.g, 1, *blocks)))
    return Nest("extension:direct", problem, (x, w, y), body)


def _gemm(problem: Conv2dProblem, vector_bytes: int) -> Nest:
    """``csrc/cpu/gemm_blocks.h`` on 1x1 filters and dense channels_last pixels, which are multiplied where they lie:
    the filters are packed, then each block of pixels meets each block of filters. Where all pixels are one block, a
    block of filters is packed just before it is used, always in the same place."""
    lanes = vector_bytes // problem.itemsize
    plain = (problem.kh, problem.kw, problem.sh, problem.sw, problem.ph, problem.pw, problem.g) == (1, 1, 1, 1, 0, 0, 1)
    depth, outputs = problem.ic, problem.oc
    aligned = depth * problem.itemsize % 2048 != 0
    _expect(plain and problem.layout == "nhwc", "a dense 1x1 filter in channels_last", problem)
    _expect(
        aligned and outputs % lanes == 0,
        f"input channels of other than whole 2048 bytes, and whole vectors of {lanes} output channels",
        problem,
    )
    x, w, y = laid_operands(problem)
    rows, width = {64: 14, 32: 6, 16: 4}[vector_bytes], 2 * lanes
    blocks, pixels = _ceil(outputs, width), problem.n * problem.oh * problem.ow
    whole = pixels > min(256, outputs) or _ceil(pixels, rows) * rows * depth * problem.itemsize <= _SOURCE_BYTES
    _expect(whole, "pixels whose channels fit the cache together, or more than 256 or than output channels", problem)
    pixel_blocks = _pixel_blocks(pixels, depth * problem.itemsize, rows)
    kept = blocks if len(pixel_blocks) > 1 else 1
    packed = Buffer("packed", ("block", "k", "column"), (kept, depth, width), (depth * width, width, 1), x.itemsize)
    flat_x = Buffer("input", ("pixel", "k"), (pixels, depth), (depth, 1), x.itemsize)
    flat_y = Buffer("output", ("pixel", "oc"), (pixels, outputs), (outputs, 1), x.itemsize)

    def packing(block: int, first: int) -> tuple[Step, ...]:
        """One vector of filters of a block, transposed a square at a time; zeros where there is no such filter."""
        if block * width + first >= outputs:
            clear = Touch(packed.at(Affine(constant=block % kept), index("k"), Affine(constant=first)), True, lanes)
            return _loop("k", 0, depth, 1, Vectors("zeros", (clear,)))

        def square(start: Affine, size: int) -> Step:
            read = tuple(
                Touch(w.at(Affine(constant=block * width + first + i), start, _ZERO, _ZERO), lanes=size)
                for i in range(lanes)
            )
            written = tuple(
                Touch(packed.at(Affine(constant=block % kept), start + j, Affine(constant=first)), True, lanes)
                for j in range(size)
            )
            return Vectors("a square of weights, transposed", read + written)

        rest = depth % lanes
        tail = (square(Affine(constant=depth - rest), rest),) if rest else ()
        return _loop("k", 0, depth, lanes, square(index("k"), lanes)) + tail

    def tile(block: int, count: int) -> tuple[Step, ...]:
        vectors = min(2, (outputs - block * width) // lanes)
        pixel, k, filters = index("pixel"), index("k"), Affine(constant=block % kept)
        right = tuple(Touch(packed.at(filters, k, Affine(constant=v * lanes)), lanes=lanes) for v in range(vectors))
        left = tuple(Touch(flat_x.at(pixel + i, k)) for i in range(count))
        written = tuple(
            Touch(flat_y.at(pixel + i, Affine(constant=block * width + v * lanes)), True, lanes)
            for i in range(count)
            for v in range(vectors)
        )
        words = f"{vectors} vectors of filters times {count} pixels"
        return (*_loop("k", 0, depth, 1, Vectors(words, right + left)), Vectors("the tile", written))

    def run(block: int, begin: int, end: int) -> tuple[Step, ...]:
        """The tiles of a block of pixels: the last ones are of like height, for a short one is slow."""
        high = max(0, (end - begin) // rows - 2)
        steps = _loop("pixel", begin, begin + high * rows, rows, *tile(block, rows)) if high else ()
        at = begin + high * rows
        while at < end:
            height = _ceil(end - at, _ceil(end - at, rows))
            steps += _loop("pixel", at, at + height, height, *tile(block, height))
            at += height
        return steps

    body: tuple[Step, ...] = ()
    for block in range(blocks):
        for first in (0, lanes):
            body += packing(block, first)
        if kept == 1:
            body += run(block, 0, pixels)
    if kept > 1:
        for begin, end in pixel_blocks:
            for block in range(blocks):
                body += run(block, begin, end)
    return Nest("extension:gemm", problem, (flat_x, w, flat_y, packed), body)


_SOURCE_BYTES = 256 << 10


def _pixel_blocks(pixels: int, row_bytes: int, unit: int) -> list[tuple[int, int]]:
    """The blocks of pixels that one thread takes, of like size and each at most what stays in the cache."""
    limit = min(max(1, _SOURCE_BYTES // (row_bytes * unit)) * unit, _ceil(1024, unit) * unit)
    block = _ceil(_ceil(pixels, _ceil(pixels, limit)), unit) * unit
    return [(start, min(start + block, pixels)) for start in range(0, pixels, block)]


def _depthwise(problem: Conv2dProblem, vector_bytes: int) -> Nest:
    """``csrc/cpu/depthwise_nhwc.h`` where no row slides: a vector of channels of a block of columns, tap by tap."""
    lanes = vector_bytes // problem.itemsize
    _expect(
        problem.layout == "nhwc" and problem.depthwise and problem.oc == problem.ic and problem.ic % lanes == 0,
        f"one filter a channel and whole vectors of {lanes} channels in channels_last", problem,
    )  # fmt: skip
    _expect((problem.sh, problem.sw) != (1, 1), "a stride", problem)
    x, w, y = laid_operands(problem)
    channels, taps = problem.ic, problem.kh * problem.kw
    packed = Buffer("packed", ("tap", "ic"), (taps, channels), (channels, 1), x.itemsize)
    n, oh, ow, ic, kh, kw = (index(name) for name in ("n", "oh", "ow", "ic", "kh", "kw"))
    copy = Vectors(
        "a weight to its place",
        (Touch(w.at(ic, _ZERO, kh, kw)), Touch(packed.at(kh * problem.kw + kw, ic), True)),
    )
    along = _loop("ic", 0, channels, 1, copy)
    body = _loop("kh", 0, problem.kh, 1, *_loop("kw", 0, problem.kw, 1, *along))
    most = 4 if vector_bytes == 16 else 8
    width = _ceil(problem.ow, _ceil(problem.ow, most))
    shares = min(max(_ceil(4, problem.n * problem.oh), 1), _ceil(channels, 128))
    chunk = _ceil(_ceil(channels, shares), lanes) * lanes
    reads: tuple[Step, ...] = ()
    writes: tuple[Step, ...] = ()
    for j in range(width):
        read = Vectors(f"column {j}", (Touch(x.at(n, ic, index("ih"), index("iw")), lanes=lanes),))
        place = _inside("iw", (ow + j) * problem.sw + kw * problem.dw + -problem.pw, problem.iw, read)
        reads += (Guard(ow + j, 0, problem.ow, place),)
        write = Vectors(f"the sum of column {j}", (Touch(y.at(n, ic, oh, ow + j), True, lanes),))
        writes += (Guard(ow + j, 0, problem.ow, (write,)),)
    weights = Vectors("a vector of weights", (Touch(packed.at(kh * problem.kw + kw, ic), lanes=lanes),))
    row = _inside(
        "ih", oh * problem.sh + kh * problem.dh + -problem.ph, problem.ih,
        *_loop("kw", 0, problem.kw, 1, weights, *reads),
    )  # fmt: skip
    tasks: tuple[Step, ...] = ()
    for begin in range(0, channels, chunk):
        end = min(begin + chunk, channels)
        block = _loop("ic", begin, end, lanes, *_loop("kh", 0, problem.kh, 1, *row), *writes)
        task = Loop("ow", _ZERO, (Affine(constant=problem.ow),), width, block)
        tasks += _loop("oh", 0, problem.oh, 1, task)
    body += _loop("n", 0, problem.n, 1, *tasks)
    return Nest("extension:depthwise", problem, (x, w, y, packed), body)


def _pool(problem: Pool2dProblem, vector_bytes: int) -> Nest:
    """``csrc/cpu/pool_pixels.h``: a few vectors of channels of one output pixel, window row by row."""
    lanes = vector_bytes // problem.itemsize
    overlap = problem.kh * problem.kw <= 2 * (problem.kw * problem.sh + problem.kh)
    forward = problem.op in ("max_pool2d", "avg_pool2d") and not problem.adaptive and not problem.indices
    swept = problem.op == "avg_pool2d" and problem.ic * problem.itemsize * max(1, problem.kh * problem.kw // 32) >= 2048
    _expect(
        forward and problem.layout == "nhwc" and overlap and not swept and problem.ic % lanes == 0,
        f"windows that overlap little and whole vectors of {lanes} channels in channels_last", problem,
    )  # fmt: skip
    x, y = laid_pool_operands(problem)
    n, oh, ow, ic = (index(name) for name in ("n", "oh", "ow", "ic"))

    def channels(vectors: int) -> tuple[Step, ...]:
        places = [ic + v * lanes for v in range(vectors)]
        read = tuple(Touch(x.at(n, place, index("ih"), index("iw")), lanes=lanes) for place in places)
        load = Vectors(f"{vectors} vectors of a pixel", read)
        down = oh * problem.sh + index("kh") * problem.dh + -problem.ph
        across = ow * problem.sw + index("kw") * problem.dw + -problem.pw
        columns = _loop("kw", 0, problem.kw, 1, *_inside("iw", across, problem.iw, load))
        window = _loop("kh", 0, problem.kh, 1, *_inside("ih", down, problem.ih, *columns))
        written = tuple(Touch(y.at(n, place, oh, ow), True, lanes) for place in places)
        return (*window, Vectors("the reduced window", written))

    whole = problem.ic - problem.ic % (4 * lanes)
    pixel = _loop("ic", 0, whole, 4 * lanes, *channels(4)) + _loop("ic", whole, problem.ic, lanes, *channels(1))
    body = _loop("n", 0, problem.n, 1, *_loop("oh", 0, problem.oh, 1, *_loop("ow", 0, problem.ow, 1, *pixel)))
    return Nest("extension:rows", problem, (x, y), body)


_NESTS: dict[str, Callable[..., Nest]] = {
    "direct": _direct, "gemm": _gemm, "depthwise": _depthwise, "rows": _pool,
}  # fmt: skip
