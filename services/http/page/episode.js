// An episode turn by turn: what was shown, what was answered, what the verifier said. For evaluations and for play.

import { blob } from "./api.js";
import { cardFace, isCard } from "./cards.js";
import { h } from "./dom.js";
import { badge } from "./parts.js";
import { number, state } from "./words.js";

/**
 * One answer and its verdict as a list item. The words are shown as they are, whatever they hold.
 */
export function turnItem(turn, ordinal) {
  return h("li", { class: `turn ${turn.status === "correct" ? "good" : "bad"}` },
    h("div", { class: "head" }, h("span", { class: "soft" }, `answer ${ordinal}`), badge(turn.status),
      turn.recognised === false && h("span", { class: "badge plain" }, "misread"),
      turn.finish_reason === "length" && h("span", { class: "badge plain" }, "cut off"),
      h("span", { class: "soft push figure" }, `reward ${number(turn.reward)}`)),
    h("pre", { class: "answer" }, turn.answer.replace(/^\s*\n|\s+$/g, "") || "(an empty answer)"),
    turn.feedback && h("p", { class: "verdict" }, h("span", { class: "unseen" }, "The verifier: "), h("q", {}, turn.feedback)));
}

/** All turns, grouped by position where a task has several. `imagesOf(position)` gives nodes for its pictures. */
export function turnList(turns, positions = [], imagesOf = () => []) {
  const groups = [...Map.groupBy(turns, (turn) => turn.position ?? 0)];
  const isLong = groups.length > 1 || positions.length > 1;
  return groups.map(([position, own]) => h("section", { class: isLong ? "position" : null },
    isLong && h("h4", {}, `Position ${position + 1}`, positions[position]?.news && h("span", { class: "news" }, positions[position].news)),
    h("div", { class: "scene" }, imagesOf(position), h("ol", { class: "turns" }, own.map((turn, i) => turnItem(turn, i + 1))))));
}

/** What a task shows at a glance: the hand, or its name. */
export function taskGlance(item) {
  const cards = item.data?.cards;
  if (Array.isArray(cards) && cards.length > 0 && cards.every(isCard)) {
    return h("span", { class: "hand little" }, cards.map((card) => cardFace(card, true)));
  }
  return h("span", { class: "task" }, item.task ?? "");
}

/** A picture behind the token. `alt` tells what it is; a failure is told in its place. */
export function picture(request, alt, signal) {
  const image = h("img", { alt, loading: "lazy" });
  const place = h("div", { class: "picture" }, image);
  blob(request.path, { body: request.body, signal }).then((file) => {
    const url = URL.createObjectURL(file);
    image.addEventListener("load", () => { image.classList.toggle("coarse", image.naturalWidth < 200); URL.revokeObjectURL(url); }, { once: true });
    image.src = url;
  }).catch((error) => {
    if (error.name !== "AbortError") place.replaceChildren(h("p", { class: "missing" }, `No picture: ${error.message}`));
  });
  return place;
}

/** The prompt, folded where it is long. */
export function promptBlock(text, isOpen = false) {
  return text && h("details", { class: "plain prompt", open: isOpen }, h("summary", {}, "Prompt"), h("pre", {}, text));
}

/** How an episode ended, in a sentence. */
export function endWords(end) {
  if (end.error) return `It could not be judged: ${end.error}.`;
  if (end.overflowed) return `Not solved: no room was left for another answer; reward ${number(end.reward)}.`;
  return `${end.success ? "Solved" : "Not solved"}; reward ${number(end.reward)}.`;
}

export function statusWords(turn) {
  return `${state(turn.status)}: ${turn.feedback}`;
}
