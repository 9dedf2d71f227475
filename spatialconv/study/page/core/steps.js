"use strict";
// What a nest is made of: buffers, references to their elements, statements, loops and guards, as plain data.

const BASES = { input: 0x100000000, output: 0x400000000, columns: 0x500000000, weight: 0x1000000000 };

/** Strides of elements that lie one behind the other. */
function packed(shape) {
  const strides = [];
  let size = 1;
  for (const extent of [...shape].reverse()) {
    strides.unshift(size);
    size *= extent;
  }
  return strides;
}

function buffer(name, axes, shape, strides, itemsize) {
  return { name, axes, shape, strides, itemsize, base: BASES[name] };
}

/** A buffer whose last three axes are channels, rows and columns, in that order or with the channels last. */
function laid(name, axes, shape, layout, itemsize) {
  if (layout === "nchw") return buffer(name, axes, shape, packed(shape), itemsize);
  const lead = shape.length - 3;
  const inOrder = packed([...shape.slice(0, lead), shape[lead + 1], shape[lead + 2], shape[lead]]);
  const [rows, columns, channels] = inOrder.slice(lead);
  return buffer(name, axes, shape, [...inOrder.slice(0, lead), channels, rows, columns], itemsize);
}

function at(from, ...indices) {
  let offset = affine();
  indices.forEach((one, axis) => (offset = plus(offset, times(one, from.strides[axis]))));
  return { buffer: from.name, indices, offset, text: `${from.name}[${indices.map(written).join(", ")}]` };
}

function touched({ buffer, indices, offset }, store = false) {
  return { buffer, indices, offset, store };
}

function statement(kind, text, ...touches) {
  return { kind, text, touches };
}

const clear = () => statement("set", "sum = 0");
const lowest = () => statement("set", "sum = lowest");
const load = (source) => statement("load", `sum = ${source.text}`, touched(source));
const hold = (source) => statement("hold", `held = ${source.text}`, touched(source));
const add = (source) => statement("add", `sum += ${source.text}`, touched(source));
const maximum = (source) => statement("maximum", `sum = max(sum, ${source.text})`, touched(source));
const divide = (divisor) => statement("divide", `sum /= ${divisor}`);
const store = (target) => statement("store", `${target.text} = sum`, touched(target, true));

function multiplyAdd(first, second) {
  const touches = second ? [touched(first), touched(second)] : [touched(first)];
  return statement("multiplyadd", `sum += ${first.text} * ${second ? second.text : "held"}`, ...touches);
}

const named = (name, value) => ({ kind: "let", name, value });
const guard = (value, low, high, body) => ({ kind: "guard", value, low, high, body });
const loop = (name, start, stops, step, body) => ({ kind: "loop", name, start, stops, step, body });

/** The nest as lines of pseudo-code: {text, depth, step}, a line for every step. */
function codeLines(body, depth = 0) {
  return body.flatMap((step) => {
    if (step.kind === "loop") return [{ text: loopText(step), depth, step }, ...codeLines(step.body, depth + 1)];
    if (step.kind === "guard") {
      const text = `if ${step.low} <= ${written(step.value)} < ${step.high}:`;
      return [{ text, depth, step }, ...codeLines(step.body, depth + 1)];
    }
    const text = step.kind === "let" ? `${step.name} = ${written(step.value)}` : step.text;
    return [{ text, depth, step }];
  });
}

function loopText({ name, start, stops, step }) {
  const stop = stops.length === 1 ? written(stops[0]) : `min(${stops.map(written).join(", ")})`;
  const from = written(start) === "0" && step === 1 ? "" : `${written(start)}, `;
  return `for ${name} in range(${from}${stop}${step === 1 ? "" : `, ${step}`}):`;
}
