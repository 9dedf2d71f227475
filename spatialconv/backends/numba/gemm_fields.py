"""Where each number of a packed matrix product lies in the int64 array that its kernels are handed, addresses last.

``correlation.py`` says what the numbers mean. Strides are in elements: S of the image that is read, D of the one that
is written, F of the filters.
"""

NHWC, GROUPS, IMAGES, SOURCE_CHANNELS, DEST_CHANNELS = range(5)
TAPS_H, FIRST_H, STEP_H, OFFSET_H, SHIFT_H, STRIDE_H, SOURCE_H, ORIGIN_H, SPACING_H, COUNT_H = range(5, 15)
TAPS_W, FIRST_W, STEP_W, OFFSET_W, SHIFT_W, STRIDE_W, SOURCE_W, ORIGIN_W, SPACING_W, COUNT_W = range(15, 25)
S_IMAGE, S_CHANNEL, S_ROW, S_COLUMN, D_IMAGE, D_CHANNEL, D_ROW, D_COLUMN = range(25, 33)
F_GROUP, F_DEST, F_SOURCE, F_H, F_W, DENSE = range(33, 39)
IN_PLACE, BLOCK, PITCH, BLOCKS, TASKS, SLABS, SLAB_SIZE = range(39, 46)
CHANNEL_BLOCK, CHANNEL_BLOCKS, DEPTH_BLOCK, DEPTH_BLOCKS, SLAB_PIXELS, SUMS_PITCH, SUMS_SIZE = range(46, 53)
GRADS_AT, SHARES = range(53, 55)
# Of a staged band of the source (``staging.py``); the runs' offsets stand behind the last field.
BAND, BANDS, ROWS_STAGED, LOW_H, LOW_W, ROW_PITCH, PIXEL_PITCH, PHASE_PITCH, CHANNEL_PITCH, RUNS, RUN = range(55, 66)
# Channels whose products of all taps follow each other in the order of summation.
CHUNK = 66
# Whether every pixel of an image, which is one row, keeps its place.
IDENTITY = 67
SOURCE, DEST, FILTERS, BIAS, WORK = range(68, 73)
# A table of one run that begins where the operand does.
ONE_RUN = 73
COUNT = 74
