"use strict";
// The layer and the caches.

const NUMBERS = [
  ["side", "ih", "iw", 1, 512],
  ["channels in", "ic", null, 1, 2048],
  ["filters", "oc", null, 1, 2048],
  ["kernel", "kh", "kw", 1, 15],
  ["stride", "sh", "sw", 1, 8],
  ["padding", "ph", "pw", 0, 32],
  ["dilation", "dh", "dw", 1, 16],
  ["groups", "g", null, 1, 2048],
  ["images", "n", null, 1, 64],
];

class LayerControls {
  constructor(app, examples) {
    this.app = app;
    const texts = examples.map((example, number) => [number, example.title]);
    this.example = menuField(
      "Start from",
      [["", "your own"], ...texts],
      (number) => number !== "" && app.useExample(Number(number)),
    );
    this.text = el("input", {
      id: "shape",
      type: "text",
      spellcheck: "false",
      autocomplete: "off",
      "aria-describedby": "shape-help shape-error",
      onchange: () => app.change({ shape: this.text.value, pick: null }),
    });
    this.error = el("p", { class: "error", id: "shape-error", role: "alert", hidden: true });
    this.numbers = NUMBERS.map(([label, first, second, min, max]) =>
      numberField(label, { min, max }, (value) => this.setNumber(first, second, value)),
    );
    this.slider = el("input", {
      id: "side",
      type: "range",
      min: 4,
      max: 64,
      oninput: () => this.setNumber("ih", "iw", Number(this.slider.value)),
    });
    this.sliderText = el("output", { for: "side" });
    const help =
      "Images × channels × height × width, k=filters, kernel, stride, padding, dilation, groups; max or avg pools.";
    this.node = el(
      "div",
      {},
      this.example.node,
      el(
        "div",
        { class: "field wide" },
        el("label", { for: "shape", text: "Shape" }),
        this.text,
        el("p", { class: "minor", id: "shape-help", text: help }),
        this.error,
      ),
      el("div", { class: "field wide" }, el("label", { for: "side" }, "Side, slid: ", this.sliderText), this.slider),
      el("div", { class: "fields" }, ...this.numbers.map((field) => field.node)),
    );
  }

  setNumber(first, second, value) {
    const problem = { ...this.problem, [first]: value };
    if (second) problem[second] = value;
    this.app.change({ shape: shortShape(problem), pick: null });
  }

  set(state, problem, error) {
    if (document.activeElement !== this.text) this.text.value = state.shape;
    this.error.hidden = !error;
    this.text.setAttribute("aria-invalid", String(Boolean(error)));
    this.error.textContent = error?.message ?? "";
    this.example.set(String(this.app.exampleShown()));
    if (!problem) return;
    this.problem = problem;
    const pool = problem.op !== "conv2d";
    NUMBERS.forEach(([, name], number) => {
      this.numbers[number].set(problem[name] ?? "");
      this.numbers[number].node.hidden = pool && (name === "oc" || name === "g");
    });
    this.slider.value = problem.ih;
    this.sliderText.textContent = `${problem.ih}×${problem.iw}`;
  }
}

class CacheControls {
  constructor(app, presets) {
    this.app = app;
    this.preset = menuField(
      "Caches",
      [["", "your own"], ...presets.map(({ title }, number) => [number, title])],
      (number) => number !== "" && app.change({ levels: structuredClone(presets[Number(number)].levels) }),
    );
    this.presets = presets;
    this.rows = el("div", { class: "levels" });
    this.error = el("p", { class: "error", role: "alert", hidden: true });
    this.node = el("div", {}, this.preset.node, this.rows, this.error);
    this.fields = [];
  }

  set(levels) {
    const chosen = this.presets.findIndex((preset) => same(preset.levels, levels));
    this.preset.set(chosen < 0 ? "" : String(chosen));
    if (this.fields.length !== levels.length) this.build(levels.length);
    this.line.set(levels[0].line);
    levels.forEach((level, number) => {
      const { sets, ways, size, legend } = this.fields[number];
      sets.set(level.sets);
      ways.set(level.ways);
      legend.textContent = level.name;
      size.textContent = bytes(level.sets * level.ways * level.line);
    });
  }

  build(count) {
    this.fields = range(count).map((number) => ({
      sets: numberField("sets", { min: 1, max: 1 << 20 }, (sets) => this.changed(number, { sets })),
      ways: numberField("ways", { min: 1, max: 4096 }, (ways) => this.changed(number, { ways })),
      size: el("span", { class: "minor" }),
      legend: el("legend", {}),
    }));
    this.line = numberField("bytes of a line (all levels)", { min: 16, max: 4096 }, (line) =>
      this.changed(null, { line }),
    );
    this.rows.replaceChildren(
      this.line.node,
      ...this.fields.map(({ sets, ways, size, legend }) =>
        el("fieldset", { class: "level" }, legend, sets.node, ways.node, size),
      ),
    );
  }

  changed(number, changes) {
    const levels = this.app.state.levels.map((level, at) =>
      number === null || at === number ? { ...level, ...changes } : level,
    );
    try {
      checkLevels(levels);
      this.error.hidden = true;
      this.app.change({ levels });
    } catch (error) {
      this.error.textContent = error.message;
      this.error.hidden = false;
    }
  }
}
