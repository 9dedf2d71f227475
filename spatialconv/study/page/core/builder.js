"use strict";
// Wraps steps in loops and names the input row and column as soon as the loops around decide them. What would run once
// is no loop, and its index is 0. The twin of Python's nests.py, and compared with it by the tests.

const REDUCED = ["ic", "kh", "kw"];
const axisOf = (name) => name.replace(/0$/, "");

class Builder {
  constructor(problem, extents, tiles = {}) {
    Object.assign(this, { problem, extents, tiles });
  }

  /** Whether the loop runs more than once. */
  repeats(name) {
    const axis = axisOf(name);
    return this.extents[axis] > (name === axis ? 1 : this.tiles[axis]);
  }

  index(name) {
    return this.repeats(name) ? index(name) : affine();
  }

  indices(names) {
    return names.split(" ").map((name) => this.index(name));
  }

  /** How many of the innermost loops only sum, so that the sum can stay in a register. */
  registerSuffix(order, reduced) {
    const ends = order.findLastIndex((name) => !reduced.includes(axisOf(name)) && this.repeats(name));
    return order.length - 1 - ends;
  }

  loops(names, body) {
    return [...names].reverse().reduce((inner, name) => this.loop(name, inner), body);
  }

  loop(name, body) {
    if (!this.repeats(name)) return body;
    const axis = axisOf(name);
    const extent = this.extents[axis];
    const end = affine(extent);
    if (name !== axis) return [loop(name, affine(), [end], this.tiles[axis], body)];
    if (!(axis in this.tiles) || !this.repeats(`${axis}0`)) return [loop(name, affine(), [end], 1, body)];
    const start = index(`${axis}0`);
    const stop = plus(start, this.tiles[axis]);
    return [loop(name, start, extent % this.tiles[axis] ? [stop, end] : [stop], 1, body)];
  }

  /** All loops of the order around `inner`; `start` and `end` stand around the last `kept` of them. */
  nest(order, inner, kept, start, end) {
    let body = inner;
    const around = new Set(order);
    [...order].reverse().forEach((name, number) => {
      if (number === kept) body = [...start, ...body, ...end];
      body = this.loop(name, this.decided(body, around, name));
      around.delete(name);
    });
    return kept < order.length ? body : [...start, ...body, ...end];
  }

  /** The body of a loop, its input row or column named where that loop is the second of the two that decide it. */
  decided(body, around, name) {
    for (const [out, tap] of [
      ["ow", "kw"],
      ["oh", "kh"],
    ]) {
      if ((name === out || name === tap) && around.has(out) && around.has(tap)) body = this.placed(body, out);
    }
    return body;
  }

  located(body) {
    return this.placed(this.placed(body, "ow"), "oh");
  }

  axis(out) {
    const p = this.problem;
    return out === "oh"
      ? { tap: "kh", place: "ih", size: p.ih, count: p.oh, taps: p.kh, stride: p.sh, gap: p.dh, padding: p.ph }
      : { tap: "kw", place: "iw", size: p.iw, count: p.ow, taps: p.kw, stride: p.sw, gap: p.dw, padding: p.pw };
  }

  /** Whether a window reaches beyond the input along an axis. */
  guarded(out) {
    const { size, count, taps, stride, gap, padding } = this.axis(out);
    return padding > 0 || (count - 1) * stride + (taps - 1) * gap - padding >= size;
  }

  placed(body, out) {
    const { tap, place, size, stride, gap, padding } = this.axis(out);
    const inside = this.guarded(out) ? [guard(index(place), 0, size, body)] : body;
    const value = plus(plus(times(this.index(out), stride), times(this.index(tap), gap)), -padding);
    return [named(place, value), ...inside];
  }
}

/** The order with its tile loops, checked. */
function orderedLoops(order, tiles, known) {
  const axes = known.split(" ");
  for (const [axis, size] of Object.entries(tiles)) {
    if (!axes.includes(axis) || !Number.isInteger(size) || size < 1) {
      throw new Error(`tile: expected a size of at least 1 for one of ${known}, got ${axis}=${size}`);
    }
  }
  const tileLoops = Object.keys(tiles).map((axis) => `${axis}0`);
  const given = order.trim().split(/\s+/);
  const loops = [...tileLoops.filter((name) => !given.includes(name)), ...given];
  const wanted = [...axes, ...tileLoops].sort();
  if ([...loops].sort().join(" ") !== wanted.join(" ")) {
    throw new Error(`order: expected each of ${wanted.join(" ")} once, got "${order}"`);
  }
  for (const axis of Object.keys(tiles)) {
    if (loops.indexOf(`${axis}0`) > loops.indexOf(axis)) {
      throw new Error(`order: expected ${axis}0 outside of ${axis}, got "${order}"`);
    }
  }
  return loops;
}
