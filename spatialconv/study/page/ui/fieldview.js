"use strict";
// The receptive field of a stack of layers, drawn along one axis.

const LAYER_NUMBERS = [
  ["kernel", 1, 15],
  ["stride", 1, 8],
  ["dilation", 1, 16],
  ["padding", 0, 32],
];

class FieldView {
  constructor(app) {
    this.app = app;
    this.layers = el("ol", { class: "stack" });
    this.length = numberField("input length", { min: 1, max: 200 }, (length) => app.change({ length }));
    this.unit = el("input", {
      id: "unit",
      type: "range",
      min: 0,
      oninput: () => app.change({ unit: Number(this.unit.value) }),
    });
    this.unitText = el("output", { for: "unit" });
    this.add = el("button", {
      type: "button",
      text: "Add a layer",
      onclick: () => app.change({ stack: [...app.state.stack, { kernel: 3, stride: 1, dilation: 1, padding: 1 }] }),
    });
    this.picture = el("div", {
      class: "scroll",
      tabindex: "0",
      role: "region",
      "aria-label": "Receptive field picture",
    });
    this.says = el("p", { class: "reading", role: "status" });
    this.counts = el("div", {
      class: "scroll",
      tabindex: "0",
      role: "region",
      "aria-label": "Receptive field of each layer",
    });
    this.node = el(
      "div",
      { class: "card" },
      this.layers,
      el("div", { class: "buttons" }, this.add),
      el("div", { class: "fields" }, this.length.node),
      el(
        "div",
        { class: "field wide" },
        el("label", { for: "unit" }, "Unit of the last layer: ", this.unitText),
        this.unit,
      ),
      this.picture,
      this.says,
      this.counts,
    );
  }

  set({ stack, length, unit }) {
    if (this.layers.children.length !== stack.length) this.build(stack);
    stack.forEach((layer, number) => LAYER_NUMBERS.forEach(([name], at) => this.fields[number][at].set(layer[name])));
    this.length.set(length);
    const lengths = stackLengths(stack, length);
    if (lengths.some((one) => one < 1)) {
      this.says.textContent = "A window does not fit any more: make the input longer or the padding wider.";
      this.picture.replaceChildren();
      this.counts.replaceChildren();
      return;
    }
    const chosen = Math.min(unit, lengths.at(-1) - 1);
    this.unit.max = lengths.at(-1) - 1;
    this.unit.value = chosen;
    this.unitText.textContent = `${chosen} of ${lengths.at(-1)}`;
    const reached = reachedUnits(stack, length, chosen);
    const fields = receptiveFields(stack);
    this.picture.replaceChildren(this.draw(lengths, reached));
    const { size, jump, start } = fields.at(-1);
    const from = start + chosen * jump;
    const inside = Math.min(from + size, length) - Math.max(from, 0);
    const holes = Math.max(inside, 0) - reached[0].length;
    const beyond =
      from < 0 || from + size > length
        ? ` It reaches from ${from} to ${from + size - 1}: what lies outside is padding.`
        : "";
    this.says.textContent =
      `Unit ${chosen} of the last layer sees ${whole(reached[0].length)} input units ` +
      `(field of ${size}${holes ? `, ${holes} inside never read: holes of dilation or stride` : ""}); ` +
      `everything else can change without it noticing.${beyond}`;
    const rows = fields.map((field, number) => [
      `layer ${number + 1}`,
      whole(lengths[number + 1]),
      whole(field.size),
      whole(field.jump),
      String(field.start),
    ]);
    this.counts.replaceChildren(
      table("Each layer, in units of the input", ["layer", "units", "field", "jump", "first unit starts at"], rows),
    );
  }

  build(stack) {
    this.fields = [];
    this.layers.replaceChildren(
      ...stack.map((_, number) => {
        const fields = LAYER_NUMBERS.map(([name, min, max]) =>
          numberField(name, { min, max }, (value) => this.changed(number, { [name]: value })),
        );
        this.fields.push(fields);
        const remove = el("button", {
          type: "button",
          text: "Remove",
          "aria-label": `Remove layer ${number + 1}`,
          disabled: stack.length === 1,
          onclick: () => this.app.change({ stack: this.app.state.stack.filter((_, at) => at !== number) }),
        });
        return el(
          "li",
          {},
          el(
            "fieldset",
            { class: "level" },
            el("legend", { text: `Layer ${number + 1}` }),
            ...fields.map((field) => field.node),
            remove,
          ),
        );
      }),
    );
  }

  changed(number, changes) {
    this.app.change({
      stack: this.app.state.stack.map((layer, at) => (at === number ? { ...layer, ...changes } : layer)),
    });
  }

  /** Rows of dots, the input at the bottom; each unit stands above the middle of its field. */
  draw(lengths, reached) {
    const { stack } = this.app.state;
    const each = Math.max(14, Math.min(26, Math.floor(980 / lengths[0])));
    const [width, row] = [Math.max(lengths[0] * each, 200), 58];
    const height = lengths.length * row;
    const centres = [(place) => (place + 0.5) * each];
    receptiveFields(stack).forEach(({ size, jump, start }) =>
      centres.push((place) => (start + place * jump + size / 2) * each),
    );
    const y = (number) => height - number * row - 26;
    const picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
    picture.setAttribute(
      "aria-label",
      `Units reached, from the input up: ${reached.map((units) => units.length).join(", ")}`,
    );
    for (let number = lengths.length - 1; number > 0; number--) {
      const { kernel, stride, dilation, padding } = stack[number - 1];
      for (const unit of reached[number]) {
        for (let tap = 0; tap < kernel; tap++) {
          const below = unit * stride + tap * dilation - padding;
          if (below < 0 || below >= lengths[number - 1]) continue;
          picture.append(
            svg("line", {
              x1: centres[number](unit),
              y1: y(number),
              x2: centres[number - 1](below),
              y2: y(number - 1),
              class: "wire",
            }),
          );
        }
      }
    }
    lengths.forEach((count, number) => {
      const held = new Set(reached[number]);
      const name = number === 0 ? "input" : number === lengths.length - 1 ? "output" : "middle";
      for (let place = 0; place < count; place++) {
        const seen = held.has(place);
        picture.append(
          svg("circle", {
            cx: centres[number](place),
            cy: y(number),
            r: seen ? 6 : 3.5,
            class: seen ? `unit ${name}` : "unit",
          }),
        );
      }
      picture.append(
        svg("text", { x: 2, y: y(number) - 14, class: "tick" }, number === 0 ? "input" : `layer ${number}`),
      );
    });
    return picture;
  }
}
