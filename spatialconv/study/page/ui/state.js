"use strict";
// What is shown, as one object, and as the part of the address behind #.

const VIEWS = ["walk", "field", "shift", "warp", "check"];

function startState(examples) {
  const { shape, levels, ...nest } = examples[0];
  return {
    view: "walk",
    shape,
    levels,
    compare: false,
    pick: null,
    a: { way: nest.way, layout: nest.layout, order: nest.order, tile: nest.tile },
    b: { way: "tied", layout: "nhwc", order: null, tile: {} },
    stack: [
      { kernel: 3, stride: 1, dilation: 1, padding: 1 },
      { kernel: 3, stride: 2, dilation: 1, padding: 1 },
      { kernel: 3, stride: 1, dilation: 2, padding: 2 },
    ],
    length: 32,
    unit: 7,
    signal: "two spikes",
    by: 1,
    warp: {
      shape: "1x64x56x56 k=64 3x3 s1 p1 d1",
      tensor: "input",
      layout: "nchw",
      weights: WEIGHT_LAYOUTS[0],
      lane: "pixel",
      at: 0,
    },
  };
}

const writeNest = ({ way, layout, order, tile }) =>
  [
    way,
    layout,
    order ? order.replaceAll(" ", "-") : "",
    Object.entries(tile)
      .map(([axis, size]) => axis + size)
      .join("-"),
  ].join(".");

function readNest(text) {
  const [way, layout, order, tiles] = text.split(".");
  if (!WAYS.includes(way) || !(layout in ORDERS)) throw new Error(`address: cannot read the nest "${text}"`);
  const tile = {};
  for (const [, axis, size] of (tiles ?? "").matchAll(/([a-z]+)(\d+)/g)) tile[axis] = Number(size);
  return { way, layout, order: order ? order.replaceAll("-", " ") : null, tile };
}

const writeLevels = (levels) => levels.map(({ name, sets, ways, line }) => `${name}:${sets}x${ways}x${line}`).join("_");

/** Levels from `L1:64x12x64_L2:2048x16x64`: name, sets, ways, bytes of a line. */
function readLevels(text) {
  const levels = text.split("_").map((one) => {
    const found = /^(\w+):(\d+)x(\d+)x(\d+)$/.exec(one);
    if (!found) throw new Error(`cache: expected NAME:SETSxWAYSxLINE, got "${one}"`);
    const [sets, ways, line] = found.slice(2).map(Number);
    return { name: found[1], sets, ways, line };
  });
  checkLevels(levels);
  return levels;
}

function checkLevels(levels) {
  for (const { name, sets, ways, line } of levels) {
    if (!(sets >= 1 && ways >= 1))
      throw new Error(`cache: ${name}: expected at least one set and one way, got ${sets}x${ways}`);
    if (sets * ways > 4e6)
      throw new Error(`cache: ${name}: expected at most 4,000,000 lines, got ${whole(sets * ways)}`);
    if (line < 16 || line > 4096 || !Number.isInteger(Math.log2(line))) {
      throw new Error(`cache: ${name}: expected a line of 16 to 4096 bytes, a power of two, got ${line}`);
    }
    if (line !== levels[0].line) throw new Error(`cache: expected one size of line at every level, got ${line}`);
  }
}

function writeHash(state) {
  const words = new URLSearchParams({
    view: state.view,
    shape: state.shape,
    cache: writeLevels(state.levels),
    a: writeNest(state.a),
    stack: state.stack
      .map(({ kernel, stride, dilation, padding }) => [kernel, stride, dilation, padding].join("-"))
      .join("_"),
    length: state.length,
    unit: state.unit,
    signal: state.signal,
    by: state.by,
    warp: Object.values(state.warp).join("~"),
  });
  if (state.compare) words.set("b", writeNest(state.b));
  if (state.pick) words.set("pick", `${state.pick.name}:${state.pick.indices.join("-")}`);
  return `#${words}`;
}

/** The state that an address describes on top of the start state; parts that cannot be read keep their start. */
function readHash(hash, start) {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  const state = structuredClone(start);
  const take = (name, reader) => {
    if (!words.has(name)) return;
    try {
      reader(words.get(name));
    } catch (error) {
      console.info(`${name} in the address is left out: ${error.message}`);
    }
  };
  take("view", (text) => VIEWS.includes(text) && (state.view = text));
  take("shape", (text) => (readShape(text), (state.shape = text)));
  take("cache", (text) => (state.levels = readLevels(text)));
  take("a", (text) => (state.a = readNest(text)));
  take("b", (text) => ((state.b = readNest(text)), (state.compare = true)));
  take("stack", (text) => (state.stack = text.split("_").map(readLayer)));
  take("length", (text) => (state.length = within(text, 1, 200)));
  take("unit", (text) => (state.unit = within(text, 0, 200)));
  take("signal", (text) => text in SIGNALS && (state.signal = text));
  take("by", (text) => (state.by = within(text, 0, 15)));
  take("warp", (text) => {
    const [shape, tensor, layout, weights, lane, at] = text.split("~");
    readShape(shape);
    if (
      ["input", "weight"].includes(tensor) &&
      layout in ORDERS &&
      WEIGHT_LAYOUTS.includes(weights) &&
      LANE_AXES.includes(lane)
    ) {
      state.warp = { shape, tensor, layout, weights, lane, at: within(at, 0, 1e9) };
    }
  });
  take("pick", (text) => {
    const [name, places] = text.split(":");
    if (["input", "weight", "output"].includes(name))
      state.pick = { name, indices: places.split("-").map((one) => within(one, 0, 1e9)) };
  });
  return state;
}

function readLayer(text) {
  const [kernel, stride, dilation, padding] = text.split("-").map(Number);
  const layer = {
    kernel: within(kernel, 1, 15),
    stride: within(stride, 1, 8),
    dilation: within(dilation, 1, 16),
    padding: within(padding, 0, 32),
  };
  return layer;
}

function within(text, low, high) {
  const value = Number(text);
  if (!Number.isInteger(value)) throw new Error(`expected a whole number, got "${text}"`);
  return Math.min(Math.max(value, low), high);
}
