// Small parts that several views share: badges, progress, empty states, failures, dialogs, fields.

import { tokenAsked } from "./api.js";
import { h } from "./dom.js";
import { ago, moment, state } from "./words.js";

const GOOD = new Set(["completed", "finished", "correct", "once", "revised"]);
const BAD = new Set(["failed", "unsolved", "interrupted", "timeout", "crashed"]);

export function badge(word, text = state(word)) {
  const tone = word === "running" || word === "in_progress" ? "live" : GOOD.has(word) ? "good" : BAD.has(word) ? "bad" : "plain";
  return h("span", { class: `badge ${tone}` }, text);
}

/** How far something is, for eyes and ears. */
export function progress(done, total, label) {
  const bar = h("progress", { max: Math.max(total, 1), value: done, "aria-label": label });
  bar.value = done;
  return h("span", { class: "progress" }, bar, h("span", { class: "figure" }, `${done.toLocaleString("en")} / ${total.toLocaleString("en")}`));
}

export function time(seconds) {
  return seconds ? h("time", { datetime: new Date(seconds * 1000).toISOString(), title: moment(seconds) }, ago(seconds)) : "–";
}

export function digest(text) {
  return h("code", { class: "digest", title: text }, String(text).slice(0, 12));
}

/** Nothing is here yet: what that means, and the command that changes it. */
export function empty(sentence, ...commands) {
  return h("div", { class: "empty" }, h("p", {}, sentence), commands.map((command) => h("pre", { class: "command", tabindex: "0" }, command)));
}

/** What went wrong, and the one thing to do about it. */
export function failure(error, again) {
  const advice = {
    0: "Nothing is lost: training and evaluations go on without this page.",
    401: "Give it one to go on.",
    403: "Ask whoever runs the service for a token with that scope.",
    404: "It may have been removed, or the service may be older than this address.",
  }[error.status] ?? "";
  const isOfToken = error.status === 401 || error.status === 403;
  return h("section", { class: "empty", role: "alert" },
    h("h1", {}, isOfToken ? "Not allowed" : error.status === 0 ? "No connection" : error.status === 404 ? "Not found" : "That did not work"),
    h("p", {}, sentence(error.message)), advice && h("p", { class: "soft" }, advice),
    h("div", { class: "actions" },
      isOfToken && h("button", { type: "button", class: "main", onclick: async () => (await tokenAsked("")) && again() }, "Use another token"),
      h("button", { type: "button", onclick: again }, "Try again")));
}

/** With a capital and a full stop, as one reads it. */
export function sentence(text) {
  const words = String(text).trim();
  return words && `${words[0].toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`;
}

/** Run `work` from a button or a form; what it refuses is told in `place`. */
export async function attempt(button, place, work) {
  button.disabled = true;
  place.replaceChildren();
  try {
    return await work();
  } catch (error) {
    if (error.name !== "AbortError") place.replaceChildren(h("p", { class: "problem", role: "alert" }, sentence(error.message)));
    return undefined;
  } finally {
    button.disabled = false;
  }
}

/** A modal dialog around `build(close)`. Escape closes it; the focus goes back where it was. */
export function dialog(title, build) {
  const before = document.activeElement;
  const element = h("dialog", { "aria-label": title });
  const close = () => element.close();
  element.append(h("h2", {}, title), ...[build(close)].flat().filter(Boolean));
  element.addEventListener("close", () => { element.remove(); before?.focus?.(); });
  document.body.append(element);
  element.showModal();
  return element;
}

/** Ask before doing what cannot be undone. */
export function confirm(title, words, verb, work) {
  dialog(title, (close) => {
    const told = h("div", {});
    const button = h("button", { type: "button", class: "danger", onclick: async () => {
      const isDone = await attempt(button, told, async () => { await work(); return true; });
      if (isDone) close();
    } }, verb);
    return [h("p", {}, words), told,
      h("div", { class: "actions" }, button, h("button", { type: "button", autofocus: true, onclick: close }, "Keep it"))];
  });
}

let fields = 0;

/** A label over its control, and a hint below. */
export function field(label, control, hint) {
  control.id ||= `field-${++fields}`;
  if (hint) control.setAttribute("aria-describedby", `${control.id}-hint`);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control,
    hint && h("p", { class: "hint", id: `${control.id}-hint` }, hint));
}

export function select(options, chosen, onchange) {
  return h("select", { onchange: onchange && ((event) => onchange(event.target.value)) },
    options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
}

/** A choice of a few, as radio buttons in a row. */
export function choice(legend, options, chosen, onchange) {
  const name = `choice-${++fields}`;
  return h("fieldset", { class: "choice" }, h("legend", {}, legend), h("div", { class: "segments" }, options.map(([value, text]) =>
    h("label", {}, h("input", { type: "radio", name, value, checked: value === chosen, "data-key": `${legend} ${value}`, onchange: () => onchange(value) }), h("span", {}, text)))));
}

/** A table that scrolls within itself where it is too wide. `rows` are lists of cells; the first heads its row. */
export function table(caption, heads, rows) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, h("table", {},
    h("caption", { class: "unseen" }, caption),
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col", class: head.isNumber ? "n" : null }, head.text ?? head)))),
    h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, i) =>
      h(i === 0 ? "th" : "td", { scope: i === 0 ? "row" : null, class: heads[i]?.isNumber ? "n" : null }, cell)))))));
}
