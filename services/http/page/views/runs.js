// All runs: how each is, how far, and what it could do last.

import { get, list } from "../api.js";
import { measurements, newest } from "../curves.js";
import { h, refill } from "../dom.js";
import { badge, empty, progress, time } from "../parts.js";
import { count, headline, rateWords, STAGES } from "../words.js";

const REFRESH_MS = 4000;

export async function show(place, { life }) {
  const summary = h("p", { class: "soft" });
  const body = h("div", {});
  place.append(h("h1", {}, "Runs"), summary, body);
  await life.repeat(async () => {
    const [runs, evaluations] = await Promise.all([
      get("v1/runs?limit=200", life.signal),
      list("v1/evaluations?status=completed", { most: 600, signal: life.signal }),
    ]);
    const rows = measurements(evaluations.rows);
    const live = runs.data.filter((run) => run.status === "running").length;
    summary.textContent = runs.data.length ? `${count(runs.data.length, "run")}, ${live} running` : "";
    refill(body, runs.data.map((run) => [run, rows.filter((row) => run.stages.some((stage) => row.model.startsWith(`${stage.id}@`)))]), (pairs) =>
      pairs.length === 0
        ? empty("No run yet. Start one; it shows up here with its first step.", "viter train deploy/runs/nano-gp-l.yaml")
        : h("ul", { class: "list" }, pairs.map(([run, measured]) => runRow(run, measured))));
  }, REFRESH_MS);
}

function runRow(run, rows) {
  return h("li", { class: "run" },
    h("div", { class: "head" },
      h("a", { class: "title", href: `#/run/${encodeURIComponent(run.id)}`, "data-key": run.id }, run.id), badge(run.status),
      h("span", { class: "soft push" }, "updated ", time(run.updated_at))),
    h("div", { class: "stages" }, run.stages.map((stage) => stageLine(stage, newest(rows, stage.id)))));
}

function stageLine(stage, { id, ood }) {
  return h("div", { class: "stage" },
    h("span", { class: `name ${stage.stage}` }, STAGES[stage.stage] ?? stage.stage),
    stage.steps ? progress(stage.step, stage.steps, `${stage.id}: steps`) : h("span", { class: "figure" }, `step ${stage.step}`),
    figure("ID", id), figure("OOD", ood));
}

function figure(kind, row) {
  const words = row ? rateWords(headline(row.result)) : "not measured";
  return h("span", { class: row ? "rate" : "rate soft", title: row && `${row.suite}, ${row.model}, n = ${headline(row.result).n}` }, h("b", {}, `${kind} `), words);
}
