"use strict";
// Ways to compute a layer: direct in any order of loops, with tiles, tied or untied; through im2col; dense; pooling.

const CONV_LOOPS = "n g oc oh ow ic kh kw";
const POOL_LOOPS = "n ic oh ow kh kw";
const ORDERS = { nchw: "n g oc oh ow ic kh kw", nhwc: "n oh ow g oc kh kw ic" };
const POOL_ORDERS = { nchw: "n ic oh ow kh kw", nhwc: "n oh ow ic kh kw" };
const WAYS = ["tied", "untied", "dense", "im2col"];

/** The nest of a layer. `way`: one of WAYS, ignored for pooling; `order`, `tile`: for tied, untied and pooling only. */
function buildNest(problem, { way = "tied", layout = problem.layout, order, tile = {} } = {}) {
  const laidOut = { ...problem, layout };
  if (problem.op !== "conv2d") return poolNest(laidOut, order);
  if (way === "im2col") return im2colNest(laidOut);
  if (way === "dense") return denseNest(laidOut);
  return directNest(laidOut, order, tile, way);
}

function nestOf(name, problem, buffers, body) {
  return { name, problem: printed(problem), buffers, body };
}

function operands(problem, sharing) {
  const { n, ic, ih, iw, oc, oh, ow, kh, kw, g, layout, itemsize } = problem;
  const place = sharing === "untied" ? ["oh", "ow"] : [];
  const copies = sharing === "untied" ? [oh, ow] : [];
  const inputs = ic / g;
  return [
    laid("input", ["n", "ic", "ih", "iw"], [n, ic, ih, iw], layout, itemsize),
    laid("weight", [...place, "oc", "ic", "kh", "kw"], [...copies, oc, inputs, kh, kw], layout, itemsize),
    laid("output", ["n", "oc", "oh", "ow"], [n, oc, oh, ow], layout, itemsize),
  ];
}

function convExtents({ n, g, oc, oh, ow, ic, kh, kw }) {
  return { n, g, oc: oc / g, oh, ow, ic: ic / g, kh, kw };
}

function directNest(problem, order, tile, sharing) {
  const loops = orderedLoops(order ?? ORDERS[problem.layout], tile, CONV_LOOPS);
  const [x, w, y] = operands(problem, sharing);
  const extents = convExtents(problem);
  const build = new Builder(problem, extents, tile);
  const [n, g, oc, oh, ow, ic, kh, kw] = build.indices(CONV_LOOPS);
  const filters = plus(times(g, extents.oc), oc);
  const sample = at(x, n, plus(times(g, extents.ic), ic), index("ih"), index("iw"));
  const weight = at(w, ...(sharing === "untied" ? [oh, ow] : []), filters, ic, kh, kw);
  const result = at(y, n, filters, oh, ow);
  const kept = build.registerSuffix(loops, REDUCED);
  const outer = loops.slice(0, loops.length - kept);
  const outside = outer.filter((name) => REDUCED.includes(axisOf(name)) && build.repeats(name));
  const skipping = ["oh", "ow"].some((out) => build.guarded(out) && outer.includes(build.axis(out).tap));
  let before = [];
  let start = outside.length ? [load(result)] : [clear()];
  if (outside.length && !skipping && outside.every((name) => axisOf(name) === "ic")) {
    start = [clear(), guard(index([...outside].sort()[0]), 1, extents.ic, [load(result)])];
  } else if (outside.length || skipping) {
    const over = ORDERS[problem.layout].split(" ").filter((name) => !REDUCED.includes(name));
    before = new Builder(problem, extents).loops(over, [clear(), store(result)]);
  }
  const body = build.nest(loops, [multiplyAdd(sample, weight)], kept, start, [store(result)]);
  return nestOf(sharing === "untied" ? "untied" : problem.layout, problem, [x, w, y], [...before, ...body]);
}

