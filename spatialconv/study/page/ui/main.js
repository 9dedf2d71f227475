"use strict";

class App {
  constructor({ examples, presets }) {
    this.examples = examples;
    this.start = startState(examples);
    this.state = readHash(location.hash, this.start);
    this.judge = new Judge(examples);
    this.runners = { a: new Runner(), b: new Runner() };
    this.panels = { a: new Panel("a", this), b: new Panel("b", this) };
    this.layer = new LayerControls(this, examples);
    this.caches = new CacheControls(this, presets);
    this.transport = new Transport(this);
    this.views = { field: new FieldView(this), shift: new ShiftView(this), warp: new WarpView(this) };
    this.compare = el("input", {
      type: "checkbox",
      id: "compare",
      onchange: () => this.change({ compare: this.compare.checked }),
    });
    this.compared = el("section", { class: "compared card", hidden: true, "aria-label": "Comparison of both nests" });
    byId("layer").append(this.layer.node);
    byId("caches").append(this.caches.node);
    byId("nests").append(
      el(
        "div",
        { class: "check" },
        this.compare,
        el("label", { for: "compare", text: "Compare with a second nest, side by side" }),
      ),
      this.transport.node,
      el("div", { class: "panels" }, this.panels.a.node, this.panels.b.node),
      this.compared,
    );
    for (const [name, view] of Object.entries(this.views)) byId(name).append(view.node);
    byId("check").append(this.judge.node);
    for (const tab of document.querySelectorAll("[role=tab]")) this.wireTab(tab);
    addEventListener(
      "hashchange",
      () => location.hash !== writeHash(this.state) && this.load(readHash(location.hash, this.start)),
    );
    addEventListener("resize", () => this.resized());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    this.load(this.state);
  }

  load(state) {
    this.state = state;
    this.refresh(["view", "shape", "field"]);
  }

  /** New values of parts of the state; what depends on them is shown anew. */
  change(changes) {
    Object.assign(this.state, changes);
    const names = Object.keys(changes);
    const walk = ["shape", "levels", "a", "b", "compare"].some((name) => names.includes(name));
    const others = ["stack", "length", "unit", "signal", "by", "warp"].some((name) => names.includes(name));
    this.refresh([
      ...(walk ? ["shape"] : []),
      ...(others ? ["field"] : []),
      ...(names.includes("view") ? ["view"] : []),
    ]);
  }

  refresh(parts) {
    history.replaceState(null, "", writeHash(this.state));
    if (parts.includes("view")) this.showView();
    if (parts.includes("shape")) this.showWalk();
    if (parts.includes("field")) this.showSection();
  }

  changeNest(key, changes) {
    this.change({ [key]: { ...this.state[key], ...changes }, pick: changes.way ? null : this.state.pick });
  }

  useExample(number) {
    const { shape, levels, way, layout, order, tile } = structuredClone(this.examples[number]);
    this.change({ shape, levels, a: { way, layout, order, tile }, pick: null });
  }

  exampleShown() {
    const { shape, levels, a } = this.state;
    const found = this.examples.findIndex(
      (one) =>
        one.shape === shape &&
        same(one.levels, levels) &&
        same({ way: one.way, layout: one.layout, order: one.order, tile: one.tile }, a),
    );
    return found < 0 ? "" : found;
  }

  shownPanels() {
    return this.state.compare ? [this.panels.a, this.panels.b] : [this.panels.a];
  }

  showWalk() {
    this.transport.pause();
    let problem = null;
    let failure = null;
    try {
      problem = readShape(this.state.shape);
    } catch (error) {
      failure = error;
    }
    this.layer.set(this.state, problem, failure);
    this.caches.set(this.state.levels);
    this.compare.checked = this.state.compare;
    this.panels.b.node.hidden = !this.state.compare;
    byId("nests").classList.toggle("two", this.state.compare);
    this.compared.hidden = true;
    for (const runner of Object.values(this.runners)) runner.stop();
    if (!problem) return;
    for (const panel of this.shownPanels())
      if (panel.setup(problem, this.state[panel.key], this.state.levels)) panel.running();
    clearTimeout(this.later);
    // A slider that is being moved would start a count for every value it passes.
    this.later = setTimeout(() => this.count(), 120);
  }

  count() {
    const panels = this.shownPanels().filter((panel) => panel.error.hidden);
    for (const panel of panels) {
      this.runners[panel.key]
        .run(panel.nest, panel.levels)
        .then((result) => {
          panel.showResult(result);
          this.showComparison();
        })
        .catch((error) => error && panel.fail(error));
    }
  }

  showComparison() {
    const { a, b } = this.panels;
    if (!this.state.compare || !a.result || !b.result) return;
    const [first, second] = [a, b].map((panel) => costsOf(panel.problem, panel.setting, panel.nest, panel.result));
    const ratio = (one, other) => (one === 0 ? "" : `${(other / one).toPrecision(3)}×`);
    const rows = first.map(([name, value, text], number) => {
      const [, other, otherText] = second[number] ?? [name, 0, ""];
      return [name, text, otherText, ratio(value, other)];
    });
    const level = a.levels[0].name;
    this.compared.hidden = false;
    this.compared.replaceChildren(
      el("h3", { text: "A and B" }),
      el(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": "What both nests cost" },
        table("What they cost", ["", "A", "B", "B / A"], rows),
      ),
      el(
        "figure",
        {},
        el("figcaption", { text: `${level} misses by tensor, on a logarithmic axis` }),
        compareDots(a.result.levels[0], b.result.levels[0]),
        el("p", { class: "reading", text: "A is the filled dot, B the ring; each rule is ten times the one before." }),
      ),
      el("p", {
        class: "plain",
        text: "Misses are not seconds: a miss may be hidden by the next cache, by prefetching, or by other work.",
      }),
    );
  }

  choose(name, indices) {
    this.state.pick = { name, indices };
    history.replaceState(null, "", writeHash(this.state));
    for (const panel of this.shownPanels()) {
      panel.showPick();
      panel.draw();
    }
  }

  wireTab(tab) {
    tab.addEventListener("click", () => this.change({ view: tab.dataset.view }));
    tab.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      const next = VIEWS[(VIEWS.indexOf(tab.dataset.view) + by + VIEWS.length) % VIEWS.length];
      this.change({ view: next });
      document.querySelector(`[data-view=${next}]`).focus();
    });
  }

  showView() {
    for (const tab of document.querySelectorAll("[role=tab]")) {
      const shown = tab.dataset.view === this.state.view;
      tab.setAttribute("aria-selected", String(shown));
      tab.tabIndex = shown ? 0 : -1;
      byId(`view-${tab.dataset.view}`).hidden = !shown;
    }
    this.redraw();
  }

  /** The section that is shown; the others are filled when they are. */
  showSection() {
    this.views[this.state.view]?.set(this.state);
  }

  resized() {
    clearTimeout(this.sizing);
    this.sizing = setTimeout(() => this.redraw(), 100);
  }

  redraw() {
    for (const panel of this.shownPanels()) if (panel.walk) panel.measure();
    this.showSection();
  }
}

window.app = new App(JSON.parse(byId("data").textContent));
