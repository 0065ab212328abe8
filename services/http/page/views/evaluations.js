// Evaluations, newest first, with progress; choose two or more to see them side by side.

import { list, withQuery } from "../api.js";
import { h, put, refill } from "../dom.js";
import { badge, empty, progress, select, time } from "../parts.js";
import { headline, rateWords } from "../words.js";

const REFRESH_MS = 2500;
const PAGE = 60;
const STATES = ["queued", "in_progress", "completed", "failed", "canceled"];

export async function show(place, { query, life }) {
  const filters = { checkpoint: query.get("checkpoint"), run: query.get("run"), status: query.get("status") };
  const view = { filters, life, most: PAGE, chosen: new Set() };
  const body = h("div", {});
  view.compare = h("button", { type: "button", class: "main", disabled: true, onclick: () => {
    location.hash = `#/compare?ids=${[...view.chosen].map(encodeURIComponent).join(",")}`;
  } }, "Compare");
  put(place,
    h("div", { class: "head" }, h("h1", {}, "Evaluations"), h("div", { class: "push controls" },
      h("label", {}, h("span", { class: "unseen" }, "Status"), select([["", "any status"], ...STATES.map((word) => [word, word.replace("_", " ")])],
        filters.status ?? "", (status) => { location.hash = withQuery("#/evaluations", { ...filters, status }); })),
      view.compare)),
    (filters.checkpoint || filters.run) && h("p", { class: "soft" }, `of ${filters.checkpoint ?? filters.run} · `, h("a", { href: "#/evaluations" }, "show all")),
    body);
  await life.repeat(() => refresh(view, body), REFRESH_MS);
}

async function refresh(view, body) {
  const { rows, hasMore } = await list(withQuery("v1/evaluations", view.filters), { most: view.most, signal: view.life.signal });
  refill(body, [rows.map((row) => ({ ...row, order: undefined })), hasMore], () => rows.length === 0
    ? empty("No evaluation here yet. Order one under Checkpoints, or with", "viter eval RUN@latest --suite general_points/ood-rule --n 200")
    : [h("ul", { class: "list" }, rows.map((row) => line(view, row))),
       hasMore && h("p", {}, h("button", { type: "button", "data-key": "more", onclick: () => { view.most += PAGE; refresh(view, body); } }, "Show older ones"))]);
}

function line(view, evaluation) {
  const { id, counts } = evaluation;
  const isRunning = evaluation.status === "queued" || evaluation.status === "in_progress";
  const box = h("input", { type: "checkbox", "aria-label": `Compare ${evaluation.model}, ${id}`, checked: view.chosen.has(id), "data-key": `box ${id}`,
    disabled: !evaluation.results, onchange: () => {
      if (box.checked) view.chosen.add(id);
      else view.chosen.delete(id);
      view.compare.disabled = view.chosen.size < 2;
      view.compare.textContent = view.chosen.size > 1 ? `Compare ${view.chosen.size}` : "Compare";
    } });
  return h("li", { class: "evaluation" },
    h("div", { class: "head" }, box, h("a", { class: "title", href: `#/evaluation/${encodeURIComponent(id)}`, "data-key": id }, evaluation.model), badge(evaluation.status),
      h("span", { class: "soft push" }, time(evaluation.created_at))),
    isRunning && progress(counts.done, counts.total, `${id}: episodes`),
    evaluation.error && h("p", { class: "problem" }, evaluation.error),
    evaluation.results && h("dl", { class: "figures" }, evaluation.results.map((result) => h("div", {},
      h("dt", {}, result.suite), h("dd", { class: "figure" }, rateWords(headline(result)), h("small", {}, ` n = ${headline(result).n}`))))));
}
