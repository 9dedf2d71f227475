"""Convolution as the sum it is defined by, any geometry: the innermost loop runs along the axis that is contiguous.

    output[n, oc, oh, ow] = sum over ic, kh, kw of weight[oc, ic, kh, kw] * input[n, ic, oh*sh+kh*dh-ph, ow*sw+kw*dw-pw]

Each function computes the results of the tasks [begin, end); the weight lies in the images' layout.
"""

from __future__ import annotations

from numba import njit

from . import conv_fields as f
from .arithmetic import first_inside, last_inside
from .copies import fill
from .memory import as_element, elements, integers, moved


@njit(error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def dot(a, b, step, count):
    """The sum of a[i] * b[i * step], added up in an order that depends on ``count`` alone."""
    total = as_element(a, 0)
    if step == 1:
        for i in range(count):
            total += a[i] * b[i]
    else:
        for i in range(count):
            total += a[i] * b[i * step]
    return total


@njit(error_model="numpy", fastmath={"contract"})
def add_scaled(to, to_step, source, step, factor, count):
    """to[i * to_step] += factor * source[i * step]."""
    if to_step == 1 and step == 1:
        for i in range(count):
            to[i] += factor * source[i]
    elif to_step == 1:
        for i in range(count):
            to[i] += factor * source[i * step]
    else:
        for i in range(count):
            to[i * to_step] += factor * source[i * step]


def conv2d(begin, end, context):
    """A task is one output row: of one channel (nchw), of all (nhwc)."""
    p = integers(context)
    x, w, y = elements(context, p[f.X]), elements(context, p[f.W]), elements(context, p[f.Y])
    bias = elements(context, p[f.AUX])
    if p[f.NHWC]:
        for task in range(begin, end):
            output_row_nhwc(p, x, w, moved(y, task // p[f.OH] * p[f.Y_N] + task % p[f.OH] * p[f.Y_H]), bias, task)
    else:
        for task in range(begin, end):
            output_row_nchw(p, x, w, moved(y, task * p[f.OW]), bias, task)


@njit(error_model="numpy", fastmath={"contract"})
def output_row_nchw(p, x, w, y, bias, task):
    oh, oc, n = task % p[f.OH], task // p[f.OH] % p[f.OC], task // p[f.OH] // p[f.OC]
    group_ic = p[f.IC] // p[f.G]
    first_ic = oc // (p[f.OC] // p[f.G]) * group_ic
    fill(y, p[f.OW], bias[oc] if p[f.AUX] != 0 else as_element(y, 0))
    for ic in range(group_ic):
        for kh in range(p[f.KH]):
            ih = oh * p[f.SH] + kh * p[f.DH] - p[f.PH]
            if ih < 0 or ih >= p[f.IH]:
                continue
            row = n * p[f.X_N] + (first_ic + ic) * p[f.X_C] + ih * p[f.X_H]
            for kw in range(p[f.KW]):
                shift = kw * p[f.DW] - p[f.PW]
                first = first_inside(shift, p[f.SW], p[f.OW])
                count = last_inside(shift, p[f.SW], p[f.IW], p[f.OW]) - first
                weight = w[oc * p[f.W_N] + ic * p[f.W_C] + kh * p[f.W_H] + kw * p[f.W_W]]
                add_scaled(moved(y, first), 1, moved(x, row + first * p[f.SW] + shift), p[f.SW], weight, count)


@njit(error_model="numpy", fastmath={"contract"})
def output_row_nhwc(p, x, w, y, bias, task):
    oh, n = task % p[f.OH], task // p[f.OH]
    group_ic, group_oc = p[f.IC] // p[f.G], p[f.OC] // p[f.G]
    for ow in range(p[f.OW]):
        for oc in range(p[f.OC]):
            total = as_element(y, 0)
            for kh in range(p[f.KH]):
                ih = oh * p[f.SH] + kh * p[f.DH] - p[f.PH]
                if ih < 0 or ih >= p[f.IH]:
                    continue
                for kw in range(p[f.KW]):
                    iw = ow * p[f.SW] + kw * p[f.DW] - p[f.PW]
                    if iw < 0 or iw >= p[f.IW]:
                        continue
                    pixel = moved(x, n * p[f.X_N] + ih * p[f.X_H] + iw * p[f.X_W] + oc // group_oc * group_ic)
                    total += dot(moved(w, oc * p[f.W_N] + kh * p[f.W_H] + kw * p[f.W_W]), pixel, 1, group_ic)
            y[ow * p[f.OC] + oc] = total + bias[oc] if p[f.AUX] != 0 else total


def conv2d_grad_input(begin, end, context):
    """A task is one row of the input's gradient: of one channel (nchw), of all (nhwc)."""
    p = integers(context)
    x, w, y = elements(context, p[f.X]), elements(context, p[f.W]), elements(context, p[f.Y])
    for task in range(begin, end):
        if p[f.NHWC]:
            input_row_nhwc(p, moved(x, task // p[f.IH] * p[f.X_N] + task % p[f.IH] * p[f.X_H]), w, y, task)
        else:
            input_row_nchw(p, moved(x, task * p[f.IW]), w, y, task)


@njit(error_model="numpy", fastmath={"contract"})
def input_row_nchw(p, x, w, y, task):
    ih, ic, n = task % p[f.IH], task // p[f.IH] % p[f.IC], task // p[f.IH] // p[f.IC]
    group_ic, group_oc = p[f.IC] // p[f.G], p[f.OC] // p[f.G]
    first_oc = ic // group_ic * group_oc
    fill(x, p[f.IW], as_element(x, 0))
    for oc in range(first_oc, first_oc + group_oc):
        for kh in range(p[f.KH]):
            distance = ih + p[f.PH] - kh * p[f.DH]
            oh = distance // p[f.SH]
            if oh * p[f.SH] != distance or oh < 0 or oh >= p[f.OH]:
                continue
            row = n * p[f.Y_N] + oc * p[f.Y_C] + oh * p[f.Y_H]
            for kw in range(p[f.KW]):
                shift = kw * p[f.DW] - p[f.PW]
                first = first_inside(shift, p[f.SW], p[f.OW])
                count = last_inside(shift, p[f.SW], p[f.IW], p[f.OW]) - first
                weight = w[oc * p[f.W_N] + ic % group_ic * p[f.W_C] + kh * p[f.W_H] + kw * p[f.W_W]]
                add_scaled(moved(x, first * p[f.SW] + shift), p[f.SW], moved(y, row + first), 1, weight, count)


@njit(error_model="numpy", fastmath={"contract"})
def input_row_nhwc(p, x, w, y, task):
    ih, n = task % p[f.IH], task // p[f.IH]
    group_ic, group_oc = p[f.IC] // p[f.G], p[f.OC] // p[f.G]
    fill(x, p[f.IW] * p[f.IC], as_element(x, 0))
    for iw in range(p[f.IW]):
        for kh in range(p[f.KH]):
            down = ih + p[f.PH] - kh * p[f.DH]
            oh = down // p[f.SH]
            if oh * p[f.SH] != down or oh < 0 or oh >= p[f.OH]:
                continue
            for kw in range(p[f.KW]):
                across = iw + p[f.PW] - kw * p[f.DW]
                ow = across // p[f.SW]
                if ow * p[f.SW] != across or ow < 0 or ow >= p[f.OW]:
                    continue
                pixel = n * p[f.Y_N] + oh * p[f.Y_H] + ow * p[f.Y_W]
                for oc in range(p[f.OC]):
                    to = moved(x, iw * p[f.IC] + oc // group_oc * group_ic)
                    weights = moved(w, oc * p[f.W_N] + kh * p[f.W_H] + kw * p[f.W_W])
                    add_scaled(to, 1, weights, 1, y[pixel + oc], group_ic)


def conv2d_grad_weight(begin, end, context):
    """A task is one output channel and one row of taps."""
    p = integers(context)
    x, w, y = elements(context, p[f.X]), elements(context, p[f.W]), elements(context, p[f.Y])
    for task in range(begin, end):
        oc, kh = task // p[f.KH], task % p[f.KH]
        if p[f.NHWC]:
            weight_row_nhwc(p, x, w, y, oc, kh)
        else:
            weight_row_nchw(p, x, w, y, oc, kh)


@njit(error_model="numpy", fastmath={"contract"})
def weight_row_nchw(p, x, w, y, oc, kh):
    group_ic = p[f.IC] // p[f.G]
    first_ic = oc // (p[f.OC] // p[f.G]) * group_ic
    top = kh * p[f.DH] - p[f.PH]
    first_oh, last_oh = first_inside(top, p[f.SH], p[f.OH]), last_inside(top, p[f.SH], p[f.IH], p[f.OH])
    for ic in range(group_ic):
        for kw in range(p[f.KW]):
            shift = kw * p[f.DW] - p[f.PW]
            first = first_inside(shift, p[f.SW], p[f.OW])
            count = last_inside(shift, p[f.SW], p[f.IW], p[f.OW]) - first
            total = as_element(w, 0)
            for n in range(p[f.N]):
                for oh in range(first_oh, last_oh):
                    row = n * p[f.X_N] + (first_ic + ic) * p[f.X_C] + (oh * p[f.SH] + top) * p[f.X_H]
                    gradient = moved(y, n * p[f.Y_N] + oc * p[f.Y_C] + oh * p[f.Y_H] + first)
                    total += dot(gradient, moved(x, row + first * p[f.SW] + shift), p[f.SW], count)
            w[oc * p[f.W_N] + ic * p[f.W_C] + kh * p[f.W_H] + kw * p[f.W_W]] = total


@njit(error_model="numpy", fastmath={"contract"})
def weight_row_nhwc(p, x, w, y, oc, kh):
    group_ic = p[f.IC] // p[f.G]
    first_ic = oc // (p[f.OC] // p[f.G]) * group_ic
    top = kh * p[f.DH] - p[f.PH]
    first_oh, last_oh = first_inside(top, p[f.SH], p[f.OH]), last_inside(top, p[f.SH], p[f.IH], p[f.OH])
    for kw in range(p[f.KW]):
        shift = kw * p[f.DW] - p[f.PW]
        first_ow, last_ow = first_inside(shift, p[f.SW], p[f.OW]), last_inside(shift, p[f.SW], p[f.IW], p[f.OW])
        to = moved(w, oc * p[f.W_N] + kh * p[f.W_H] + kw * p[f.W_W])
        fill(to, group_ic, as_element(w, 0))
        for n in range(p[f.N]):
            for oh in range(first_oh, last_oh):
                for ow in range(first_ow, last_ow):
                    pixel = (
                        n * p[f.X_N] + (oh * p[f.SH] + top) * p[f.X_H] + (ow * p[f.SW] + shift) * p[f.X_W] + first_ic
                    )
                    gradient = y[n * p[f.Y_N] + oh * p[f.Y_H] + ow * p[f.Y_W] + oc]
                    add_scaled(to, 1, moved(x, pixel), 1, gradient, group_ic)
