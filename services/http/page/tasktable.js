// The task on the table: cards, a picture, or what a walker is told.

import { cardFace, isCard } from "./cards.js";
import { h } from "./dom.js";
import { picture, promptBlock } from "./episode.js";

/** `show(task)` lays another task on the table. */
export function taskTable(view) {
  const element = h("section", { class: "table", "aria-label": "The task", "aria-live": "polite" });
  return { element, show: (task) => element.replaceChildren(...parts(view, task).filter(Boolean)) };
}

function parts(view, task) {
  const cards = task.data.cards;
  const isHand = Array.isArray(cards) && cards.every(isCard);
  const isSeen = task.images.length > 0;
  const { target, face_cards: faces } = task.options;
  return [
    isHand && !isSeen && h("div", { class: "hand", role: "group", "aria-label": "Hand" }, cards.map((card) => cardFace(card))),
    isSeen && h("div", { class: "seen wide" }, task.images.map((key) => pictureOf(view, task, key))),
    isHand && h("p", { class: "goal" }, "Make ", h("b", {}, String(target)), ` from the four; an ace is 1, J, Q and K are ${faces === "ten" ? "10 each" : "11, 12 and 13"}.`),
    Array.isArray(task.data.instructions) && h("ol", { class: "instructions" }, task.data.instructions.map((line) => h("li", {}, line))),
    promptBlock(task.prompt),
  ];
}

/** A picture of a task that is played here. */
export function pictureOf(view, task, key) {
  const path = `v1/environments/${encodeURIComponent(task.environment)}/images`;
  const cards = task.data.cards;
  return picture({ path, body: { data: task.data, options: task.options, key } }, Array.isArray(cards) ? "The hand as the model sees it" : `Street view ${key}`, view.life.signal);
}