function im2colNest(problem) {
  const [x, w, y] = operands(problem, "tied");
  const extents = convExtents(problem);
  const axes = problem.layout === "nchw" ? ["ic", "kh", "kw", "oh", "ow"] : ["oh", "ow", "kh", "kw", "ic"];
  const build = new Builder(problem, extents);
  const [n, g, oc, oh, ow, ic, kh, kw] = build.indices(CONV_LOOPS);
  const shape = axes.map((axis) => extents[axis]);
  const columns = buffer("columns", axes, shape, packed(shape), problem.itemsize);
  const column = at(columns, ...build.indices(axes.join(" ")));
  const sample = at(x, n, plus(times(g, extents.ic), ic), index("ih"), index("iw"));
  const copy = build.loops(axes, [clear(), ...build.located([load(sample)]), store(column)]);
  const filters = plus(times(g, extents.oc), oc);
  const weight = at(w, filters, ic, kh, kw);
  const result = at(y, n, filters, oh, ow);
  let product;
  if (problem.layout === "nchw") {
    const empty = build.loops(["oh", "ow"], [clear(), store(result)]);
    const row = build.loops(["oh", "ow"], [load(result), multiplyAdd(column), store(result)]);
    product = build.loops(["oc"], [...empty, ...build.loops(REDUCED, [hold(weight), ...row])]);
  } else {
    const dot = build.loops(["kh", "kw", "ic"], [multiplyAdd(column, weight)]);
    product = build.loops(["oh", "ow", "oc"], [clear(), ...dot, store(result)]);
  }
  return nestOf("im2col", problem, [x, w, y, columns], build.loops(["n", "g"], [...copy, ...product]));
}

function denseNest(problem) {
  const { n, itemsize } = problem;
  const pixels = problem.ic * problem.ih * problem.iw;
  const outs = problem.oc * problem.oh * problem.ow;
  const x = buffer("input", ["n", "i"], [n, pixels], [pixels, 1], itemsize);
  const w = buffer("weight", ["o", "i"], [outs, pixels], [pixels, 1], itemsize);
  const y = buffer("output", ["n", "o"], [n, outs], [outs, 1], itemsize);
  const build = new Builder(problem, { n, o: outs, i: pixels });
  const [image, out, pixel] = build.indices("n o i");
  const product = build.loops(["i"], [multiplyAdd(at(x, image, pixel), at(w, out, pixel))]);
  return nestOf("dense", problem, [x, w, y], build.loops(["n", "o"], [clear(), ...product, store(at(y, image, out))]));
}

function poolNest(problem, order) {
  const { n, ic, ih, iw, oh, ow, kh, kw, layout, itemsize } = problem;
  const loops = orderedLoops(order ?? POOL_ORDERS[layout], {}, POOL_LOOPS);
  const build = new Builder(problem, { n, ic, oh, ow, kh, kw });
  const kept = build.registerSuffix(loops, ["kh", "kw"]);
  const inner = loops.slice(loops.length - kept);
  if (!inner.includes("kh") || !inner.includes("kw")) {
    throw new Error(`order: expected kh and kw innermost in pooling, got "${loops.join(" ")}"`);
  }
  const x = laid("input", ["n", "ic", "ih", "iw"], [n, ic, ih, iw], layout, itemsize);
  const y = laid("output", ["n", "ic", "oh", "ow"], [n, ic, oh, ow], layout, itemsize);
  const [image, channel, row, column] = build.indices("n ic oh ow");
  const sample = at(x, image, channel, index("ih"), index("iw"));
  const result = at(y, image, channel, row, column);
  const largest = problem.op === "max_pool2d";
  const end = largest ? [store(result)] : [divide(kh * kw), store(result)];
  const step = largest ? maximum(sample) : add(sample);
  const body = build.nest(loops, [step], kept, [largest ? lowest() : clear()], end);
  return nestOf("pool", problem, [x, y], body);
}
