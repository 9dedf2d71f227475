"use strict";
// The tensors of a nest as maps of their elements: what lies in the cache, what was touched last, what was chosen.

const MAP_TEXTS = {
  input: "a pixel shows the taps and outputs it meets",
  weight: "a weight shows where it is used",
  output: "an output shows its window and its lines",
};

class TensorMap {
  constructor(from, choose) {
    this.from = from;
    this.choose = choose;
    this.cursor = null;
    const { name } = from;
    const clickable = name in MAP_TEXTS;
    this.canvas = el("canvas", {
      tabindex: clickable ? "0" : null,
      role: clickable ? "application" : "img",
      class: "map",
      "data-map": name,
      "aria-label": clickable
        ? `Map of the ${name}; arrow keys move, Enter chooses: ${MAP_TEXTS[name]}`
        : `Map of the ${name}`,
      onclick: (event) => this.click(event),
      onkeydown: (event) => this.key(event),
      onfocus: () => this.draw(),
      onblur: () => this.draw(),
    });
    this.caption = el("figcaption", {});
    this.node = el("figure", { class: `tensor-map ${name}` }, this.caption, this.canvas);
  }

  setup(problem, slice) {
    this.slice = slice;
    this.geometry = geometryOf(this.from, problem, slice);
    const { name, shape, axes, itemsize } = this.from;
    const size = bytes(shape.reduce((product, one) => product * one, itemsize));
    const part =
      slice.length === 2 ? `, filter of position (${slice})` : slice.length === 1 ? `, filter of output ${slice}` : "";
    const small = this.geometry ? "" : ": too large to draw";
    this.caption.replaceChildren(tensorName(name), ` ${axes.join("·")} = ${shape.join("×")}, ${size}${part}${small}`);
    this.canvas.hidden = !this.geometry;
    if (!this.geometry) return;
    const room = Math.max(this.node.clientWidth || 320, 160);
    const { columns, rows } = this.geometry;
    this.scale = Math.min(Math.max(room / columns, 0.25), 24, Math.max(340 / rows, 3));
    if (this.scale > 2) this.scale = Math.floor(this.scale);
    this.context = sized(this.canvas, columns * this.scale, rows * this.scale);
    this.ground = this.drawGround();
  }

  /** All elements, pale: drawn once, since a large map has many. */
  drawGround() {
    const { geometry, scale } = this;
    const ground = document.createElement("canvas");
    const context = sized(ground, geometry.columns * scale, geometry.rows * scale);
    context.fillStyle = colour(`${this.from.name}-faint`);
    const gap = scale > 4 ? 1 : 0;
    for (let y = 0; y < geometry.rows; y++) {
      for (let x = 0; x < geometry.columns; x++) {
        if (geometry.has(x, y)) context.fillRect(x * scale, y * scale, scale - gap, scale - gap);
      }
    }
    return ground;
  }

  fill(indices, style) {
    const cell = this.geometry.cell(indices);
    if (!cell) return;
    const gap = this.scale > 4 ? 1 : 0;
    this.context.fillStyle = style;
    this.context.fillRect(cell[0] * this.scale, cell[1] * this.scale, this.scale - gap, this.scale - gap);
  }

  ring(indices, style) {
    const cell = this.geometry.cell(indices);
    if (!cell) return;
    const width = this.scale > 6 ? 2 : 1;
    const size = Math.max(this.scale, 4);
    this.context.strokeStyle = style;
    this.context.lineWidth = width;
    this.context.strokeRect(cell[0] * this.scale, cell[1] * this.scale, size - width / 2, size - width / 2);
  }

  /** `resident`: [first offset, end) of the lines in the first cache; `chosen`: lists of indices; `last`: an offset. */
  draw({ resident, chosen, picked, last } = this.shown ?? {}) {
    if (!this.geometry || !this.context) return;
    this.shown = { resident, chosen, picked, last };
    const { from, geometry, context } = this;
    const [ink, full] = [colour("ink"), colour(from.name)];
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.ground, 0, 0, geometry.columns * this.scale, geometry.rows * this.scale);
    const held = colour(`${from.name}-soft`);
    for (const [first, end] of resident ?? []) {
      for (let offset = first; offset < end; offset++) this.fill(indicesOf(from, offset), held);
    }
    for (const indices of chosen ?? []) this.fill(indices, full);
    if (picked) this.ring(picked, ink);
    if (last !== undefined && last !== null) this.fill(indicesOf(from, last), ink);
    if (this.cursor && document.activeElement === this.canvas) this.ring(this.cursor, colour("focus"));
  }

  click(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) * this.geometry.columns) / box.width);
    const y = Math.floor(((event.clientY - box.top) * this.geometry.rows) / box.height);
    const indices = this.geometry.at(x, y);
    if (!indices || !(this.from.name in MAP_TEXTS)) return;
    this.cursor = indices;
    this.choose(this.from.name, indices);
  }

  key(event) {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (by) {
      event.preventDefault();
      this.walk(by);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.cursor ??= this.geometry.at(0, 0);
      this.choose(this.from.name, this.cursor);
    }
  }

  /** The next element in a direction, over the gaps between pictures. */
  walk([across, down]) {
    if (!this.cursor) this.cursor = this.geometry.at(0, 0);
    else {
      let [x, y] = this.geometry.cell(this.cursor) ?? [-across, -down];
      for (let tries = 0; tries < 2; tries++) {
        [x, y] = [x + across, y + down];
        if (x < 0 || y < 0 || x >= this.geometry.columns || y >= this.geometry.rows) break;
        const found = this.geometry.at(x, y);
        if (found) {
          this.cursor = found;
          break;
        }
      }
    }
    this.draw();
  }
}
