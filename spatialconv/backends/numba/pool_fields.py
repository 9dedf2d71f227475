"""Where each number of a pooling lies in the int64 array that its kernels are handed, addresses last.

Strides are in elements: X (input), Y (output) in the order n, c, h, w.
"""

N, IC, IH, IW, OH, OW, KH, KW, SH, SW, PH, PW, DH, DW, ADAPTIVE, INCLUDE_PAD, DIVISOR, NHWC = range(18)
X_N, X_C, X_H, X_W, Y_N, Y_C, Y_H, Y_W = range(18, 26)
SLABS, TASKS, SLAB_SIZE, CHUNK, LOADS, RING, PITCH = range(26, 33)
X, Y, AUX, WORK = range(33, 37)
COUNT = 37
