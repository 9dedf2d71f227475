"use strict";
// The first cache as a grid, a column a set and a row a way, and under it the misses of the whole nest by set.

class CacheView {
  constructor() {
    this.grid = el("canvas", { role: "img", class: "cache" });
    this.bars = el("canvas", { role: "img", class: "bars" });
    this.caption = el("figcaption", {});
    this.reading = el("p", { class: "reading" });
    this.node = el("figure", { class: "cache-view" }, this.caption, this.grid, this.bars, this.reading);
  }

  setup(level) {
    this.level = level;
    const room = Math.max(this.node.clientWidth || 320, 200);
    const { sets, ways, line, name } = level;
    this.cell = Math.min(Math.max(Math.floor(room / Math.min(sets, 64)), 4), 32);
    this.across = Math.min(sets, Math.floor(room / this.cell));
    this.blocks = Math.ceil(sets / this.across);
    const rows = this.blocks * (ways + 0.5) * this.cell;
    this.tall = Math.min(rows, 900);
    this.shrink = this.tall / rows;
    this.context = sized(this.grid, this.across * this.cell, this.tall);
    const size = bytes(sets * ways * line);
    this.caption.textContent = `${name}: ${whole(sets)} sets (columns) × ${ways} ways (rows) × ${line} B = ${size}`;
  }

  /** Where a slot stands: [x, y, width, height]. */
  place(slot) {
    const { ways } = this.level;
    const set = Math.floor(slot / ways);
    const block = Math.floor(set / this.across);
    const height = this.cell * this.shrink;
    return [(set % this.across) * this.cell, (block * (ways + 0.5) + (slot % ways)) * height, this.cell, height];
  }

  /** `marked`: lines, as "number of the buffer:number of the line", that get a dot. */
  draw(walk, marked) {
    const { context, cell } = this;
    const { cache } = walk.caches.levels[0];
    const { owner, place } = walk.caches.numbers;
    const names = walk.nest.buffers.map((one) => one.name);
    const fills = names.map((name) => colour(name));
    context.clearRect(0, 0, this.grid.width, this.grid.height);
    const letters = cell >= 13 && this.shrink === 1;
    context.font = `600 ${Math.round(Math.min(cell * 0.6, 15))}px ui-monospace, monospace`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const [empty, paper] = [colour("empty"), colour("on-tensor")];
    cache.lines.forEach((line, slot) => {
      const [x, y, width, height] = this.place(slot);
      context.fillStyle = line < 0 ? empty : fills[owner[line]];
      context.fillRect(x, y, width - 1, height - (height > 3 ? 1 : 0));
      if (line < 0) return;
      if (marked.has(`${owner[line]}:${place[line]}`)) this.dot(x, y, width, height);
      if (!letters) return;
      context.fillStyle = paper;
      context.fillText(LETTERS[names[owner[line]]], x + width / 2 - 0.5, y + height / 2);
    });
    if (walk.last) {
      const [x, y, width, height] = this.place(walk.last.slot);
      context.strokeStyle = colour("ink");
      context.lineWidth = 2;
      context.setLineDash(walk.last.hit ? [] : [3, 2]);
      context.strokeRect(x, y, width - 1, height - 1);
      context.setLineDash([]);
    }
    this.grid.setAttribute("aria-label", `Cache after ${whole(walk.made)} accesses: ${this.occupancy(walk, names)}`);
  }

  dot(x, y, width, height) {
    this.context.fillStyle = colour("ink");
    const size = Math.max(Math.min(width, height) / 3, 2);
    this.context.fillRect(x + width - 1 - size, y, size, size);
  }

  occupancy(walk, names) {
    const counts = names.map(() => 0);
    for (const line of walk.caches.levels[0].cache.lines) if (line >= 0) counts[walk.caches.numbers.owner[line]]++;
    return names.map((name, number) => `${whole(counts[number])} lines of ${name}`).join(", ");
  }

  /** Misses of the whole nest by set. */
  drawMisses({ bySet, misses, conflict }) {
    const width = this.across * this.cell;
    const height = 54;
    const context = sized(this.bars, width, height);
    const most = Math.max(...bySet, 1);
    context.fillStyle = colour("bar");
    const each = width / bySet.length;
    bySet.forEach((count, set) => {
      const tall = (count / most) * (height - 2);
      context.fillRect(set * each, height - tall, Math.max(each - (each > 3 ? 1 : 0), 0.5), tall);
    });
    const sorted = [...bySet].sort((a, b) => a - b);
    const middle = sorted[Math.floor(sorted.length / 2)];
    const text = `Misses of the whole nest by set: at most ${whole(most)} in one, ${whole(middle)} in the middle one.`;
    this.bars.setAttribute("aria-label", text);
    this.reading.textContent =
      `${text} Conflicts: ${whole(total(conflict))} of ${whole(total(misses))} misses. Single tall bars are sets ` +
      "that lines fight for all the time; where even bars hide many conflicts, every set has its turn.";
  }
}
