"use strict";
// What is said of the chosen element.

/** Indices of one nest's element as those of a nest with another number of axes (flattened, or with filters of their
 * own), or null where there is no such element. */
function translated(problem, name, indices, axes) {
  if (indices.length === axes) return indices;
  const [channels, height, width] =
    name === "input" ? [problem.ic, problem.ih, problem.iw] : [problem.oc, problem.oh, problem.ow];
  if (name !== "weight" && axes === 2) {
    const [n, channel, row, column] = indices;
    return [n, (channel * height + row) * width + column];
  }
  if (name !== "weight" && indices.length === 2 && indices[1] < channels * height * width) {
    const [n, flat] = indices;
    return [n, Math.floor(flat / (height * width)), Math.floor(flat / width) % height, flat % width];
  }
  if (name === "weight" && axes === 6 && indices.length === 4) return [0, 0, ...indices];
  if (name === "weight" && axes === 4 && indices.length === 6) return indices.slice(2);
  return null;
}

function usesText(problem, name, uses) {
  if (name !== "output") return `used ${whole(uses)} ${uses === 1 ? "time" : "times"}`;
  return `made of ${whole(uses)} ${problem.op === "conv2d" ? "products" : "pixels"}`;
}

function pickSentences(panel, pick, met) {
  const { nest, problem, setting, levels } = panel;
  const from = nest.buffers.find((one) => one.name === pick.name);
  const { line, name: level } = levels[0];
  const head = el(
    "p",
    {},
    tensorName(pick.name),
    ` [${pick.indices.join(", ")}] at `,
    el("code", { text: hex(addressOf(from, pick.indices)) }),
    ", ",
    el("strong", { class: "uses", text: usesText(problem, pick.name, met.uses) }),
    ".",
  );
  const lines = (name) => {
    const buffer = nest.buffers.find((one) => one.name === name);
    return buffer && met[name].length ? linesOf(buffer, met[name], line) : 0;
  };
  const count = (name, one, many) => `${whole(met[name].length)} ${met[name].length === 1 ? one : many}`;
  const inLines = (name) => `in ${whole(lines(name))} ${lines(name) === 1 ? "line" : "lines"}`;
  let text;
  if (pick.name === "weight") {
    const why = {
      tied: "It is tied: the same number, at the same address, serves every position of the picture.",
      im2col: "It is tied: the product of matrices reads it once for every column.",
      untied: "It is untied: this position has a filter of its own, and no other position may read it.",
      dense: "A dense layer gives every pair of pixel and output a weight of its own.",
    }[setting.way];
    const pixels = `${count("input", "pixel", "pixels")} (${inLines("input")})`;
    text = `It meets ${pixels} and feeds ${count("output", "output", "outputs")} (${inLines("output")}). ${why}`;
  } else if (pick.name === "input") {
    const taps = problem.op === "conv2d" ? `${count("weight", "weight", "weights")} (${inLines("weight")}) and ` : "";
    text =
      met.uses === 0
        ? "No window ever reads this pixel: the stride steps over it."
        : `It meets ${taps}${count("output", "output", "outputs")} (${inLines("output")}).`;
  } else {
    const taps = problem.op === "conv2d" ? ` and ${count("weight", "weight", "weights")} ${inLines("weight")}` : "";
    text =
      `Its window is ${count("input", "pixel", "pixels")} ${inLines("input")} of ${line} bytes${taps}: ` +
      `${whole(lines("input") + lines("weight") + 1)} lines, ${level} holds ${whole(levels[0].sets * levels[0].ways)}.`;
  }
  return [head, el("p", { text }), addressList(nest, pick, met)];
}

/** The first addresses that belong to the choice, folded away. */
function addressList(nest, pick, met) {
  const shown = nest.buffers.filter((one) => one.name in met && one.name !== pick.name && met[one.name].length);
  const rows = shown.map((one) => {
    const first = met[one.name].slice(0, 48).map((indices) => hex(addressOf(one, indices)));
    const more = met[one.name].length > 48 ? ` … ${whole(met[one.name].length - 48)} more` : "";
    return el("p", {}, tensorName(one.name), " ", el("code", { text: first.join(" ") + more }));
  });
  return el("details", { class: "more addresses" }, el("summary", { text: "Addresses" }), ...rows);
}
