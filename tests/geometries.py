"""The geometries that every kernel is tested on, and the sampling of the product they belong to.

Each line is a problem's printed form without dtype, layout and device; the comment says which path it takes.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Hashable, Iterable, Sequence

from spatialconv.problem import ACTIVATIONS

_CONV = """
    n1 ic1 ih1 iw1 oc1                                             # the smallest there is
    n2 ic3 ih5 iw6 oc4 kh3 kw3                                     # nothing padded
    n1 ic3 ih4 iw3 oc2 kh3 kw3 ph1 pw1                             # a row shorter than the smallest vector
    n1 ic3 ih5 iw4 oc4 kh3 kw3 ph1 pw1                             # one vector of 4
    n1 ic5 ih6 iw7 oc6 kh3 kw3 ph1 pw1                             # one below a vector of 8
    n1 ic4 ih6 iw8 oc8 kh3 kw3 ph1 pw1                             # one vector of 8
    n1 ic4 ih5 iw9 oc9 kh3 kw3 ph1 pw1                             # one above
    n1 ic7 ih5 iw15 oc7 kh3 kw3 ph1 pw1                            # one below a vector of 16
    n1 ic8 ih5 iw16 oc16 kh3 kw3 ph1 pw1                           # one vector of 16
    n1 ic9 ih5 iw17 oc17 kh3 kw3 ph1 pw1                           # one above, in every direction
    n1 ic3 ih7 iw31 oc5 kh3 kw3 ph1 pw1                            # one below two vectors
    n1 ic3 ih4 iw33 oc5 kh3 kw3 ph1 pw1                            # one above
    n1 ic2 ih3 iw65 oc3 kh3 kw3 ph1 pw1                            # one above four vectors
    n1 ic2 ih14 iw14 oc6 kh3 kw3 ph1 pw1                           # tiles of 14
    n1 ic2 ih28 iw28 oc3 kh3 kw3 ph1 pw1                           # tiles of 28
    n1 ic2 ih32 iw29 oc3 kh3 kw3 ph1 pw1                           # tiles of 32, a tail behind 28
    n2 ic16 ih7 iw7 oc32 kh3 kw3 ph1 pw1                           # whole tiles of channels
    n1 ic33 ih5 iw5 oc31 kh3 kw3 ph1 pw1                           # tails of both kinds of channels
    n1 ic70 ih3 iw5 oc14 kh3 kw3 ph1 pw1                           # a reduction of several blocks
    n2 ic260 ih4 iw5 oc5 kh3 kw3 ph1 pw1                           # the same, more channels than one takes
    n1 ic260 ih3 iw3 oc20 kh3 kw3 ph1 pw1                          # the same, filters are most of it
    n1 ic2 ih5 iw131 oc3 kh3 kw3 ph1 pw1                           # a row in several parts
    n1 ic3 ih12 iw11 oc64 kh3 kw3 ph1 pw1                          # a network's first layer
    n1 ic3 ih24 iw25 oc36 kh5 kw5 sh2 sw2 ph2 pw2                  # the same, overlapping windows of many values
    n3 ic5 ih6 iw5 oc7                                             # 1x1
    n1 ic17 ih1 iw19 oc33                                          # 1x1, one row
    n2 ic32 ih4 iw4 oc16                                           # 1x1, whole tiles
    n1 ic64 ih7 iw7 oc48                                           # 1x1, many channels
    n2 ic17 ih21 iw20 oc24                                         # 1x1, planes of two runs of pixels
    n3 ic40 ih12 iw12 oc10                                         # 1x1, planes of one run
    n1 ic130 ih13 iw13 oc70                                        # 1x1, wide pixels in two runs
    n2 ic11 ih23 iw31 oc7                                          # 1x1, few filters, planes of a run and a tail
    n1 ic18 ih19 iw27 oc30 g2                                      # the same, groups
    n1 ic9 ih3 iw3 oc520                                           # 1x1, filters of two blocks
    n2 ic6 ih9 iw8 oc5 sh2 sw2                                     # 1x1 with stride
    n1 ic4 ih7 iw5 oc3 ph1 pw2                                     # 1x1 with padding
    n11 ic24 ih1 iw1 oc37                                          # 1x1 on images of one pixel
    n1 ic1030 ih1 iw3 oc6                                          # 1x1, more channels than are read at a time
    n9 ic9 ih3 iw3 oc35 sh2 sw2                                    # 1x1 with stride, a block of pixels and a tail
    n3 ic24 ih1 iw1 oc20 g4                                        # 1x1 groups on images of one pixel
    n2 ic0 ih1 iw1 oc5                                             # the same without channels
    n1 ic3 ih11 iw12 oc5 kh3 kw3 sh2 sw2 ph1 pw1                   # stride 2
    n2 ic3 ih20 iw35 oc4 kh3 kw3 sh2 sw2 ph1 pw1                   # stride 2, a vector and a tail
    n1 ic3 ih21 iw19 oc8 kh7 kw7 sh2 sw2 ph3 pw3                   # stride 2, 7x7
    n1 ic2 ih13 iw37 oc3 kh3 kw5 sh3 sw4 ph1 pw2                   # unequal strides
    n1 ic3 ih12 iw13 oc4 kh2 kw2 sh3 sw3                           # stride beyond the kernel: input never read
    n1 ic2 ih17 iw9 oc3 kh1 kw2 sh5 sw4 pw1                        # the same, unequal
    n1 ic2 ih16 iw16 oc3 kh4 kw4 sh4 sw4                           # patches
    n2 ic8 ih10 iw12 oc16 kh2 kw2 sh2 sw2                          # patches, whole vectors
    n1 ic8 ih58 iw57 oc64 kh3 kw3 sh2 sw2 ph1 pw1                  # stride 2, several bands of rows for the input
    n3 ic20 ih19 iw21 oc33 kh3 kw3 sh2 sw2 ph1 pw1                 # stride 2, many channels and pixels, tails of both
    n3 ic16 ih128 iw130 oc32 kh2 kw2 sh2 sw2                       # the same, images that are not done all together
    n1 ic3 ih9 iw10 oc4 kh1 kw3 pw1                                # a row of taps
    n1 ic3 ih10 iw9 oc4 kh3 kw1 ph1                                # a column of taps
    n2 ic3 ih1 iw21 oc4 kh1 kw3 pw1                                # one row of input
    n2 ic3 ih19 iw1 oc4 kh3 kw1 ph1                                # one column of input
    n1 ic2 ih9 iw23 oc3 kh1 kw7 pw3                                # long and flat
    n1 ic4 ih8 iw9 oc5 kh2 kw2 ph1 pw1                             # an even kernel
    n1 ic3 ih8 iw10 oc4 kh4 kw2 ph2 pw1                            # an even, unequal kernel
    n1 ic3 ih9 iw9 oc4 kh5 kw5 ph2 pw2                             # 5x5
    n1 ic2 ih13 iw12 oc3 kh11 kw3 ph5 pw1                          # a tall kernel
    n1 ic3 ih4 iw4 oc4 kh3 kw3 ph2 pw2                             # more padding than keeps the size
    n1 ic2 ih3 iw3 oc3 kh3 kw3 ph4 pw5                             # whole outputs see padding only
    n1 ic2 ih2 iw3 oc3 kh5 kw7 ph2 pw3                             # a kernel larger than the image
    n1 ic3 ih9 iw11 oc4 kh3 kw3 ph2 pw2 dh2 dw2                    # dilation
    n1 ic3 ih19 iw20 oc4 kh3 kw3 ph6 pw6 dh6 dw6                   # wide dilation, a tap off the image everywhere
    n1 ic24 ih19 iw20 oc17 kh3 kw3 ph2 pw2 dh2 dw2                 # dilation, many channels
    n2 ic9 ih22 iw14 oc34 kh3 kw3 ph3 pw1 dh4 dw2                  # the same, unequal, several images
    n1 ic24 ih9 iw8 oc24 kh3 kw3 ph20 pw3 dh20 dw3                 # the same, a dilation larger than the image
    n1 ic16 ih18 iw17 oc40 kh5 kw5 ph2 pw2                         # 5x5, many channels and pixels
    n2 ic20 ih13 iw12 oc36 kh1 kw7 pw3                             # the same, a row of taps
    n1 ic140 ih15 iw14 oc150 kh3 kw3 ph9 pw9 dh9 dw9               # wide dilation, most taps off the image
    n1 ic2 ih11 iw14 oc3 kh3 kw2 sh2 sw1 ph1 dh2 dw3               # dilation with stride, unequal
    n1 ic2 ih13 iw25 oc4 kh3 kw3 sh2 sw2 ph2 pw2 dh2 dw2           # dilation with stride
    n1 ic3 ih9 iw9 oc4 oh5 ow4 kh3 kw3                             # the last rows and columns of the input unread
    n1 ic3 ih8 iw9 oc4 oh3 ow5 kh3 kw3 sh2 sw2 ph1 pw1             # no padding behind, stride 2
    n1 ic3 ih6 iw6 oc4 oh6 ow6 kh2 kw4 pw1                         # padding 'same' with an even kernel
    n1 ic3 ih5 iw5 oc4 oh9 ow8 kh3 kw3                             # padded behind only
    n1 ic2 ih4 iw2 oc3 oh3 ow2 kh2 kw2 ph5 pw4                     # all outputs before the image
    n2 ic6 ih7 iw9 oc4 kh3 kw3 ph1 pw1 g2                          # groups
    n1 ic9 ih6 iw17 oc6 kh3 kw3 sh2 sw2 ph1 pw1 g3                 # odd groups, stride
    n1 ic64 ih5 iw5 oc64 kh3 kw3 ph1 pw1 g4                        # groups of whole tiles
    n1 ic34 ih4 iw6 oc38 kh3 kw3 ph1 pw1 g2                        # groups of a tile and a tail
    n1 ic16 ih6 iw11 oc16 kh3 kw3 ph1 pw1 g4                       # groups of four channels to four, whole vectors
    n2 ic24 ih37 iw26 oc24 kh3 kw3 sh2 sw2 ph1 pw1 g3              # groups of eight, stride, several bands of rows
    n1 ic16 ih9 iw37 oc16 kh3 kw3 sh2 sw2 ph1 pw1 g4               # groups of four, stride, rows of several tiles
    n1 ic16 ih4 iw23 oc48 kh3 kw3 ph1 pw1 g2                       # groups of several vectors, rows of several tiles
    n1 ic12 ih6 iw9 oc18 kh2 kw4 pw2 g3                            # groups of six filters, an even kernel
    n1 ic6 ih9 iw12 oc8 kh3 kw5 ph2 pw4 dh2 dw2 g2                 # groups, dilation
    n1 ic8 ih5 iw6 oc12 g4                                         # 1x1 groups
    n1 ic512 ih3 iw5 oc3 kh2 kw2                                   # pixels a multiple of 2 KB apart
    n1 ic40 ih3 iw6 oc17                                           # 1x1, two positions behind whole tiles
    n1 ic1400 ih7 iw7 oc53                                         # 1x1, the depth cut, one position behind whole tiles
    n2 ic333 ih10 iw11 oc229                                       # 1x1, the depth cut, several images
    n1 ic310 ih5 iw7 oc35 kh3 kw3 ph4 pw4 dh4 dw4                  # deep sums, most taps off the image
    n1 ic301 ih6 iw7 oc35 kh3 kw3 ph1 pw1                          # deep sums, filters packed where they are used
    n1 ic35 ih6 iw7 oc301 kh3 kw3 ph1 pw1                          # the same for the input's gradient
    n1 ic35 ih5 iw7 oc310 kh3 kw3 ph4 pw4 dh4 dw4                  # the same for the input's gradient
    n2 ic345 ih5 iw5 oc34 kh3 kw3 sh2 sw2 ph1 pw1                  # deep sums, stride
    n2 ic5 ih7 iw9 oc5 kh3 kw3 ph1 pw1 g5                          # depthwise, odd
    n1 ic8 ih9 iw8 oc8 kh3 kw3 ph1 pw1 g8                          # depthwise, one vector of channels
    n1 ic16 ih5 iw16 oc16 kh3 kw3 ph1 pw1 g16                      # depthwise, whole vectors
    n1 ic37 ih6 iw17 oc37 kh3 kw3 ph1 pw1 g37                      # depthwise, tails everywhere
    n2 ic6 ih11 iw13 oc6 kh3 kw3 sh2 sw2 ph1 pw1 g6                # depthwise, stride
    n2 ic2 ih39 iw41 oc2 kh3 kw3 ph1 pw1 g2                        # depthwise, planes done in bands of rows
    n1 ic2 ih53 iw37 oc2 kh3 kw3 sh2 sw2 ph1 pw1 g2                # the same, stride 2
    n5 ic4 ih26 iw27 oc4 kh3 kw3 ph1 pw1 g4                        # depthwise, planes of several images at a time
    n2 ic4 ih14 iw37 oc4 kh3 kw3 sh2 sw2 ph2 g4                    # depthwise, stride 2, an even padding
    n1 ic3 ih12 iw9 oc3 kh3 kw3 sh2 sw2 pw1 g3                     # the same, even above, odd beside
    n1 ic4 ih9 iw35 oc4 kh5 kw5 ph2 pw2 g4                         # depthwise, 5x5
    n1 ic18 ih14 iw14 oc18 kh7 kw7 ph3 pw3 g18                     # depthwise, 7x7
    n1 ic16 ih6 iw14 oc16 kh5 kw5 ph2 pw2 g16                      # depthwise, 5x5, whole vectors, rows of 14
    n1 ic2 ih12 iw57 oc2 kh5 kw5 ph2 pw2 g2                        # depthwise, 5x5, a strip of wide vectors, a tail
    n2 ic3 ih15 iw29 oc3 kh5 kw5 sh2 sw2 ph2 pw2 g3                # depthwise, 5x5, stride 2
    n1 ic2 ih12 iw15 oc4 kh7 kw7 sh2 sw2 ph3 pw3 g2                # depthwise, 7x7, stride 2, an odd padding
    n1 ic16 ih5 iw19 oc16 kh7 kw7 ph3 pw3 g16                      # depthwise, 7x7, whole vectors, a tail
    n2 ic3 ih14 iw13 oc3 kh13 kw13 ph6 pw6 g3                      # depthwise, a large kernel
    n1 ic2 ih6 iw7 oc2 kh9 kw11 ph4 pw5 g2                         # depthwise, a kernel larger than the image
    n2 ic11 ih9 iw10 oc11 kh8 kw9 ph7 pw6 dh2 g11                  # depthwise, a large kernel, even, with dilation
    n1 ic2 ih24 iw600 oc2 kh9 kw9 ph4 pw4 g2                       # depthwise, a large kernel, several bands
    n1 ic3 ih12 iw10 oc9 kh3 kw3 ph1 pw1 g3                        # depthwise, 3 outputs a channel
    n1 ic17 ih6 iw7 oc34 kh3 kw3 sh2 sw1 ph1 pw1 g17               # depthwise, 2 outputs a channel, unequal stride
    n1 ic4 ih12 iw13 oc8 kh3 kw3 ph2 pw2 dh2 dw2 g4                # depthwise, dilation
    n1 ic5 ih6 iw7 oc5 g5                                          # depthwise, 1x1
    n1 ic6 ih9 iw9 oc6 oh4 ow6 kh3 kw2 sh2 g6                      # depthwise, the last columns unread
    n1 ic1 ih8 iw19 oc1 kh3 kw3 ph1 pw1                            # one channel
    n1 ic1 ih9 iw8 oc8 kh3 kw3 ph1 pw1                             # one channel to many
    n5 ic2 ih4 iw5 oc3 kh3 kw3 ph1 pw1                             # more images than threads
    n0 ic3 ih5 iw6 oc4 kh3 kw3                                     # no images
    n2 ic0 ih5 iw6 oc4 kh3 kw3                                     # no channels: the bias alone
