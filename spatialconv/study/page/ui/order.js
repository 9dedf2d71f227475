"use strict";
// The loop order as a row of chips: dragged, or moved with the arrow keys, or with two buttons for the chosen one.

class OrderField {
  constructor(changed) {
    this.changed = changed;
    this.loops = [];
    this.chosen = null;
    this.row = el("ol", { class: "order", "aria-label": "Loops from the outermost to the innermost" });
    this.outwards = el("button", { type: "button", text: "← outwards", onclick: () => this.move(-1) });
    this.inwards = el("button", { type: "button", text: "inwards →", onclick: () => this.move(1) });
    this.node = el(
      "fieldset",
      { class: "choice" },
      el("legend", { text: "Loop order: drag, or choose one and use the arrow keys" }),
      this.row,
      el("div", { class: "buttons" }, this.outwards, this.inwards),
    );
  }

  set(loops, runsOnce) {
    const focused = this.row.contains(document.activeElement);
    this.loops = loops;
    if (!loops.includes(this.chosen)) this.chosen = loops.find((name) => !runsOnce(name)) ?? loops[0];
    this.row.replaceChildren(...loops.map((name) => el("li", {}, this.chip(name, runsOnce(name)))));
    if (focused) this.row.querySelector('[aria-pressed="true"]').focus();
  }

  chip(name, once) {
    const chip = el("button", {
      type: "button",
      class: once ? "once" : null,
      "data-loop": name,
      text: name,
      "aria-pressed": String(name === this.chosen),
      title: once ? "runs once" : null,
      "aria-label": `loop ${name}${once ? ", runs once" : ""}`,
      onclick: () => this.choose(name),
      onkeydown: (event) => {
        const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
        if (!by) return;
        event.preventDefault();
        this.choose(name);
        this.move(by);
      },
      onpointerdown: (event) => this.drag(event, name),
    });
    return chip;
  }

  choose(name) {
    this.chosen = name;
    for (const chip of this.row.querySelectorAll("button"))
      chip.setAttribute("aria-pressed", String(chip.dataset.loop === name));
  }

  move(by) {
    const from = this.loops.indexOf(this.chosen);
    this.place(this.chosen, from + by);
  }

  place(name, to) {
    const loops = this.loops.filter((one) => one !== name);
    if (to < 0 || to > loops.length) return;
    loops.splice(to, 0, name);
    if (loops.join() !== this.loops.join()) this.changed(loops.join(" "));
  }

  drag(event, name) {
    const chip = event.currentTarget;
    const start = [event.clientX, event.clientY];
    let moved = false;
    const move = (next) => {
      moved ||= Math.hypot(next.clientX - start[0], next.clientY - start[1]) > 6;
      if (moved) chip.style.transform = `translate(${next.clientX - start[0]}px, ${next.clientY - start[1]}px)`;
    };
    const up = (next) => {
      chip.removeEventListener("pointermove", move);
      chip.style.transform = "";
      if (!moved) return;
      this.choose(name);
      this.place(name, this.nearest(name, next.clientX, next.clientY));
    };
    chip.setPointerCapture(event.pointerId);
    chip.addEventListener("pointermove", move);
    chip.addEventListener("pointerup", up, { once: true });
    chip.addEventListener("pointercancel", () => chip.removeEventListener("pointermove", move), { once: true });
  }

  /** The position among the others at which a chip dropped there belongs. */
  nearest(name, x, y) {
    const others = [...this.row.querySelectorAll("button")].filter((chip) => chip.dataset.loop !== name);
    const boxes = others.map((chip) => chip.getBoundingClientRect());
    const after = boxes.findIndex((box) => y < box.bottom && x < box.left + box.width / 2 && y > box.top - box.height);
    return after < 0 ? boxes.length : after;
  }
}
