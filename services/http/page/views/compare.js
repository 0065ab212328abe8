// Evaluations side by side: rates with intervals, success by attempt, and for two of them the paired test.

import { at, get } from "../api.js";
import { bars } from "../bars.js";
import { h } from "../dom.js";
import { empty, sentence } from "../parts.js";
import { headline, headlineWords, share } from "../words.js";
import { byIteration } from "./evaluation.js";

const MOST = 6;
const LINKS = 12;

export async function show(place, { query, life }) {
  const ids = (query.get("ids") ?? "").split(",").filter(Boolean).slice(0, MOST);
  place.append(h("h1", {}, "Side by side"));
  if (ids.length < 2) {
    place.append(empty("Choose two or more evaluations under Evaluations, then Compare."));
    return;
  }
  const evaluations = await Promise.all(ids.map((id) => get(`v1/evaluations/${encodeURIComponent(id)}`, life.signal)));
  const names = evaluations.map((each, i) => `${String.fromCharCode(65 + i)} · ${each.model}`);
  place.append(h("ol", { class: "plain compared" }, evaluations.map((each, i) => h("li", { class: `c${i}` }, h("i", { class: "swatch" }),
    h("a", { href: `#/evaluation/${encodeURIComponent(each.id)}` }, names[i]),
    h("span", { class: "soft" }, ` ${each.order.viter} attempts, temperature ${each.order.temperature ?? each.order.decoding?.temperature}, n = ${each.order.n}`)))));
  const suites = [...new Set(evaluations.flatMap((each) => (each.results ?? []).map((result) => result.suite)))];
  if (suites.length === 0) place.append(empty("None of these has results yet; each gets them when it ends."));
  for (const suite of suites) place.append(ofSuite(suite, evaluations, names));
  if (evaluations.length === 2) place.append(await paired(evaluations, life));
}

function ofSuite(suite, evaluations, names) {
  const rows = evaluations.map((each, i) => ({ name: names[i], style: `c${i}`, result: each.results?.find((result) => result.suite === suite) })).filter((row) => row.result);
  return h("section", {}, h("h2", {}, suite), h("div", { class: "charts pair" },
    bars(headlineWords(rows[0].result), rows.map((row) => ({ ...row, rate: headline(row.result) }))), byIteration(rows)));
}

/** The same tasks played by both: what changed, and which tasks. */
async function paired([first, second], life) {
  const section = h("section", {}, h("h2", {}, "The same tasks, pair by pair"));
  try {
    const { suites, differences } = await get(`v1/evaluations/${at(first.id)}/compare/${at(second.id)}`, life.signal);
    section.append(...differences.map((words) => h("p", { class: "problem" }, sentence(words))), ...suites.map((suite) => pairOf(suite, first, second)),
      h("p", { class: "note" }, "p is McNemar’s exact test, two-sided: how likely so uneven a split would be if a change went either way equally."));
  } catch (error) {
    section.append(h("p", { class: "soft" }, sentence(error.message)));
  }
  return section;
}

function pairOf(row, first, second) {
  if (row.problem) return h("div", { class: "pair-of" }, h("h3", {}, row.suite), h("p", { class: "soft" }, sentence(row.problem)));
  const { value, low, high } = row.success.difference;
  return h("div", { class: "pair-of" },
    h("h3", {}, row.suite, row.success.is_beyond_chance ? h("span", { class: "badge good" }, "beyond chance") : h("span", { class: "badge plain" }, "within chance")),
    h("p", {}, sentence(row.in_words)),
    h("dl", { class: "figures" },
      h("div", {}, h("dt", {}, "B − A, success"), h("dd", { class: "figure" }, `${share(value)} [${share(low)}, ${share(high)}]`)),
      h("div", {}, h("dt", {}, `only B solved, of ${row.n}`), h("dd", {}, flipped(row.success.won, row.won, second))),
      h("div", {}, h("dt", {}, `only A solved, of ${row.n}`), h("dd", {}, flipped(row.success.lost, row.lost, first))),
      h("div", {}, h("dt", {}, "p"), h("dd", { class: "figure" }, row.success.p_value < 0.001 ? "< 0.001" : row.success.p_value.toFixed(3)))));
}

/** How many tasks, and links to the first of them in the evaluation that solved them. */
function flipped(total, ids, evaluation) {
  return [h("b", { class: "figure" }, String(total)), h("span", { class: "links" }, ids.slice(0, LINKS).map((id) =>
    h("a", { href: `#/evaluation/${at(evaluation.id)}/${at(id)}`, "aria-label": `Episode ${id}` }, `#${Number(id.split("/").at(-1))}`))), total > LINKS && " …"];
}
