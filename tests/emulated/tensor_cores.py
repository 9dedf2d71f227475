"""Geometries for the kernels on tensor cores, which need whole vectors of channels, and cells made of them."""

from __future__ import annotations

from collections.abc import Sequence

from cells import Cell, Listed, problem_of
from geometries import pairwise
from operands import DATA, MEMORY

from spatialconv import dispatch

_GEOMETRIES = """
    n1 ic8 ih1 iw1 oc8                                         # one vector of each
    n1 ic64 ih14 iw14 oc64 kh3 kw3 ph1 pw1                     # whole tiles
    n1 ic72 ih10 iw9 oc136 kh3 kw3 ph1 pw1                     # a tail in every direction
    n2 ic16 ih9 iw11 oc24 kh3 kw3 ph1 pw1                      # less than a tile of channels
    n1 ic12 ih8 iw7 oc20 kh3 kw3 ph1 pw1                       # vectors of 4, not of 8
    n3 ic128 ih7 iw7 oc264                                     # 1x1, two tiles of channels and a tail
    n1 ic192 ih6 iw6 oc320                                     # 1x1, many channels
    n2 ic256 ih5 iw6 oc64                                      # 1x1, a long sum
    n2 ic64 ih12 iw11 oc72 sh2 sw2                             # 1x1 with stride: pixels that no window reads
    n1 ic16 ih40 iw37 oc16 kh3 kw3 ph1 pw1                     # many tiles of pixels
    n5 ic8 ih11 iw3 oc8 kh3 kw3 ph1 pw1                        # several images in one tile
    n1 ic40 ih15 iw13 oc48 kh3 kw3 sh2 sw2 ph1 pw1             # stride 2
    n1 ic8 ih21 iw19 oc16 kh7 kw7 sh2 sw2 ph3 pw3              # stride 2, 7x7
    n1 ic16 ih12 iw13 oc8 kh2 kw2 sh3 sw3                      # stride beyond the kernel
    n1 ic24 ih17 iw12 oc16 kh3 kw3 ph2 pw2 dh2 dw2             # dilation
    n1 ic16 ih13 iw14 oc24 kh3 kw2 sh2 sw1 ph1 dh2 dw3         # dilation with stride, unequal
    n1 ic32 ih2 iw3 oc16 kh5 kw7 ph2 pw3                       # a kernel larger than the image
    n1 ic16 ih3 iw3 oc24 kh3 kw3 ph4 pw5                       # whole outputs see padding only
    n1 ic16 ih5 iw5 oc24 oh9 ow8 kh3 kw3                       # padded behind only
    n1 ic16 ih9 iw9 oc8 oh5 ow4 kh3 kw3                        # the last rows and columns unread
    n1 ic16 ih4 iw2 oc8 oh3 ow2 kh2 kw2 ph5 pw4                # all outputs before the image
    n1 ic24 ih9 iw23 oc8 kh1 kw7 pw3                           # long and flat
    n2 ic48 ih7 iw9 oc32 kh3 kw3 ph1 pw1 g2                    # groups
    n1 ic64 ih6 iw10 oc96 kh3 kw3 sh2 sw2 ph1 pw1 g4           # groups, stride
"""
GEOMETRIES = [" ".join(line.partition("#")[0].split()) for line in _GEOMETRIES.strip().splitlines()]
SEED = 7


def tensor_core_cells(listed: Sequence[Listed], device: str, all_data: bool = False) -> list[Cell]:
    """Every geometry with every listed kernel that takes it in some dtype, the other factors sampled pairwise."""
    cells = []
    for op, name, level in listed:
        dtypes = dispatch.kernel(name).dtypes
        for text, dtype, weight_layout, data, memory in pairwise(
            [(text,) for text in GEOMETRIES], dtypes, ("nchw", "nhwc"), DATA, MEMORY, seed=SEED
        ):
            problem = problem_of(f"{op} {text}", dtype, "nhwc", device)
            cells.append(Cell(name, level, problem, weight_layout, DATA if all_data else (data,), memory))
    return cells
