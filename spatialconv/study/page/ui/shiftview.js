"use strict";
// A detector behind a pooling layer, as the signal slides along.

const SHIFTS = 16;

class ShiftView {
  constructor(app) {
    this.app = app;
    this.signal = choiceField(
      "Signal",
      Object.keys(SIGNALS).map((name) => [name, name]),
      (signal) => app.change({ signal }),
    );
    this.slider = el("input", {
      id: "by",
      type: "range",
      min: 0,
      max: SHIFTS - 1,
      oninput: () => app.change({ by: Number(this.slider.value) }),
    });
    this.text = el("output", { for: "by" });
    this.pictures = el("div", { class: "shift-pictures" });
    this.says = el("p", { class: "reading", role: "status" });
    this.node = el(
      "div",
      { class: "card" },
      this.signal.node,
      el("div", { class: "field wide" }, el("label", { for: "by" }, "Shifted by ", this.text), this.slider),
      this.pictures,
      this.says,
    );
  }

  set({ signal: name, by }) {
    const signal = SIGNALS[name];
    this.signal.set(name);
    this.slider.value = by;
    this.text.textContent = by;
    const rows = POOLINGS.map((pooling) => ({
      pooling,
      scores: range(SHIFTS).map((shift) => detectorScore(signal, shift, pooling)),
    }));
    const strips = [
      el("figure", {}, el("figcaption", { text: "the signal" }), strip(shifted(signal, by), "input")),
      ...POOLINGS.slice(1).map((pooling) =>
        el(
          "figure",
          {},
          el("figcaption", { text: `behind ${pooling}` }),
          strip(pooled(shifted(signal, by), pooling), "output"),
        ),
      ),
    ];
    const chart = el(
      "figure",
      { class: "chart" },
      el("figcaption", { text: "the detector's best match, by shift" }),
      scoreChart(rows, by),
    );
    this.pictures.replaceChildren(el("div", { class: "strips" }, ...strips), chart);
    const now = rows.map(({ pooling, scores }) => `${pooling}: ${scores[by].toFixed(3)}`).join("; ");
    const worst = rows.map(({ scores }) => 1 - Math.min(...scores));
    const [, sharp, blurred] = worst.map((loss) => `${(100 * loss).toFixed(1)} %`);
    this.says.textContent =
      `At shift ${by}: ${now}. Stride 2 keeps every second place, so an odd shift keeps other places: the match ` +
      `falls by up to ${sharp} with max pooling and ${blurred} with the blur, and not at all without stride.` +
      (worst[2] > worst[1] ? " Here the blur does not help: it helps signals with fine detail." : "");
  }
}

/** Values as bars. */
function strip(values, name) {
  const [width, height] = [360, 64];
  const each = width / values.length;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "strip" });
  picture.setAttribute("aria-label", values.map((value) => value.toFixed(2)).join(", "));
  picture.append(svg("line", { x1: 0, x2: width, y1: height - 1, y2: height - 1, class: "rule" }));
  values.forEach((value, place) => {
    const tall = (value / 3) * (height - 6);
    picture.append(
      svg("rect", {
        x: place * each + 1,
        y: height - 1 - tall,
        width: each - 2,
        height: Math.max(tall, 0),
        class: name,
      }),
    );
  });
  return picture;
}

const MARKS = ["plain", "sharp", "output"];

function scoreChart(rows, by) {
  const [width, height, left, bottom] = [420, 240, 40, 28];
  const least = Math.min(0.9, ...rows.flatMap(({ scores }) => scores)) - 0.02;
  const x = (shift) => left + (shift / (SHIFTS - 1)) * (width - left - 12);
  const y = (score) => 12 + ((1 - score) / (1 - least)) * (height - bottom - 20);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  picture.setAttribute(
    "aria-label",
    rows.map(({ pooling, scores }) => `${pooling}: lowest ${Math.min(...scores).toFixed(3)}`).join("; "),
  );
  for (const score of [1, (1 + least) / 2, least]) {
    picture.append(svg("line", { x1: left, x2: width - 12, y1: y(score), y2: y(score), class: "rule" }));
    picture.append(
      svg("text", { x: left - 6, y: y(score) + 4, class: "tick", "text-anchor": "end" }, score.toFixed(2)),
    );
  }
  picture.append(svg("line", { x1: x(by), x2: x(by), y1: 8, y2: height - bottom, class: "here" }));
  rows.forEach(({ scores }, number) => {
    const points = scores.map((score, shift) => `${x(shift)},${y(score)}`).join(" ");
    picture.append(
      svg("polyline", { points, class: `curve ${MARKS[number]}`, "stroke-dasharray": ["none", "7 4", "2 3"][number] }),
    );
    scores.forEach((score, shift) =>
      picture.append(svg("circle", { cx: x(shift), cy: y(score), r: shift === by ? 5 : 2.5, class: MARKS[number] })),
    );
  });
  range(SHIFTS)
    .filter((shift) => shift % 2 === 0)
    .forEach((shift) =>
      picture.append(
        svg("text", { x: x(shift), y: height - 8, class: "tick", "text-anchor": "middle" }, String(shift)),
      ),
    );
  const legend = el(
    "p",
    { class: "legend" },
    ...rows.map(({ pooling }, number) =>
      el(
        "span",
        {},
        el("i", { class: `key ${MARKS[number]}`, "aria-hidden": "true", text: ["—", "--", "··"][number] }),
        pooling,
      ),
    ),
  );
  return el("div", {}, picture, legend);
}
