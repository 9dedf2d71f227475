"use strict";
// One nest on the page: its choices, its code, its cache, its maps and its counts.

class Panel {
  constructor(key, app) {
    Object.assign(this, { key, app, maps: [], result: null });
    this.choices = new NestChoices((changes) => app.changeNest(key, changes));
    this.code = el("pre", {
      class: "code",
      tabindex: "0",
      role: "region",
      "aria-label": `Pseudo-code of nest ${key.toUpperCase()}`,
    });
    this.now = el("p", { class: "now", role: "status" });
    this.cache = new CacheView();
    this.mapsNode = el("div", { class: "maps" });
    this.pick = el("div", { class: "pick", role: "status" });
    this.counts = el("div", { class: "counts" });
    this.state = el("p", { class: "state", role: "status" });
    this.error = el("p", { class: "error", role: "alert", hidden: true });
    this.title = el("h3", { text: key === "a" ? "Nest A" : "Nest B" });
    const left = el("div", { class: "column" }, this.code, this.now, this.cache.node);
    const right = el("div", { class: "column" }, this.mapsNode, this.pick);
    this.body = el("div", { class: "panel-body" }, left, right);
    const counted = el(
      "section",
      { class: "whole", "aria-label": "Counts of the whole nest" },
      el("h4", { text: "The whole nest, counted" }),
      this.state,
      this.counts,
    );
    this.node = el(
      "article",
      { class: "panel card", "data-panel": key },
      this.title,
      this.choices.node,
      this.error,
      this.body,
      counted,
    );
  }

  /** Shows a nest from its start; counts follow from the worker. */
  setup(problem, setting, levels) {
    this.error.hidden = true;
    this.result = null;
    try {
      this.nest = buildNest(problem, setting);
      this.choices.set(problem, setting);
    } catch (error) {
      this.fail(error);
      this.choices.set(problem, { ...setting, order: null, tile: {} });
      return false;
    }
    Object.assign(this, { problem, setting, levels });
    const name = problem.op !== "conv2d" ? "pooling" : setting.way;
    this.title.textContent = `${this.key === "a" ? "Nest A" : "Nest B"}: ${name}, ${setting.layout.toUpperCase()}`;
    this.walk = new Walk(this.nest, levels);
    this.lines = codeLines(this.nest.body);
    this.code.replaceChildren(...this.lines.map((line) => codeLine(line)));
    this.maps = this.nest.buffers.map(
      (from) => new TensorMap(from, (buffer, indices) => this.app.choose(buffer, indices)),
    );
    this.mapsNode.replaceChildren(...this.maps.map((map) => map.node));
    this.measure();
    return true;
  }

  fail(error) {
    this.error.textContent = error.message;
    this.error.hidden = false;
  }

  /** Fits pictures to the room there is. */
  measure() {
    this.cache.setup(this.levels[0]);
    const slice = this.slice();
    for (const map of this.maps) map.setup(this.problem, map.from.name === "weight" ? slice : []);
    this.showPick();
    this.draw();
    if (this.result) this.cache.drawMisses(this.result.levels[0]);
  }

  /** Which filter an untied or dense weight shows: that of what was chosen, else of what is computed. */
  slice() {
    const weight = this.nest.buffers.find((one) => one.name === "weight");
    const lead = weight ? ({ "o i": 1, "oh ow oc ic kh kw": 2 }[weight.axes.join(" ")] ?? 0) : 0;
    if (lead === 0) return [];
    const pick = this.picked();
    if (pick?.name === "weight") return pick.indices.slice(0, lead);
    if (pick?.name === "output") return lead === 1 ? [pick.indices[1]] : pick.indices.slice(2);
    const last = this.walk.trail.findLast(({ number }) => this.nest.buffers[number].name === "weight");
    return last ? indicesOf(weight, last.offset).slice(0, lead) : new Array(lead).fill(0);
  }

  /** What was chosen, in the indices of this nest's own buffers, or null where it has no such element. */
  picked() {
    const { pick } = this.app.state;
    if (!pick) return null;
    const from = this.nest.buffers.find((one) => one.name === pick.name);
    if (!from) return null;
    const indices = translated(this.problem, pick.name, pick.indices, from.shape.length);
    const fits =
      indices && indices.length === from.shape.length && indices.every((one, axis) => one < from.shape[axis]);
    return fits ? { name: pick.name, indices } : null;
  }

