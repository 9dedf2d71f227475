"use strict";
// The examples that Python has counted, beside what this page counts.

const canonical = (value) =>
  Array.isArray(value)
    ? value.map(canonical)
    : value && typeof value === "object"
      ? Object.fromEntries(
          Object.keys(value)
            .sort()
            .map((key) => [key, canonical(value[key])]),
        )
      : value;
const same = (first, second) => JSON.stringify(canonical(first)) === JSON.stringify(canonical(second));

class Judge {
  constructor(examples) {
    this.examples = examples;
    this.runner = new Runner();
    this.rows = el("tbody", {});
    this.state = el("p", { role: "status", text: "Nothing compared yet." });
    this.button = el("button", {
      type: "button",
      class: "main",
      text: "Count all of them here",
      onclick: () => this.runAll(),
    });
    const headings = ["example", "caches", "accesses", "Python's misses", "this page's", ""];
    const head = headings.map((text, number) =>
      el("th", { scope: "col", class: number > 1 && number < 5 ? "number" : null, text }),
    );
    this.node = el(
      "div",
      {},
      el("div", { class: "buttons" }, this.button),
      this.state,
      el(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": "Examples counted by Python and by this page" },
        el("table", {}, el("thead", {}, el("tr", {}, ...head)), this.rows),
      ),
    );
    this.rows.append(...examples.map((example, number) => this.row(example, number)));
  }

  row(example, number) {
    const levels = example.levels.map(({ name, sets, ways }) => `${name} ${sets}×${ways}`).join(", ");
    const misses = (levels) => levels.map(({ misses }) => whole(total(misses))).join(" / ");
    const { python } = example;
    const counted = python ? [whole(total(python.accesses)), misses(python.levels)] : ["too many", ""];
    const here = python && total(python.accesses) > CAP ? "too many here" : "";
    const numbers = [...counted, here, ""];
    return el(
      "tr",
      { "data-example": number },
      el(
        "th",
        { scope: "row" },
        el("strong", { text: example.title }),
        el("span", { class: "minor", text: nestText(example) }),
      ),
      el("td", { text: `${levels}, ${example.levels[0].line} B` }),
      ...numbers.map((text) => el("td", { class: "number", text })),
    );
  }

  /** Counts every example from Python's own description of its nest, one after another. */
  async runAll() {
    this.button.disabled = true;
    const judged = [...this.examples.entries()].filter(([, { python }]) => python && total(python.accesses) <= CAP);
    let equal = 0;
    for (const [number, example] of judged) {
      this.state.textContent = `Counting ${number + 1} of ${this.examples.length}…`;
      const result = await this.runner.run(example.nest, example.levels, Infinity);
      const built = buildNest(readShape(example.shape), example);
      const agrees = same({ ...built, name: "" }, { ...example.nest, name: "" }) && sameCounts(result, example.python);
      equal += agrees;
      const cells = this.rows.children[number].querySelectorAll("td");
      cells[3].textContent = result.levels.map(({ misses }) => whole(total(misses))).join(" / ");
      cells[4].replaceChildren(badge(agrees));
    }
    const { length } = judged;
    this.state.textContent =
      equal === length
        ? `page = Python: all ${length} examples agree in the nest and in every count by tensor, level and kind.`
        : `${length - equal} of ${length} examples differ from Python.`;
    this.state.dataset.equal = equal;
    this.button.disabled = false;
  }

  /** Whether what a panel counted is one of the examples, and equal to what Python counted. */
  verdict(panel, result) {
    const example = this.examples.find(
      (one) =>
        same(canonicalSetting(readShape(one.shape), one), canonicalSetting(panel.problem, panel.setting)) &&
        same(one.levels, panel.levels),
    );
    const size = `${whole(result.counted)} accesses counted.`;
    if (!example)
      return el("span", {
        text: `${size} Python has not counted this one in the file; section Check has those it has.`,
      });
    if (!example.python)
      return el("span", { text: `${size} Too many to be counted whole, by the page or for it by Python.` });
    const count = whole(total(example.python.levels[0].misses));
    if (result.sampled) {
      const { name } = result.levels[0];
      return el("span", { text: `${size} Python counted the whole nest: ${count} misses in ${name}.` });
    }
    const agrees = sameCounts(result, example.python);
    return el(
      "span",
      {},
      badge(agrees),
      agrees
        ? ` page = Python: ${count} misses in ${result.levels[0].name}. ${size}`
        : ` Python counted ${count} misses in ${result.levels[0].name}.`,
    );
  }
}

function sameCounts(result, python) {
  return (
    same(result.accesses, python.accesses) &&
    result.levels.every((level, number) =>
      ["name", "misses", "first", "capacity", "conflict"].every((key) => same(level[key], python.levels[number][key])),
    )
  );
}

function canonicalSetting(problem, { way, layout, order, tile }) {
  const pool = problem.op !== "conv2d";
  const ordered = pool || way === "tied" || way === "untied";
  const usual = (pool ? POOL_ORDERS : ORDERS)[layout];
  return {
    shape: shortShape(problem),
    layout,
    way: pool ? "" : way,
    tile: ordered ? tile : {},
    order: ordered ? orderedLoops(order ?? usual, tile, pool ? POOL_LOOPS : CONV_LOOPS) : [],
  };
}

function nestText({ shape, way, layout, order, tile }) {
  const tiles = Object.entries(tile)
    .map(([axis, size]) => `${axis} by ${size}`)
    .join(", ");
  const more = `${order ? `, order ${order}` : ""}${tiles ? `, tiles ${tiles}` : ""}`;
  return `${shape}; ${way}, ${layout.toUpperCase()}${more}`;
}

const badge = (agrees) =>
  el("span", { class: `badge ${agrees ? "good" : "bad"}`, text: agrees ? "✓ equal" : "✗ different" });
