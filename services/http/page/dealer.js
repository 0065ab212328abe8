// What is dealt, and under which rule: the form at the head of Play.

import { isCard } from "./cards.js";
import { h } from "./dom.js";
import { choice, field, select } from "./parts.js";

const BETWEEN = /[\s,;\-[\]'"]+/;

/** Changing the rule deals the same seed again under it. */
export function dealer(view) {
  const seed = h("input", { type: "number", name: "seed", min: 0, max: 2 ** 53 - 1, value: view.seed, required: true });
  const button = h("button", { type: "submit", class: "main" }, "Deal");
  const rule = h("div", { class: "rule" });
  const again = () => view.deal(button);
  const fill = () => rule.replaceChildren(...(view.environment === "general_points" ? cardRule(view, again) : []), look(view, again), attempts(view, again));
  fill();
  const form = h("form", { class: "dealer", onsubmit: (event) => {
    event.preventDefault();
    view.seed = seed.valueAsNumber;
    again().then(() => { seed.value = view.seed + 1; });
  } },
    field("Task", select(view.names.map((name) => [name, name.replaceAll("_", " ")]), view.environment, (name) => { view.environment = name; fill(); again(); })),
    field("Seed", seed), button);
  return { element: h("section", { class: "dealing" }, form, rule), button };
}

function cardRule(view, again) {
  const target = h("input", { type: "number", name: "target", value: view.options.target, min: -1_000_000, max: 1_000_000, required: true,
    onchange: () => { if (target.reportValidity()) { view.options.target = target.valueAsNumber; again(); } } });
  return [
    field("Target", target),
    choice("J, Q, K count", [["ten", "10 each"], ["rank", "11, 12, 13"]], view.options.face_cards, (word) => { view.options.face_cards = word; again(); }),
    typed(view),
  ];
}

function look(view, again) {
  return choice("Shown as", [["language", "text"], ["vision", "picture"]], view.options.modality, (word) => { view.options.modality = word; again(); });
}

function attempts(view, again) {
  const input = h("input", { type: "number", name: "attempts", value: view.viter, min: 1, max: 50, required: true,
    onchange: () => { if (input.reportValidity()) { view.viter = input.valueAsNumber; again(); } } });
  return field("Attempts", input);
}

/** A hand of the person's own: "C7 CK HT CA", or ranks alone. */
function typed(view) {
  const input = h("input", { name: "hand", autocomplete: "off", spellcheck: "false", placeholder: "C7 CK HT CA", size: 14 });
  const put = () => {
    const cards = cardsOf(input.value);
    input.setCustomValidity(cards ? "" : "Four cards, suit then rank: S, H, D or C, then A, 2-9, T, J, Q or K. Ranks alone will do: 7 K 7 A.");
    if (input.reportValidity() && cards) view.put(cards);
  };
  input.addEventListener("input", () => input.setCustomValidity(""));
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    put();
  });
  return h("div", { class: "typed" }, field("Or type a hand", input), h("button", { type: "button", onclick: put }, "Use it"));
}

/** "7 k 10 a" or "C7 CK HT CA" -> four cards, or null. */
export function cardsOf(text) {
  const words = text.toUpperCase().replaceAll("10", "T").split(BETWEEN).filter(Boolean);
  const cards = words.map((word, i) => (word.length === 1 ? "SHDC"[i % 4] + word : word));
  return cards.length === 4 && cards.every(isCard) ? cards : null;
}
