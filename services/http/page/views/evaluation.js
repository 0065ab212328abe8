// One evaluation: its progress live, its results by suite, and its episodes to read.

import { get, post } from "../api.js";
import { bars } from "../bars.js";
import { lineChart } from "../charts.js";
import { h, refill, say } from "../dom.js";
import { episodes } from "../episodes.js";
import { follow, hasEnded } from "../follow.js";
import { badge, confirm, digest, progress, table, time } from "../parts.js";
import { headline, headlineWords, number, rateWords, share, shortSuite } from "../words.js";

export async function show(place, { parts, query, life }) {
  const id = parts[0];
  const evaluation = await get(`v1/evaluations/${encodeURIComponent(id)}`, life.signal);
  const top = h("section", {});
  const results = h("section", {});
  const reader = episodes(evaluation, { chosen: parts.slice(1).join("/"), query, life });
  place.append(top, results, reader.element);
  const update = (now) => {
    refill(top, { ...now, results: null }, () => head(now, life));
    refill(results, now.results, () => now.results && resultParts(now));
    reader.grow(now.counts.done);
  };
  update(evaluation);
  if (hasEnded(evaluation)) return;
  let told = "";
  follow(evaluation, life, (now) => {
    update(now);
    const words = hasEnded(now) ? `Evaluation ${now.status}` : `${Math.floor((10 * now.counts.done) / now.counts.total) * 10} % played`;
    if (words !== told) say((told = words));
  }).catch((error) => life.notice(error.message));
}

function head(evaluation, life) {
  const { order, counts, id } = evaluation;
  const cancel = () => confirm("Cancel this evaluation?", `Its ${counts.done} finished episodes stay readable; the others are not played.`, "Cancel it",
    () => post(`v1/evaluations/${encodeURIComponent(id)}/cancel`, {}, life.signal));
  const temperature = order.temperature ?? order.decoding?.temperature;
  return [
    h("div", { class: "head" }, h("h1", {}, evaluation.model), badge(evaluation.status),
      h("span", { class: "push actions" }, !hasEnded(evaluation) && h("button", { type: "button", class: "danger", "data-key": "cancel", onclick: cancel }, "Cancel"),
        h("a", { class: "button", href: `#/play?checkpoint=${encodeURIComponent(evaluation.model)}` }, "Play"))),
    h("p", { class: "soft" }, "ordered ", time(evaluation.created_at), `; ${order.n} tasks of each suite, ${order.viter} attempts, temperature ${temperature}, seed ${order.seed ?? order.decoding?.seed}; weights `, digest(evaluation.digest)),
    !hasEnded(evaluation) && progress(counts.done, counts.total, "episodes played"),
    evaluation.error && h("p", { class: "problem" }, evaluation.error),
    counts.failed > 0 && h("p", { class: "problem" }, `${counts.failed} episodes could not be judged and count in no rate.`),
  ];
}

function resultParts(evaluation) {
  const { results, generalisation_gap: gap } = evaluation;
  const rates = [["first_attempt", "first attempt"], ["per_step_accuracy", "per step"], ["recognition", "recognition"]];
  return [
    h("h2", {}, "Results"),
    h("div", { class: "charts pair" },
      bars(`${headlineWords(results[0])}, with 95 % intervals`, results.map((result) => ({ name: result.suite, rate: headline(result), style: result.kind }))),
      byIteration(results.map((result) => ({ name: shortSuite(result.suite), style: `${result.kind} s${results.filter((each) => each.kind === result.kind).indexOf(result)}`, result })))),
    gap && h("p", { class: "note" }, `Generalisation gap, ID − OOD: ${share(gap.value)} [${share(gap.low)}, ${share(gap.high)}].`),
    table("All rates", ["suite", "success", ...rates.map(([, words]) => words), { text: "tokens sampled", isNumber: true }], results.map((result) => [
      result.suite, rateWords(result.success), ...rates.map(([name]) => (result[name] ? rateWords(result[name]) : "–")), number(result.tokens.decoded)])),
  ];
}

/** Success within 1, 2, … attempts: what revision is worth. */
export function byIteration(rows) {
  return lineChart({ title: "Solved within so many attempts", xLabel: "attempts", yLimits: [0, 1], isWhole: true, formatY: share,
    series: rows.map(({ name, style, result }) => ({ name, style, dots: result.by_iteration.map((rate, i) => ({ x: i + 1, y: rate.rate, low: rate.low, high: rate.high })) })) });
}
