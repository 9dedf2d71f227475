"use strict";
// The layer as a plain object with the library's letters: n g ic ih iw oc oh ow kh kw sh sw ph pw dh dw.

const ITEM_BYTES = { f32: 4, f64: 8, bf16: 2, f16: 2 };
const POOLS = { max: "max_pool2d", avg: "avg_pool2d" };
const PAIRS = { s: ["sh", "sw"], p: ["ph", "pw"], d: ["dh", "dw"] };

/** The layer that a text such as `1x64x28x28 k=64 3x3 s1 p1 d1 g1` describes; an Error says what is wrong with it. */
function readShape(text) {
  const words = text.trim().split(/\s+/);
  const sizes = /^(\d+)x(\d+)x(\d+)x(\d+)$/.exec(words[0]);
  if (!sizes) throw new Error(`shape: expected the input first, as in 1x16x32x32 k=32 3x3 p1, got "${words[0]}"`);
  const [n, ic, ih, iw] = sizes.slice(1).map(Number);
  const problem = { op: "conv2d", n, ic, ih, iw, dtype: "f32", layout: "nchw" };
  for (const word of words.slice(1)) readWord(problem, word);
  return complete(problem);
}

function readWord(problem, word) {
  let found;
  if (word in POOLS) problem.op = POOLS[word];
  else if (word in ITEM_BYTES) problem.dtype = word;
  else if (word === "nchw" || word === "nhwc") problem.layout = word;
  else if ((found = /^(\d+)x(\d+)$/.exec(word))) [problem.kh, problem.kw] = [Number(found[1]), Number(found[2])];
  else if ((found = /^k=(\d+)$/.exec(word))) problem.oc = Number(found[1]);
  else if ((found = /^g(\d+)$/.exec(word))) problem.g = Number(found[1]);
  else if ((found = /^([spd])(\d+)(?:x(\d+))?$/.exec(word))) {
    const [down, across] = PAIRS[found[1]];
    problem[down] = Number(found[2]);
    problem[across] = Number(found[3] ?? found[2]);
  } else throw new Error(`shape: cannot read "${word}"; it is written like 1x16x32x32 k=32 3x3 s1 p1`);
}

/** The layer with everything that follows from the rest filled in, checked. */
function complete(given) {
  const pool = given.op !== "conv2d";
  const problem = { dtype: "f32", layout: "nchw", ph: 0, pw: 0, dh: 1, dw: 1, ...given };
  if (!problem.kh) throw new Error("shape: expected a kernel like 3x3, got none");
  problem.sh ??= pool ? problem.kh : 1;
  problem.sw ??= pool ? problem.kw : 1;
  if (!pool) problem.g ??= 1;
  if (pool && (problem.oc || problem.g)) throw new Error("shape: pooling has no k and no g");
  const least = { n: 1, ic: 1, ih: 1, iw: 1, kh: 1, kw: 1, sh: 1, sw: 1, dh: 1, dw: 1, ph: 0, pw: 0 };
  if (!pool) Object.assign(least, { oc: 1, g: 1 });
  for (const [name, bound] of Object.entries(least)) {
    if (!Number.isInteger(problem[name]) || problem[name] < bound) {
      throw new Error(`shape: ${name}: expected an integer of at least ${bound}, got ${problem[name]}`);
    }
  }
  if (!pool && (problem.ic % problem.g || problem.oc % problem.g)) {
    throw new Error(`shape: g: expected a divisor of ${problem.ic} and ${problem.oc} channels, got ${problem.g}`);
  }
  problem.oh = outputs(problem.ih, problem.kh, problem.sh, problem.ph, problem.dh);
  problem.ow = outputs(problem.iw, problem.kw, problem.sw, problem.pw, problem.dw);
  if (problem.oh < 1 || problem.ow < 1) {
    throw new Error(`shape: the ${problem.kh}x${problem.kw} window does not fit into ${problem.ih}x${problem.iw}`);
  }
  problem.itemsize = ITEM_BYTES[problem.dtype];
  return problem;
}

function outputs(size, kernel, stride, padding, dilation) {
  return Math.max(Math.floor((size + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1, 0);
}

/** The short notation, without the layout. */
function shortShape(problem) {
  const words = [`${problem.n}x${problem.ic}x${problem.ih}x${problem.iw}`];
  const pool = Object.keys(POOLS).find((word) => POOLS[word] === problem.op);
  words.push(pool ?? `k=${problem.oc}`, `${problem.kh}x${problem.kw}`);
  for (const [letter, [down, across]] of Object.entries(PAIRS)) {
    const same = problem[down] === problem[across];
    words.push(same ? letter + problem[down] : `${letter}${problem[down]}x${problem[across]}`);
  }
  if (problem.g > 1) words.push(`g${problem.g}`);
  if (problem.dtype !== "f32") words.push(problem.dtype);
  return words.join(" ");
}

/** The library's printed form: every field that differs from its default. */
function printed(problem) {
  const pool = problem.op !== "conv2d";
  const usual = { kh: 1, kw: 1, ph: 0, pw: 0, dh: 1, dw: 1, g: 1 };
  Object.assign(usual, pool ? { sh: problem.kh, sw: problem.kw } : { sh: 1, sw: 1 });
  const names = "n ic ih iw oc kh kw sh sw ph pw dh dw g".split(" ");
  const words = names.filter((name) => problem[name] !== undefined && problem[name] !== usual[name]);
  const fields = words.map((name) => name + problem[name]);
  return [problem.op, ...fields, problem.dtype, problem.layout, "cpu"].join(" ");
}