"""

# Untied: every output position has a filter of its own.
_LOCAL = """
    n1 ic1 ih1 iw1 oc1                                             # the smallest there is
    n2 ic3 ih5 iw6 oc4 kh3 kw3                                     # nothing padded
    n1 ic3 ih4 iw3 oc2 kh3 kw3 ph1 pw1                             # few filters, 27 taps
    n1 ic5 ih6 iw7 oc6 kh3 kw3 ph1 pw1                             # 45 taps: vectors and a tail
    n1 ic2 ih5 iw4 oc8 kh2 kw2                                     # 8 taps: one vector of 8
    n1 ic4 ih3 iw5 oc16 kh2 kw2 ph1 pw1                            # 16 taps: whole vectors, filters of whole vectors
    n3 ic7 ih5 iw6 oc17 kh3 kw3 ph1 pw1                            # three images, filters one above a tile
    n9 ic4 ih4 iw5 oc9 kh3 kw3 ph1 pw1                             # more images than a tile takes
    n17 ic3 ih3 iw3 oc5 kh2 kw3                                    # the same, a tail
    n1 ic40 ih4 iw4 oc33 kh3 kw3 ph1 pw1                           # 360 taps
    n2 ic130 ih3 iw3 oc6 kh3 kw3 ph1 pw1                           # 1170 taps
    n5 ic6 ih6 iw5 oc7                                             # 1x1
    n1 ic33 ih4 iw5 oc20                                           # 1x1, vectors and a tail
    n2 ic3 ih9 iw9 oc5 kh3 kw3 sh2 sw2 ph1 pw1                     # stride 2
    n1 ic3 ih12 iw13 oc4 kh2 kw2 sh3 sw3                           # stride beyond the kernel: input never read
    n2 ic2 ih13 iw12 oc3 kh3 kw5 sh3 sw4 ph1 pw2                   # unequal strides
    n1 ic3 ih9 iw11 oc4 kh3 kw3 ph2 pw2 dh2 dw2                    # dilation
    n1 ic2 ih11 iw14 oc3 kh3 kw2 sh2 sw1 ph1 dh2 dw3               # dilation with stride, unequal
    n1 ic2 ih3 iw3 oc3 kh3 kw3 ph4 pw5                             # whole outputs see padding only
    n1 ic2 ih2 iw3 oc3 kh5 kw7 ph2 pw3                             # a kernel larger than the image
    n1 ic3 ih9 iw9 oc4 oh5 ow4 kh3 kw3                             # the last rows and columns of the input unread
    n1 ic3 ih6 iw6 oc4 oh6 ow6 kh2 kw4 pw1                         # padding 'same' with an even kernel
    n2 ic6 ih7 iw9 oc4 kh3 kw3 ph1 pw1 g2                          # groups
    n1 ic9 ih6 iw7 oc6 kh3 kw3 sh2 sw2 ph1 pw1 g3                  # odd groups, stride
    n2 ic32 ih4 iw5 oc48 kh3 kw3 ph1 pw1 g2                        # groups of several vectors
    n3 ic5 ih7 iw6 oc10 kh3 kw3 ph1 pw1 g5                         # depthwise
    n0 ic3 ih6 iw6 oc4 kh3 kw3                                     # no images
    n2 ic0 ih5 iw6 oc4 kh3 kw3                                     # no channels: the bias alone
