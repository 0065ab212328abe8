// How long a view lives: until the address changes. What it started ends with it.

import { ApiError } from "./api.js";

const SLOWEST_MS = 30_000;

export class Life {
  #controller = new AbortController();

  get signal() {
    return this.#controller.signal;
  }

  get isOver() {
    return this.signal.aborted;
  }

  end() {
    this.#controller.abort();
  }

  /**
   * Call `work` now, then every `everyMs` after it is done, while the page is visible, until it returns true.
   * The first failure is the caller's; later ones are told above the view, and tried again ever more slowly.
   */
  async repeat(work, everyMs) {
    if (await work()) return;
    this.#goOn(work, everyMs);
  }

  async #goOn(work, everyMs) {
    let pause = everyMs;
    for (;;) {
      await this.pause(pause);
      if (this.isOver) return;
      try {
        if (await work()) return;
        this.notice(null);
        pause = everyMs;
      } catch (error) {
        if (this.isOver) return;
        if (!(error instanceof ApiError)) throw error;
        this.notice(`${error.message} What is shown is as of ${new Date().toLocaleTimeString("en-GB")}; trying again.`);
        pause = Math.min(pause * 2, SLOWEST_MS);
      }
    }
  }

  /** Wait, but not beyond the moment in which the network is back; in a hidden page, until it is seen again. */
  async pause(ms) {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      const enough = () => { clearTimeout(timer); resolve(); };
      this.signal.addEventListener("abort", enough, { once: true });
      addEventListener("online", enough, { once: true, signal: this.signal }); // no use in waiting any longer
    });
    if (document.hidden && !this.isOver) {
      await new Promise((resolve) => {
        document.addEventListener("visibilitychange", resolve, { once: true, signal: this.signal });
        this.signal.addEventListener("abort", resolve, { once: true });
      });
    }
  }

  /** One sentence above the view; null takes it away. */
  notice(sentence) {
    if (this.isOver) return;
    const place = document.getElementById("notice");
    if (place.textContent !== (sentence ?? "")) place.textContent = sentence ?? "";
    place.hidden = !sentence;
  }
}
