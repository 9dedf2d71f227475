"use strict";
// Who meets whom: the pixels, weights and outputs that belong together, each by the indices of its own buffer.

/** Along one axis, every [output, tap, place in the input] that lies inside the input. */
function meetings(problem, out) {
  const { size, count, taps, stride, gap, padding } = new Builder(problem, {}).axis(out);
  const found = [];
  for (let o = 0; o < count; o++) {
    for (let tap = 0; tap < taps; tap++) {
      const place = o * stride + tap * gap - padding;
      if (place >= 0 && place < size) found.push([o, tap, place]);
    }
  }
  return found;
}

const range = (count) => Array.from({ length: count }, (_, number) => number);

/** Multiplications with real pixels, or comparisons or additions of a pooling; a dense layer joins everything. */
function countProducts(problem, way) {
  const { n, ic, ih, iw, oc, oh, ow, g } = problem;
  if (problem.op === "conv2d" && way === "dense") return n * ic * ih * iw * oc * oh * ow;
  const met = meetings(problem, "oh").length * meetings(problem, "ow").length;
  return n * met * (problem.op === "conv2d" ? oc * (ic / g) : ic);
}

/** The elements that one element meets: {uses, input, weight, output}, lists of indices; `uses` counts products. */
function usesOf(problem, way, name, indices) {
  if (problem.op !== "conv2d") return usesInPooling(problem, name, indices);
  if (way === "dense") return usesWhenDense(problem, name, indices);
  const inputs = problem.ic / problem.g;
  const filters = problem.oc / problem.g;
  const untied = way === "untied";
  let rows = meetings(problem, "oh");
  let columns = meetings(problem, "ow");
  let images = range(problem.n);
  let channels = range(inputs);
  let outs = range(problem.oc);
  if (name === "weight") {
    const [oc, ic, kh, kw] = indices.slice(-4);
    rows = rows.filter(([oh, tap]) => tap === kh && (!untied || oh === indices[0]));
    columns = columns.filter(([ow, tap]) => tap === kw && (!untied || ow === indices[1]));
    [channels, outs] = [[ic], [oc]];
  } else if (name === "input") {
    const [n, ic, ih, iw] = indices;
    rows = rows.filter(([, , place]) => place === ih);
    columns = columns.filter(([, , place]) => place === iw);
    const group = Math.floor(ic / inputs);
    [images, channels] = [[n], [ic % inputs]];
    outs = outs.filter((oc) => Math.floor(oc / filters) === group);
  } else {
    const [n, oc, oh, ow] = indices;
    rows = rows.filter(([row]) => row === oh);
    columns = columns.filter(([column]) => column === ow);
    [images, outs] = [[n], [oc]];
  }
  const met = { input: new Collected(), weight: new Collected(), output: new Collected() };
  for (const [oh, kh, ih] of rows) {
    for (const [ow, kw, iw] of columns) {
      for (const oc of outs) {
        for (const ic of channels) {
          met.weight.put(untied ? [oh, ow, oc, ic, kh, kw] : [oc, ic, kh, kw]);
          for (const n of images) {
            met.input.put([n, Math.floor(oc / filters) * inputs + ic, ih, iw]);
            met.output.put([n, oc, oh, ow]);
          }
        }
      }
    }
  }
  const uses = rows.length * columns.length * outs.length * channels.length * images.length;
  return { uses, input: met.input.list, weight: met.weight.list, output: met.output.list };
}

/** Indices without repetitions, in the order in which they came. */
class Collected {
  constructor() {
    this.list = [];
    this.known = new Set();
  }

  put(indices) {
    const key = indices.join();
    if (this.known.has(key)) return;
    this.known.add(key);
    this.list.push(indices);
  }
}

function usesInPooling(problem, name, [n, ic, row, column]) {
  const side = name === "input" ? 2 : 0;
  const rows = meetings(problem, "oh").filter((one) => one[side] === row);
  const columns = meetings(problem, "ow").filter((one) => one[side] === column);
  const met = { input: new Collected(), output: new Collected() };
  for (const [oh, , ih] of rows) {
    for (const [ow, , iw] of columns) {
      met.input.put([n, ic, ih, iw]);
      met.output.put([n, ic, oh, ow]);
    }
  }
  return { uses: rows.length * columns.length, input: met.input.list, weight: [], output: met.output.list };
}

function usesWhenDense(problem, name, indices) {
  const pixels = range(problem.ic * problem.ih * problem.iw);
  const outs = range(problem.oc * problem.oh * problem.ow);
  if (name === "weight") {
    const [o, i] = indices;
    const images = range(problem.n);
    return { uses: problem.n, weight: [indices], input: images.map((n) => [n, i]), output: images.map((n) => [n, o]) };
  }
  const [n, one] = indices;
  if (name === "input") {
    return { uses: outs.length, input: [indices], weight: outs.map((o) => [o, one]), output: outs.map((o) => [n, o]) };
  }
  return {
    uses: pixels.length,
    output: [indices],
    weight: pixels.map((i) => [one, i]),
    input: pixels.map((i) => [n, i]),
  };
}

function offsetOf(from, indices) {
  return indices.reduce((sum, one, axis) => sum + one * from.strides[axis], 0);
}

const axesByStride = new WeakMap();

/** The axes of a buffer from the widest stride to the narrowest. */
function sortedAxes(from) {
  if (!axesByStride.has(from)) {
    const { strides, shape } = from;
    const wider = (a, b) => strides[b] - strides[a] || shape[b] - shape[a];
    axesByStride.set(from, range(shape.length).sort(wider));
  }
  return axesByStride.get(from);
}

/** The indices of the element that lies at an offset. */
function indicesOf(from, offset) {
  const indices = [];
  let left = offset;
  for (const axis of sortedAxes(from)) {
    indices[axis] = Math.min(Math.floor(left / from.strides[axis]), from.shape[axis] - 1);
    left -= indices[axis] * from.strides[axis];
  }
  return indices;
}

function addressOf(from, indices) {
  return from.base + offsetOf(from, indices) * from.itemsize;
}

/** How many different lines of a cache elements lie in. */
function linesOf(from, list, line) {
  return new Set(list.map((indices) => Math.floor(addressOf(from, indices) / line))).size;
}