"""

# Each with every activation, forward.
_ACTIVATED = """
    n2 ic3 ih5 iw7 oc5 kh3 kw3 ph1 pw1                             # tails in every direction
    n1 ic16 ih6 iw16 oc32 kh3 kw3 ph1 pw1                          # whole vectors and tiles
    n1 ic17 ih6 iw33 oc34                                          # 1x1, tiles and tails
    n1 ic32 ih8 iw8 oc32                                           # 1x1, whole tiles
    n3 ic20 ih1 iw1 oc19                                           # 1x1 on images of one pixel, tails
    n1 ic34 ih5 iw6 oc38 kh3 kw3 sh2 sw2 ph1 pw1 g2                # groups, stride
    n1 ic19 ih7 iw17 oc19 kh3 kw3 ph1 pw1 g19                      # depthwise, tails
    n1 ic16 ih6 iw16 oc16 kh5 kw5 ph2 pw2 g16                      # depthwise, whole vectors, rows that share loads
    n1 ic8 ih9 iw11 oc8 kh3 kw3 sh2 sw2 ph1 pw1 g8                 # depthwise, stride
    n1 ic6 ih7 iw9 oc12 kh3 kw3 ph1 pw1 g6                         # depthwise, 2 outputs a channel
    n2 ic0 ih5 iw6 oc4 kh3 kw3                                     # no channels: the bias alone