  showPick() {
    const pick = this.picked();
    this.met = pick && usesOf(this.problem, this.setting.way, pick.name, pick.indices);
    this.marked = new Set(this.met ? this.nest.buffers.flatMap((_, number) => this.linesMet(number)) : []);
    const hint = "Choose a weight, a pixel or an output in the maps: click, or move there with the keyboard.";
    if (!pick) this.pick.replaceChildren(el("p", { class: "reading", text: hint }));
    else this.pick.replaceChildren(...pickSentences(this, pick, this.met));
  }

  /** Names of the lines of a buffer that belong to what was chosen, as the cache's picture knows them. */
  linesMet(number) {
    const from = this.nest.buffers[number];
    const each = this.walk.caches.perLine[number];
    const met = this.met[from.name] ?? [];
    return met.map((indices) => `${number}:${Math.floor(offsetOf(from, indices) / each)}`);
  }

  draw() {
    const { walk } = this;
    const slice = this.slice();
    const resident = this.maps.map(() => []);
    const { owner, place } = walk.caches.numbers;
    for (const line of walk.caches.levels[0].cache.lines) {
      if (line < 0) continue;
      const number = owner[line];
      const each = walk.caches.perLine[number];
      const elements = this.nest.buffers[number].shape.reduce((product, one) => product * one, 1);
      resident[number].push([place[line] * each, Math.min((place[line] + 1) * each, elements)]);
    }
    const pick = this.picked();
    this.maps.forEach((map, number) => {
      const { name } = map.from;
      if (name === "weight" && map.slice.join() !== slice.join()) map.setup(this.problem, slice);
      const mine = walk.last && walk.last.from.name === name;
      map.draw({
        resident: resident[number],
        chosen: this.met?.[name],
        picked: pick?.name === name ? pick.indices : null,
        last: mine ? walk.last.offset : null,
      });
    });
    this.cache.draw(walk, this.marked);
    this.now.replaceChildren(walk.says(), el("span", { class: "minor", text: walk.soFar() }));
    showLine(this, walk.last);
  }

  running() {
    this.result = null;
    this.state.textContent = "Counting…";
    this.counts.setAttribute("aria-busy", "true");
  }

  showResult(result) {
    this.result = result;
    this.counts.removeAttribute("aria-busy");
    const judged = this.app.judge.verdict(this, result);
    this.state.replaceChildren(judged);
    const costs = costsOf(this.problem, this.setting, this.nest, result);
    const facts = costs.map(([name, , text]) => el("div", {}, el("dt", { text: name }), el("dd", { text })));
    const note = sampledNote(result);
    this.counts.replaceChildren(
      ...(note ? [note] : []),
      el("dl", { class: "facts" }, ...facts),
      ...countTables(result),
    );
    this.cache.drawMisses(result.levels[0]);
  }
}

function codeLine({ text, depth }) {
  const parts = text.split(/\b(input|weight|output|columns)\b/);
  const spans = parts.map((part) => (part in LETTERS ? el("span", { class: `word ${part}`, text: part }) : part));
  return el(
    "div",
    { class: "line", style: `--depth: ${depth}` },
    el("span", {}, ...spans),
    el("b", { class: "value" }),
  );
}

/** Marks the line of the last access, and writes the values of loops beside them. */
function showLine(panel, last) {
  panel.lines.forEach(({ step }, number) => {
    const row = panel.code.children[number];
    const current = step === last?.step;
    row.classList.toggle("current", current);
    const name = step.kind === "loop" || step.kind === "let" ? step.name : null;
    const value = name && last ? last.indices[name] : undefined;
    row.lastChild.textContent = value === undefined ? "" : String(value);
    if (current && row.offsetTop + row.offsetHeight > panel.code.scrollTop + panel.code.clientHeight) {
      panel.code.scrollTop = row.offsetTop - panel.code.clientHeight / 2;
    }
  });
}
