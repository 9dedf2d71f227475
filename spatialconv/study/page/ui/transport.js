"use strict";
// Play, pause, step: one set of buttons for both nests.

class Transport {
  constructor(app) {
    this.app = app;
    this.playing = false;
    const button = (name, text, action) => el("button", { type: "button", "data-do": name, text, onclick: action });
    this.play = button("play", "Play", () => (this.playing ? this.pause() : this.start()));
    this.play.classList.add("main");
    this.speed = el("input", {
      id: "speed",
      type: "range",
      min: 0,
      max: 5.5,
      step: 0.5,
      value: 1,
      oninput: () => this.showSpeed(),
    });
    this.speedText = el("output", { for: "speed" });
    this.node = el(
      "div",
      { class: "transport card", role: "group", "aria-label": "Walk through the nest" },
      this.play,
      button("step", "Step", () => this.steps(1)),
      button("miss", "Next miss", () => this.nextMiss()),
      button("restart", "Restart", () => this.restart()),
      el("div", { class: "field" }, el("label", { for: "speed" }, "Speed: ", this.speedText), this.speed),
    );
    this.showSpeed();
  }

  get rate() {
    return Math.round(10 ** Number(this.speed.value));
  }

  showSpeed() {
    this.speedText.textContent = `${whole(this.rate)} accesses a second`;
    this.speed.setAttribute("aria-valuetext", this.speedText.textContent);
  }

  get walks() {
    return this.app.shownPanels().map((panel) => panel.walk);
  }

  start() {
    if (this.walks.every((walk) => walk.done)) this.restart();
    this.playing = true;
    this.play.textContent = "Pause";
    this.owed = 0;
    this.before = performance.now();
    // A sentence that changes sixty times a second helps no one who listens to it.
    for (const panel of this.app.shownPanels()) panel.now.setAttribute("aria-live", "off");
    requestAnimationFrame((now) => this.frame(now));
  }

  pause() {
    this.playing = false;
    this.play.textContent = "Play";
    for (const panel of this.app.shownPanels()) panel.now.setAttribute("aria-live", "polite");
  }

  frame(now) {
    if (!this.playing) return;
    const rest = quietMotion() ? 500 : 0;
    if (now - this.before >= rest) {
      this.owed += ((now - this.before) / 1000) * this.rate;
      this.before = now;
      const due = Math.min(Math.floor(this.owed), 40000);
      this.owed = Math.min(this.owed - due, 1);
      if (due > 0) this.steps(due);
    }
    if (this.walks.every((walk) => walk.done)) this.pause();
    requestAnimationFrame((next) => this.frame(next));
  }

  steps(count) {
    for (const walk of this.walks) for (let number = 0; number < count && walk.step(); number++);
    this.draw();
  }

  nextMiss() {
    for (const walk of this.walks) for (let number = 0; number < 1e6 && walk.step()?.hit; number++);
    this.draw();
  }

  restart() {
    for (const walk of this.walks) walk.restart();
    this.draw();
  }

  draw() {
    for (const panel of this.app.shownPanels()) panel.draw();
  }
}