"""

_WINDOWS = """
    n1 ic1 ih1 iw1                                                 # the smallest there is
    n1 ic3 ih4 iw4 kh2 kw2                                         # side by side
    n2 ic5 ih7 iw9 kh2 kw2                                         # the last row and column unread
    n2 ic5 ih7 iw9 kh2 kw2 ceil                                    # the last windows cut off
    n1 ic8 ih8 iw16 kh2 kw2                                        # whole vectors
    n1 ic17 ih6 iw34 kh2 kw2                                       # vectors and a tail
    n1 ic4 ih5 iw3 kh3 kw3 sh1 sw1 ph1 pw1                         # rows shorter than the smallest vector
    n1 ic3 ih6 iw7 kh3 kw3 sh1 sw1 ph1 pw1                         # one below a vector of 8
    n1 ic3 ih6 iw9 kh3 kw3 sh1 sw1 ph1 pw1                         # one above
    n1 ic33 ih5 iw15 kh3 kw3 sh1 sw1 ph1 pw1                       # one below a vector of 16, channels one above two
    n1 ic2 ih4 iw65 kh3 kw3 sh1 sw1 ph1 pw1                        # one above four vectors
    n1 ic6 ih12 iw11 kh3 kw3 sh2 sw2 ph1 pw1                       # a network's first pooling
    n2 ic3 ih13 iw37 kh3 kw3 sh2 sw2                               # stride 2, vectors and a tail
    n1 ic3 ih8 iw8 kh3 kw3 sh2 sw2 ceil                            # stride 2, ceil
    n1 ic2 ih10 iw13 kh3 kw2 sh2 sw3 ph1 pw1                       # unequal
    n1 ic2 ih9 iw11 kh2 kw3 sh3 sw4                                # stride beyond the window: input never read
    n1 ic2 ih9 iw11 kh2 kw3 sh3 sw4 pw1 ceil                       # the same, ceil
    n1 ic2 ih1 iw19 kh1 kw3 sh1 sw1 pw1                            # one row
    n1 ic2 ih17 iw1 kh3 kw1 sh1 sw1 ph1                            # one column
    n1 ic3 ih7 iw8 kh5 kw5 sh1 sw1 ph2 pw2                         # windows that overlap much
    n1 ic2 ih9 iw40 kh7 kw7 sh2 sw2 ph3 pw3                        # 7x7
    n1 ic3 ih3 iw3 kh4 kw4 sh1 sw1 ph2 pw2                         # a window larger than the image
    n2 ic7 ih6 iw5 kh6 kw5                                         # one window
    n1 ic300 ih3 iw4 kh3 kw4                                       # one window, more channels than a thread takes
    n1 ic4 ih7 iw7 kh2 kw2 sh2 sw2 ph1 pw1 ceil                    # padding and ceil
    n1 ic3 ih5 iw5 kh1 kw1 sh2 sw2                                 # a window of one, stride
    n1 ic3 ih13 iw37 kh3 kw3 sh3 sw3                               # windows that share no rows
    n1 ic2 ih17 iw140 kh8 kw8 sh8 sw8                              # the same, a stride of eight, vectors and a tail
    n1 ic2 ih12 iw35 kh4 kw3 sh5 sw4 ph1 pw1 ceil                  # the same, padding, ceil, rows never read
    n0 ic3 ih6 iw6 kh2 kw2                                         # no images
