// The person's own answers to a task, judged by the same verifier that judges a checkpoint.

import { post } from "./api.js";
import { rankOf, valueOf } from "./cards.js";
import { h, say } from "./dom.js";
import { statusWords, turnItem } from "./episode.js";
import { attempt, field } from "./parts.js";

/** `show(task)` begins anew with another task. */
export function personPlays(view) {
  const element = h("section", { class: "player", "aria-labelledby": "you" }, h("h2", { id: "you" }, "You"));
  return { element, show: (task) => element.replaceChildren(element.firstElementChild, ...board(view, task)) };
}

function board(view, task) {
  if (!task.state) return [h("p", { class: "soft" }, "This task cannot be judged one answer at a time; let a checkpoint play it.")];
  const turns = h("ol", { class: "turns" });
  const told = h("div", {});
  const isHand = Array.isArray(task.data.cards);
  const input = isHand
    ? h("input", { name: "formula", autocomplete: "off", spellcheck: "false", required: true, placeholder: "(7 + 5) * (9 - 7)", class: "formula" })
    : h("textarea", { name: "answer", rows: 5, required: true, spellcheck: "false" });
  const left = h("p", { class: "soft", role: "status" });
  let remaining = task.options.viter ?? 5;
  const tell = () => { left.textContent = remaining > 0 ? `${remaining} attempts left` : "No attempt left."; };
  tell();
  const button = h("button", { type: "submit", class: "main" }, "Judge");
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    const written = input.value;
    const answer = isHand ? handAnswer(task, written) : written;
    const verdict = await attempt(button, told, () => post("v1/verify", { env: task.environment, options: task.options, state: task.state, attempts_left: remaining, answer }, view.life.signal));
    if (!verdict) return;
    remaining -= 1;
    turns.append(turnItem({ ...verdict, answer: written }, turns.children.length + 1));
    say(statusWords(verdict));
    tell();
    if (verdict.terminated || verdict.truncated || remaining <= 0) {
      button.disabled = input.disabled = true;
      left.textContent = verdict.terminated ? "Solved." : "That was the last attempt.";
    } else input.select();
  } }, field(isHand ? "Formula" : "Your answer", input, isHand ? "Each card once, with + - * / and parentheses." : "As the prompt asks for it; the first position is judged."), button);
  return [form, left, told, turns];
}

/** The formula in the form that the prompt asks a model for. */
function handAnswer({ data, options }, formula) {
  const names = data.cards.map((card) => `'${rankOf(card)}'`).join(", ");
  const numbers = data.cards.map((card) => valueOf(card, options.face_cards)).join(", ");
  const equation = formula.includes("=") ? formula : `${formula}=${options.target}`;
  return `{\n  "cards": [${names}],\n  "number": [${numbers}],\n  "formula": "${equation}",\n}`;
}
