"""The loads of plain convolution kernels: ``TRITON_INTERPRET=1 python plain_kernels.py``.

Lanes are 32 neighbouring outputs ('pixel') or 32 input channels at one output ('c'). Prints, as JSON by layout and
lanes, the byte offsets of the input that every request asks for, those of the output that are stored, and whether the
kernel's result is right.
"""

from __future__ import annotations

import json

import torch
import triton
import triton.language as tl

from spatialconv.backends.triton import interpreter

C, SIDES = 8, {"pixel": 16, "c": 5}


@triton.jit
def over_pixels(x, w, y, C: tl.constexpr, SIDE: tl.constexpr, NHWC: tl.constexpr):
    pixel = tl.program_id(0) * 32 + tl.arange(0, 32)
    row, column = pixel // SIDE, pixel % SIDE
    total = tl.zeros((32,), tl.float32)
    for c in range(C):
        for r in range(3):
            for s in range(3):
                ih, iw = row + r - 1, column + s - 1
                inside = (ih >= 0) & (ih < SIDE) & (iw >= 0) & (iw < SIDE)
                if NHWC:
                    place = (ih * SIDE + iw) * C + c
                else:
                    place = (c * SIDE + ih) * SIDE + iw
                weight = tl.load(w + (c * 3 + r) * 3 + s)
                total += tl.load(x + place, mask=inside, other=0.0) * weight
    tl.store(y + pixel, total)


@triton.jit
def over_channels(x, w, y, C: tl.constexpr, SIDE: tl.constexpr, NHWC: tl.constexpr):
    c = tl.arange(0, 32)
    row, column = tl.program_id(0) // SIDE, tl.program_id(0) % SIDE
    total = tl.zeros((32,), tl.float32)
    for r in range(3):
        for s in range(3):
            ih, iw = row + r - 1, column + s - 1
            inside = (c < C) & (ih >= 0) & (ih < SIDE) & (iw >= 0) & (iw < SIDE)
            if NHWC:
                place = (ih * SIDE + iw) * C + c
            else:
                place = (c * SIDE + ih) * SIDE + iw
            weight = tl.load(w + (c * 3 + r) * 3 + s, mask=c < C, other=0.0)
            total += tl.load(x + place, mask=inside, other=0.0) * weight
    tl.store(y + tl.program_id(0), tl.sum(total, axis=0))


def requests(channels_last: bool, lanes: str) -> dict[str, object]:
    torch.manual_seed(0)
    side = SIDES[lanes]
    x, w, y = torch.randn(1, C, side, side), torch.randn(1, C, 3, 3), torch.empty(1, 1, side, side)
    laid = x.permute(0, 2, 3, 1).contiguous() if channels_last else x
    kernel, programs = (over_pixels, side * side // 32) if lanes == "pixel" else (over_channels, side * side)
    with interpreter.recorded() as accesses:
        kernel[(programs,)](laid, w, y, C, side, channels_last)
    loads = [access for access in accesses if access.what == "load" and access.tensor == 1]
    stores = [access for access in accesses if access.what == "store"]
    return {
        "stored": sorted(place for store in stores for place in store.offsets[store.mask].tolist()),
        "right": torch.allclose(y, torch.nn.functional.conv2d(x, w, padding=1), atol=1e-4),
        "requests": [sorted(load.offsets[load.mask].tolist()) for load in loads],
    }


if __name__ == "__main__":
    cases = [("NCHW", "pixel"), ("NHWC", "pixel"), ("NCHW", "c"), ("NHWC", "c")]
    print(json.dumps({f"{layout} {lanes}": requests(layout == "NHWC", lanes) for layout, lanes in cases}))