"""
_DILATED = """
    n1 ic3 ih9 iw11 kh3 kw3 sh1 sw1 dh2 dw2                        # dilation
    n1 ic2 ih10 iw13 kh2 kw3 sh2 sw1 ph1 pw1 dh3 dw2               # dilation, unequal, with stride
    n1 ic3 ih9 iw20 kh3 kw2 sh2 sw2 ph1 pw1 dh2 dw3 ceil           # dilation and ceil
    n1 ic2 ih1 iw3 kh2 kw3 sh1 sw1 ph1 pw1 dh2 dw1                 # windows without an input element
    n1 ic3 ih2 iw2 kh2 kw2 sh1 sw1 ph1 pw1 dh3 dw3                 # the same in both directions
"""
_DIVISORS = """
    n1 ic3 ih7 iw9 kh3 kw3 sh2 sw2 ph1 pw1 exclude_pad             # padding not counted
    n2 ic2 ih8 iw35 kh3 kw3 sh1 sw1 ph1 pw1 exclude_pad            # the same, vectors and a tail
    n1 ic3 ih7 iw8 kh3 kw3 sh2 sw2 ph1 pw1 ceil exclude_pad        # the same, the last windows cut off
    n1 ic3 ih7 iw8 kh4 kw4 sh3 sw3 ph2 pw2 ceil                    # a divisor cut at the end of the padding
    n1 ic3 ih6 iw7 kh3 kw2 sh2 sw2 ph1 pw1 divisor5                # a divisor given
    n1 ic2 ih6 iw19 kh2 kw3 sh1 sw1 divisor-3 exclude_pad          # a negative one
    n1 ic1036 ih3 iw8 kh3 kw4                                      # pixels so long that windows are read by rows
    n1 ic125 ih17 iw17 kh17 kw17                                   # windows so large that they are, by parts of them
