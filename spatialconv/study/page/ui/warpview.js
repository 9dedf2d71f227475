"use strict";
// Which sectors a warp's 32 lanes ask for, drawn as lanes by sectors.

class WarpView {
  constructor(app) {
    this.app = app;
    const change = (changes) => app.change({ warp: { ...app.state.warp, ...changes } });
    this.shape = el("input", {
      id: "warp-shape",
      type: "text",
      spellcheck: "false",
      autocomplete: "off",
      onchange: () => this.reshape(change),
    });
    this.error = el("p", { class: "error", role: "alert", hidden: true });
    this.tensor = choiceField(
      "Loads of",
      [
        ["input", "input"],
        ["weight", "weight"],
      ],
      (tensor) => change({ tensor }),
    );
    this.lane = choiceField(
      "A lane is",
      [
        ["pixel", "an output pixel"],
        ["channel", "an input channel"],
        ["filter", "a filter"],
      ],
      (lane) => change({ lane, at: 0 }),
    );
    this.layout = choiceField(
      "Input layout",
      [
        ["nchw", "NCHW"],
        ["nhwc", "NHWC"],
      ],
      (layout) => change({ layout }),
    );
    this.weights = menuField(
      "Weight layout (p: position)",
      WEIGHT_LAYOUTS.map((name) => [name, name]),
      (weights) => change({ weights }),
    );
    this.at = el("input", {
      id: "request",
      type: "range",
      min: 0,
      oninput: () => change({ at: Number(this.at.value) }),
    });
    this.atText = el("output", { for: "request" });
    this.canvas = el("canvas", { role: "img", class: "warp" });
    this.says = el("p", { class: "reading", role: "status" });
    this.node = el(
      "div",
      { class: "card" },
      el("div", { class: "field wide" }, el("label", { for: "warp-shape", text: "Shape" }), this.shape, this.error),
      el("div", { class: "choices" }, this.tensor.node, this.lane.node, this.layout.node, this.weights.node),
      el("div", { class: "field wide" }, el("label", { for: "request" }, "Load instruction ", this.atText), this.at),
      this.says,
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Lanes by sectors" }, this.canvas),
    );
    this.known = {};
  }

  reshape(change) {
    try {
      const problem = readShape(this.shape.value);
      if (problem.op !== "conv2d" || problem.g > 1)
        throw new Error("shape: expected a convolution without groups here");
      this.error.hidden = true;
      change({ shape: this.shape.value, at: 0 });
    } catch (error) {
      this.error.textContent = error.message;
      this.error.hidden = false;
    }
  }

  set({ warp }) {
    if (document.activeElement !== this.shape) this.shape.value = warp.shape;
    for (const name of ["tensor", "lane", "layout", "weights"]) this[name].set(warp[name]);
    this.layout.node.hidden = warp.tensor !== "input";
    this.weights.node.hidden = warp.tensor !== "weight";
    const problem = readShape(warp.shape);
    const key = [warp.shape, warp.tensor, warp.layout, warp.weights, warp.lane].join();
    if (this.known.key !== key) {
      const { requests } = warpRequests(problem, warp.lane, 2000);
      const loading = requests.filter((one) => laneAddresses(problem, warp, one).some((address) => address !== null));
      this.known = { key, requests: loading, summary: warpSummary(problem, warp) };
    }
    const { requests, summary } = this.known;
    const at = Math.min(warp.at, requests.length - 1);
    this.at.max = requests.length - 1;
    this.at.value = at;
    const { pixel, channel, filter, kh, kw } = requests[at];
    const first = `first pixel ${pixel}, channel ${channel}, filter ${filter}, tap (${kh}, ${kw})`;
    this.atText.textContent = `${whole(at + 1)} of ${whole(requests.length)} shown: ${first}`;
    const addresses = laneAddresses(problem, warp, requests[at]);
    const sectors = sectorsOf(addresses);
    const { examined, total: all } = summary;
    const part =
      examined < all ? ` (${whole(examined)} of ${whole(all)} loads, evenly spaced)` : ` (all ${whole(all)} loads)`;
    this.says.textContent =
      `This load fetches ${sectors.length} sectors of ${SECTOR} B. ` +
      `On average ${summary.sectors.toFixed(2)} sectors a load, ` +
      `${(100 * summary.useful).toFixed(0)} % of the bytes fetched are different bytes that some lane ` +
      `asked for${part}. A column is a sector, a row a lane: ` +
      "a steep diagonal wastes, a few full columns do not.";
    this.draw(addresses, sectors);
  }

  draw(addresses, sectors) {
    const [left, top, tall] = [34, 8, 9];
    const room = Math.max((this.node.clientWidth || 360) - 60 - left, 240);
    const wide = Math.max(7, Math.min(26, Math.floor(room / Math.max(sectors.length, 8))));
    const context = sized(this.canvas, left + Math.max(sectors.length, 1) * wide + 8, top + LANES * tall + 26);
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = colour("muted");
    for (const lane of [0, 8, 16, 24, 31]) context.fillText(String(lane), 8, top + lane * tall + tall);
    context.fillText(`${sectors.length} sectors`, left, top + LANES * tall + 18);
    addresses.forEach((address, lane) => {
      sectors.forEach((_, column) => {
        context.fillStyle = colour("empty");
        context.fillRect(left + column * wide, top + lane * tall, wide - 1, tall - 1);
      });
      if (address === null) return;
      const column = sectors.indexOf(Math.floor(address / SECTOR));
      context.fillStyle = colour(this.app.state.warp.tensor);
      context.fillRect(left + column * wide, top + lane * tall, wide - 1, tall - 1);
    });
    this.canvas.setAttribute(
      "aria-label",
      `${addresses.filter((one) => one !== null).length} lanes ask for ${sectors.length} sectors`,
    );
  }
}
