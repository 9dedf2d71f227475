"use strict";
// Caches that keep what was used last (LRU), the first asked first; stores are fetched like loads. A line is a number
// given at its first touch.

class SetAssociative {
  constructor(sets, ways) {
    Object.assign(this, { sets, ways, clock: 0, slot: 0, evicted: -1 });
    this.lines = new Int32Array(sets * ways).fill(-1);
    this.used = new Float64Array(sets * ways);
  }

  /** Whether the line was there; now it is, in `slot`, and `evicted` is the line that had to go, or -1. */
  access(line, set) {
    const { lines, used, ways } = this;
    const first = set * ways;
    let oldest = first;
    this.evicted = -1;
    for (let slot = first; slot < first + ways; slot++) {
      if (lines[slot] === line) {
        used[slot] = ++this.clock;
        this.slot = slot;
        return true;
      }
      if (used[slot] < used[oldest]) oldest = slot;
    }
    this.evicted = lines[oldest];
    lines[oldest] = line;
    used[oldest] = ++this.clock;
    this.slot = oldest;
    return false;
  }
}

/** As many lines with no sets: a list in the order of use, linked through arrays that grow with the lines. */
class FullyAssociative {
  constructor(capacity) {
    Object.assign(this, { capacity, size: 0, newest: -1, oldest: -1 });
    this.newer = new Int32Array(1024);
    this.older = new Int32Array(1024);
    this.held = new Uint8Array(1024);
  }

  access(line) {
    if (line === this.newest) return true;
    if (line >= this.held.length) this.grow(line);
    const hit = this.held[line] === 1;
    if (hit) this.unlink(line);
    this.older[line] = this.newest;
    this.newer[line] = -1;
    if (this.newest >= 0) this.newer[this.newest] = line;
    else this.oldest = line;
    this.newest = line;
    this.held[line] = 1;
    if (!hit && ++this.size > this.capacity) {
      const gone = this.oldest;
      this.unlink(gone);
      this.held[gone] = 0;
      this.size--;
    }
    return hit;
  }

  unlink(line) {
    const newer = this.newer[line];
    const older = this.older[line];
    if (newer >= 0) this.older[newer] = older;
    else this.newest = older;
    if (older >= 0) this.newer[older] = newer;
    else this.oldest = newer;
  }

  grow(line) {
    const length = Math.max(2 * this.held.length, line + 1);
    const grown = (array, larger) => (larger.set(array), larger);
    this.newer = grown(this.newer, new Int32Array(length));
    this.older = grown(this.older, new Int32Array(length));
    this.held = grown(this.held, new Uint8Array(length));
  }
}

/** Numbers for lines of buffers, in pages made when needed, since an untied layer has more lines than are touched. */
class LineNumbers {
  constructor(buffers) {
    this.pages = buffers.map(() => new Map());
    this.last = buffers.map(() => ({ number: -1, page: null }));
    this.owner = [];
    this.place = [];
    this.fresh = false;
  }

  of(buffer, line) {
    const number = Math.floor(line / 4096);
    const last = this.last[buffer];
    if (last.number !== number) {
      let page = this.pages[buffer].get(number);
      if (!page) this.pages[buffer].set(number, (page = new Int32Array(4096).fill(-1)));
      last.number = number;
      last.page = page;
    }
    const known = last.page[line - 4096 * number];
    this.fresh = known < 0;
    if (!this.fresh) return known;
    this.owner.push(buffer);
    this.place.push(line);
    return (last.page[line - 4096 * number] = this.owner.length - 1);
  }
}

/** Several levels, each asked what the one before did not have, and beside each its twin without sets. */
class Caches {
  constructor(levels, buffers) {
    this.buffers = buffers;
    this.numbers = new LineNumbers(buffers);
    this.perLine = buffers.map((one) => levels[0].line / one.itemsize);
    this.accesses = buffers.map(() => 0);
    this.levels = levels.map(({ name, sets, ways, line }) => ({
      name,
      sets,
      ways,
      line,
      cache: new SetAssociative(sets, ways),
      twin: new FullyAssociative(sets * ways),
      first: buffers.map((one) => (one.base / line) % sets),
      misses: buffers.map(() => 0),
      twinMisses: buffers.map(() => 0),
      bySet: new Float64Array(sets),
    }));
    this.firstTouches = buffers.map(() => 0);
    this.twinHit = false;
  }

  /** One access: the number of levels that did not have it. */
  touch(buffer, offset) {
    const place = Math.floor(offset / this.perLine[buffer]);
    const line = this.numbers.of(buffer, place);
    this.accesses[buffer]++;
    if (this.numbers.fresh) this.firstTouches[buffer]++;
    const { levels } = this;
    for (let depth = 0; depth < levels.length; depth++) {
      const level = levels[depth];
      const set = (level.first[buffer] + place) % level.sets;
      const twinHit = level.twin.access(line);
      if (!twinHit) level.twinMisses[buffer]++;
      if (depth === 0) this.twinHit = twinHit;
      if (level.cache.access(line, set)) return depth;
      level.misses[buffer]++;
      level.bySet[set]++;
    }
    return levels.length;
  }

  /** Counts by level and tensor. Conflict misses are what sets add; they are negative where sets happen to help. */
  counts() {
    const byName = (values) => Object.fromEntries(this.buffers.map((one, number) => [one.name, values[number]]));
    const less = (some, others) => some.map((value, number) => value - others[number]);
    return {
      accesses: byName(this.accesses),
      levels: this.levels.map((level) => ({
        name: level.name,
        line: level.line,
        misses: byName(level.misses),
        first: byName(this.firstTouches),
        capacity: byName(less(level.twinMisses, this.firstTouches)),
        conflict: byName(less(level.misses, level.twinMisses)),
        bySet: level.bySet,
      })),
    };
  }
}

const CAP = 20e6;

/** Counts of a whole nest, or of its first `cap` accesses: then `sampled` is true. */
function simulate(nest, levels, cap = CAP) {
  const total = countAccesses(nest);
  const caches = new Caches(levels, nest.buffers);
  const enough = {};
  let left = cap;
  try {
    compileNest(nest)((buffer, offset) => {
      if (left-- === 0) throw enough;
      caches.touch(buffer, offset);
    });
  } catch (reason) {
    if (reason !== enough) throw reason;
  }
  return { ...caches.counts(), total, counted: Math.min(total, cap), sampled: total > cap };
}