"""
_SIZES = """
    n2 ic3 ih7 iw7 oh1 ow1                                         # global
    n1 ic17 ih8 iw16 oh4 ow4                                       # equal windows
    n1 ic3 ih7 iw9 oh3 ow4                                         # unequal, overlapping windows
    n1 ic2 ih5 iw37 oh2 ow18                                       # the same, vectors and a tail
    n1 ic3 ih3 iw2 oh5 ow7                                         # more outputs than inputs
    n1 ic4 ih6 iw5 oh6 ow5                                         # the input itself
    n2 ic3 ih4 iw4 oh0 ow3                                         # no outputs
"""


def _lines(*texts: str) -> list[str]:
    return [" ".join(line.partition("#")[0].split()) for text in texts for line in text.strip().splitlines()]


CONV = _lines(_CONV)
LOCAL = _lines(_LOCAL)
ACTIVATED = _lines(_ACTIVATED)
POOL = {
    "max_pool2d": _lines(_WINDOWS, _DILATED),
    "avg_pool2d": _lines(_WINDOWS, _DIVISORS),
    "adaptive": _lines(_SIZES),
}


def printed(op: str) -> list[str]:
    """The printed forms of an op, without dtype, layout and device."""
    if op.startswith("conv2d"):
        activated = [f"{op} {line} {word}" for line in ACTIVATED for word in ACTIVATIONS] if op == "conv2d" else []
        return [f"{op} {line}" for line in CONV] + activated
    if op.startswith("local_conv2d"):
        return [f"{op} {line}" for line in LOCAL]
    kind = "max_pool2d" if op.startswith("max") else "avg_pool2d"
    printed = [f"{op} {line}" for line in POOL[kind]] + [f"adaptive_{op} {line}" for line in POOL["adaptive"]]
    return printed + [f"{op} {line} offsets" for line in POOL[kind] if kind == "max_pool2d"]


_CHANNELS = (1, 3, 4, 17, 21, 24, 40)


def tails(op: str) -> list[str]:
    """Every pair of channel counts beside tiles and vectors of 4, 8 and 16, as a 3x3 and as a 1x1 convolution."""
    filters = ("ih5 iw6 oc{oc} kh3 kw3 ph1 pw1", "ih3 iw7 oc{oc}")
    counts = itertools.product(_CHANNELS, _CHANNELS)
    return [f"{op} n2 ic{ic} {line.format(oc=oc)}" for ic, oc in counts for line in filters]


def pairs(values: Sequence[Hashable]) -> set[tuple]:
    """Every pair of values with their places."""
    return set(itertools.combinations(enumerate(values), 2))


def pairwise(rows: Iterable[tuple], *factors: Sequence, seed: int, tries: int = 24) -> list[tuple]:
    """Each row joined by one value of every factor, so chosen that pairs of values not met before come first."""
    chance = random.Random(seed)
    choices = list(itertools.product(*factors))
    met: set[tuple] = set()
    sample = []
    for row in rows:
        offered = [(*row, *choice) for choice in chance.sample(choices, min(tries, len(choices)))]
        best = max(offered, key=lambda cell: len(pairs(cell) - met))
        met |= pairs(best)
        sample.append(best)
    return sample
