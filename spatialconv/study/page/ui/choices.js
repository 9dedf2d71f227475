"use strict";
// Everything that is chosen of one nest: sharing or way, layout, order, tiles.

const WAY_TEXTS = [
  ["tied", "tied"],
  ["untied", "untied"],
  ["dense", "dense"],
  ["im2col", "im2col"],
];
const TILED = ["oc", "ic", "oh", "ow"];

class NestChoices {
  constructor(changed) {
    this.way = choiceField("Weights", WAY_TEXTS, (way) => changed({ way, order: null }));
    this.layout = choiceField(
      "Layout",
      [
        ["nchw", "NCHW"],
        ["nhwc", "NHWC"],
      ],
      (layout) => changed({ layout, order: null }),
    );
    this.order = new OrderField((order) => changed({ order }));
    this.tiles = TILED.map((axis) =>
      numberField(`tile of ${axis}`, { min: 0, max: 512 }, (size) =>
        changed({ tile: this.withTile(axis, size), order: null }),
      ),
    );
    const tiles = el(
      "details",
      { class: "more" },
      el("summary", { text: "Tiles (0: none)" }),
      el("div", { class: "fields" }, ...this.tiles.map((tile) => tile.node)),
    );
    this.tilesNode = tiles;
    this.node = el("div", { class: "choices" }, this.way.node, this.layout.node, this.order.node, tiles);
  }

  withTile(axis, size) {
    const tile = { ...this.setting.tile };
    if (size) tile[axis] = size;
    else delete tile[axis];
    return tile;
  }

  set(problem, setting) {
    this.setting = setting;
    const pool = problem.op !== "conv2d";
    const ordered = pool || setting.way === "tied" || setting.way === "untied";
    this.way.node.hidden = pool;
    this.way.set(setting.way);
    this.layout.set(setting.layout);
    this.order.node.hidden = !ordered;
    this.tilesNode.hidden = !ordered || pool;
    if (!pool && Object.keys(setting.tile).length) this.tilesNode.open = true;
    TILED.forEach((axis, number) => this.tiles[number].set(setting.tile[axis] ?? 0));
    if (!ordered) return;
    const tile = pool ? {} : setting.tile;
    const usual = (pool ? POOL_ORDERS : ORDERS)[setting.layout];
    const loops = orderedLoops(setting.order ?? usual, tile, pool ? POOL_LOOPS : CONV_LOOPS);
    const extents = pool ? problem : convExtents(problem);
    this.order.set(loops, (name) => !new Builder(problem, extents, tile).repeats(name));
  }
}
