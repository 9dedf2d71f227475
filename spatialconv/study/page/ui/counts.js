"use strict";
// Counts of a whole nest: by tensor, level and kind, and what they say about bytes and arithmetic.

function countTables(result) {
  return result.levels.map((level, number) => {
    const names = Object.keys(level.misses);
    const cells = (name) => [
      result.accesses[name],
      level.misses[name],
      level.first[name],
      level.capacity[name],
      level.conflict[name],
    ];
    const rows = names.map((name) => [tensorName(name), ...cells(name).map(whole)]);
    const sums = [result.accesses, level.misses, level.first, level.capacity, level.conflict].map((one) =>
      whole(total(one)),
    );
    const caption =
      number === 0
        ? `${level.name}: misses by tensor and kind`
        : `${level.name}: what ${result.levels[number - 1].name} did not have`;
    const made = table(
      caption,
      ["tensor", "accesses", "misses", "first touch", "capacity", "conflict"],
      [...rows, ["all", ...sums]],
    );
    made.dataset.level = level.name;
    return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, made);
  });
}

/** [name, value, text] of what a nest costs. */
function costsOf(problem, setting, nest, result) {
  const products = countProducts(problem, setting.way);
  const last = result.levels.at(-1);
  const moved = total(last.misses) * last.line;
  const weight = nest.buffers.find((one) => one.name === "weight");
  const part = result.sampled ? ", of those counted" : "";
  const costs = [
    ["products with real pixels", products, whole(products)],
    ["accesses", result.total, whole(result.total)],
    [`${result.levels[0].name} misses${part}`, total(result.levels[0].misses), whole(total(result.levels[0].misses))],
    [`bytes from memory${part}`, moved, bytes(moved)],
  ];
  if (weight) {
    const held = weight.shape.reduce((product, one) => product * one, weight.itemsize);
    costs.push(["bytes of weights", held, bytes(held)]);
  }
  return costs;
}

function sampledNote(result) {
  if (!result.sampled) return null;
  const share = ((100 * result.counted) / result.total).toPrecision(2);
  return el(
    "p",
    { class: "warning" },
    `Sampled: counted are the first ${whole(result.counted)} of ${whole(result.total)} accesses (${share} %). ` +
      "First touches weigh too much in such a beginning; read shares, not totals.",
  );
}

/** A power of ten in a few letters: 1, 10, 100, 1k, ... */
const logTick = (power) => `${10 ** (power % 3)}${["", "k", "M", "G"][Math.floor(power / 3)]}`;

/** Two results as dots on a logarithmic axis, a row a tensor. */
function compareDots(first, second) {
  const names = [...new Set([...Object.keys(first.misses), ...Object.keys(second.misses)])];
  const [width, left, row] = [520, 84, 30];
  const most = Math.max(...names.flatMap((name) => [first.misses[name] ?? 0, second.misses[name] ?? 0]), 10);
  const place = (value) => left + (Math.log10(Math.max(value, 1)) / Math.ceil(Math.log10(most))) * (width - left - 24);
  const height = names.length * row + 34;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "dots" });
  picture.setAttribute(
    "aria-label",
    names
      .map((name) => `${name}: A ${whole(first.misses[name] ?? 0)}, B ${whole(second.misses[name] ?? 0)} misses`)
      .join("; "),
  );
  for (let power = 0; power <= Math.ceil(Math.log10(most)); power++) {
    const x = place(10 ** power);
    picture.append(svg("line", { x1: x, x2: x, y1: 4, y2: height - 24, class: "rule" }));
    picture.append(svg("text", { x, y: height - 8, class: "tick", "text-anchor": "middle" }, logTick(power)));
  }
  names.forEach((name, number) => {
    const y = number * row + 20;
    picture.append(svg("text", { x: 4, y: y + 5, class: "label" }, name));
    const [a, b] = [first.misses[name], second.misses[name]];
    if (a !== undefined && b !== undefined)
      picture.append(svg("line", { x1: place(a), x2: place(b), y1: y, y2: y, class: `link ${name}` }));
    if (b !== undefined) picture.append(svg("circle", { cx: place(b), cy: y, r: 8, class: `ring ${name}` }));
    if (a !== undefined) picture.append(svg("circle", { cx: place(a), cy: y, r: 5, class: `dot ${name}` }));
  });
  return picture;
}
