"use strict";
// One nest on its way: the walk, its caches, and what the last access did.

const TRAIL = 24;

class Walk {
  constructor(nest, levels) {
    Object.assign(this, { nest, levels });
    this.restart();
  }

  restart() {
    this.caches = new Caches(this.levels, this.nest.buffers);
    this.steps = walkNest(this.nest);
    this.made = 0;
    this.done = false;
    this.last = null;
    this.trail = [];
  }

  /** The next access, or null at the end. */
  step() {
    const { value, done } = this.steps.next();
    if (done) {
      this.done = true;
      return null;
    }
    const { step, touch, number, offset, indices } = value;
    const depth = this.caches.touch(number, offset);
    const { cache } = this.caches.levels[0];
    const hit = depth === 0;
    const kind = hit
      ? "hit"
      : this.caches.numbers.fresh
        ? "first touch"
        : this.caches.twinHit
          ? "conflict"
          : "capacity";
    this.made++;
    const from = this.nest.buffers[number];
    this.last = {
      step,
      from,
      offset,
      depth,
      kind,
      hit,
      indices,
      store: touch.store,
      slot: cache.slot,
      evicted: hit || cache.evicted < 0 ? null : this.nest.buffers[this.caches.numbers.owner[cache.evicted]],
    };
    this.trail.push({ number, offset });
    if (this.trail.length > TRAIL) this.trail.shift();
    return this.last;
  }

  /** What the last access did, as a sentence. */
  says() {
    const { last } = this;
    if (!last) return "Nothing touched yet. Press Step or Play.";
    const { from, offset, depth, kind, hit, store, slot, evicted } = last;
    const place = `${from.name}[${indicesOf(from, offset).join(", ")}]`;
    const { ways } = this.levels[0];
    const where = `set ${Math.floor(slot / ways)}, way ${slot % ways}`;
    const found = hit
      ? "hit"
      : `miss (${kind})${depth < this.levels.length ? `, found in ${this.levels[depth].name}` : ", from memory"}`;
    const gone = evicted ? `; a line of ${evicted.name} had to go` : "";
    const end = this.done ? " The nest is finished." : "";
    const address = hex(from.base + offset * from.itemsize);
    return `${whole(this.made)}: ${store ? "store" : "load"} ${place} at ${address}: ${found}, ${where}${gone}.${end}`;
  }
  /** Hits and misses of the first cache up to here, by tensor. */
  soFar() {
    const { accesses, levels } = this.caches;
    const [{ name, misses }] = levels;
    const missed = total(misses);
    const each = this.nest.buffers.map((one, number) => `${one.name} ${whole(misses[number])}`);
    return `${name} so far: hits ${whole(total(accesses) - missed)}, misses ${whole(missed)} (${each.join(", ")}).`;
  }
}
