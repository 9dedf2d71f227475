"use strict";

/** An element; `on...` properties are listeners, `text` is its text, everything else an attribute. */
function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const byId = (id) => document.getElementById(id);
const whole = (value) => Math.round(value).toLocaleString("en-US");
const total = (counts) => Object.values(counts).reduce((sum, value) => sum + value, 0);
const hex = (address) => `0x${address.toString(16)}`;

function bytes(value) {
  for (const unit of ["B", "KiB", "MiB"]) {
    if (value < 1024) return `${Number.isInteger(value) ? value : value.toFixed(1)} ${unit}`;
    value /= 1024;
  }
  return `${value.toFixed(1)} GiB`;
}

let fieldCount = 0;

/** A labelled number, told of valid changes only. */
function numberField(label, bounds, changed) {
  const id = `field-${++fieldCount}`;
  const input = el("input", {
    id,
    type: "number",
    inputmode: "numeric",
    ...bounds,
    onchange: () => input.checkValidity() && input.value !== "" && changed(Number(input.value)),
  });
  const node = el("div", { class: "field" }, el("label", { for: id, text: label }), input);
  return { node, input, set: (value) => document.activeElement !== input && (input.value = value) };
}

/** A labelled menu; options are [value, text]. */
function menuField(label, options, changed) {
  const id = `field-${++fieldCount}`;
  const select = el("select", { id, onchange: () => changed(select.value) });
  for (const [value, text] of options) select.append(el("option", { value, text }));
  const node = el("div", { class: "field" }, el("label", { for: id, text: label }), select);
  return { node, select, set: (value) => (select.value = value) };
}

/** Choices of which one holds, as radio buttons; options are [value, text]. */
function choiceField(label, options, changed) {
  const name = `field-${++fieldCount}`;
  const idOf = (value) => `${name}-${value.replaceAll(" ", "-")}`;
  const inputs = options.map(([value]) =>
    el("input", { type: "radio", name, value, id: idOf(value), onchange: () => changed(value) }),
  );
  const shown = options.map(([value, text], number) =>
    el("span", {}, inputs[number], el("label", { for: idOf(value), text })),
  );
  const node = el("fieldset", { class: "choice" }, el("legend", { text: label }), el("div", {}, ...shown));
  return { node, set: (value) => inputs.forEach((input) => (input.checked = input.value === value)) };
}

function table(caption, headings, rows) {
  const head = headings.map((text, number) => el("th", { scope: "col", class: number ? "number" : null, text }));
  const body = rows.map(([first, ...rest]) =>
    el("tr", {}, el("th", { scope: "row" }, first), ...rest.map((cell) => el("td", { class: "number" }, cell))),
  );
  return el(
    "table",
    {},
    el("caption", { text: caption }),
    el("thead", {}, el("tr", {}, ...head)),
    el("tbody", {}, ...body),
  );
}

/** A tensor's name with its letter on its colour. */
const LETTERS = { input: "x", weight: "w", output: "y", columns: "c" };
function tensorName(name) {
  return el(
    "span",
    { class: "tensor" },
    el("i", { class: `key ${name}`, "aria-hidden": "true", text: LETTERS[name] }),
    name,
  );
}

const quietMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** A colour of the style sheet, as canvases need it. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** A canvas made `width` by `height` CSS pixels, sharp on dense screens; its context draws in CSS pixels. */
function sized(canvas, width, height) {
  const ratio = Math.max(window.devicePixelRatio || 1, 1);
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return context;
}
