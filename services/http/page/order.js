// The form that orders an evaluation of a checkpoint.

import { get, post } from "./api.js";
import { h } from "./dom.js";
import { attempt, dialog, field } from "./parts.js";

/** Ask what to play, order it, and go there. */
export async function orderEvaluation(checkpoint, life) {
  dialog("Evaluate", (close) => {
    const suites = h("fieldset", { class: "suites" }, h("legend", {}, "Suites"), h("p", { class: "soft" }, "…"));
    const told = h("div", {});
    const n = number("n", 256, 1, 2000, 1);
    const viter = number("viter", 5, 1, 50, 1);
    const temperature = number("temperature", 1, 0, 5, "any");
    const key = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16)).join("-"); // sent twice, it orders once
    const form = h("form", { onsubmit: async (event) => {
      event.preventDefault();
      const chosen = [...suites.querySelectorAll("input:checked")].map((box) => box.value);
      const made = await attempt(event.submitter, told, () => post("v1/evaluations", {
        checkpoint, suites: chosen, n: n.valueAsNumber, viter: viter.valueAsNumber, decoding: { temperature: temperature.valueAsNumber },
      }, life.signal, { "Idempotency-Key": key }));
      if (!made) return;
      close();
      location.hash = `#/evaluation/${encodeURIComponent(made.id)}`;
    } },
      h("p", {}, h("code", {}, checkpoint)),
      suites,
      h("div", { class: "grid3" }, field("Tasks per suite", n), field("Attempts", viter), field("Temperature", temperature, "0 is greedy")),
      told,
      h("div", { class: "actions" }, h("button", { type: "submit", class: "main" }, "Order it"), h("button", { type: "button", onclick: close }, "Cancel")));
    fill(suites, life);
    return form;
  });
}

function number(name, value, min, max, step) {
  return h("input", { type: "number", name, value, min, max, step, required: true });
}

/** Suites by environment. None chosen means the first ID and OOD suite of what the checkpoint trained on. */
async function fill(place, life) {
  try {
    const { data } = await get("v1/suites", life.signal);
    const groups = [...Map.groupBy(data, (suite) => suite.environment)];
    place.replaceChildren(h("legend", {}, "Suites"),
      h("p", { class: "hint" }, "None ticked: the first ID and the first OOD suite of what it was trained on."),
      ...groups.map(([environment, suites]) => h("details", { class: "plain" }, h("summary", {}, environment),
        h("div", { class: "checks" }, suites.map((suite) => h("label", { class: "check" },
          h("input", { type: "checkbox", name: "suite", value: suite.name }), suite.name.slice(environment.length + 1),
          h("span", { class: "soft" }, ` ${suite.kind.toUpperCase()}`)))))));
  } catch (error) {
    place.replaceChildren(h("legend", {}, "Suites"), h("p", { class: "problem" }, error.message));
  }
}
