"use strict";
// The simulator in a thread of its own, made from the text of the core script, so that the page stays one file.

class Runner {
  constructor() {
    this.waiting = new Map();
    this.sent = 0;
  }

  start() {
    const answer = `onmessage = ({ data: { id, nest, levels, cap } }) => {
      try { postMessage({ id, result: simulate(nest, levels, cap) }); }
      catch (error) { postMessage({ id, error: error.message }); }
    };`;
    const url = URL.createObjectURL(new Blob([byId("core").textContent, answer], { type: "text/javascript" }));
    this.worker = new Worker(url);
    URL.revokeObjectURL(url);
    this.worker.onmessage = ({ data }) => {
      const { done, failed } = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (data.error) failed(new Error(data.error));
      else done(data.result);
    };
  }

  /** Counts of a nest. Rejected with null when `stop` was called before they were there. */
  run(nest, levels, cap = CAP) {
    if (!this.worker) this.start();
    const id = ++this.sent;
    this.worker.postMessage({ id, nest, levels, cap });
    return new Promise((done, failed) => this.waiting.set(id, { done, failed }));
  }

  /** Ends what runs: its answer is to an old question. */
  stop() {
    if (this.waiting.size === 0) return;
    this.worker.terminate();
    this.worker = null;
    for (const { failed } of this.waiting.values()) failed(null);
    this.waiting.clear();
  }
}
