"""Where each number of a convolution lies in the int64 array that its kernels are handed, addresses last.

Strides are in elements: X (input), Y (output) in the order n, c, h, w; W (weight) in the order oc, ic/g, kh, kw.
"""

N, G, IC, IH, IW, OC, OH, OW, KH, KW, SH, SW, PH, PW, DH, DW, NHWC = range(17)
X_N, X_C, X_H, X_W, Y_N, Y_C, Y_H, Y_W, W_N, W_C, W_H, W_W = range(17, 29)
SLABS, BLOCK, PITCH, SLAB_SIZE, BANDS = range(29, 34)
X, W, Y, AUX, WORK = range(34, 39)
COUNT = 39
