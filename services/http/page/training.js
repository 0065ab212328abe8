// Training curves of a run: a few that matter for each stage, all others behind a fold; new rows as they are written.

import { get } from "./api.js";
import { lineChart } from "./charts.js";
import { h, refill } from "./dom.js";
import { choice } from "./parts.js";
import { number, state, STAGES } from "./words.js";

const MAIN = {
  ppo: ["reward_mean", "success_rate", "first_attempt_success", "kl", "clip_fraction", "entropy", "explained_variance", "grad_norm"],
  other: ["loss", "entropy", "grad_norm", "lr"],
};
const TITLES = { reward_mean: "reward, mean of episodes", success_rate: "success rate", kl: "KL to the sampling policy",
  clip_fraction: "clipped ratios", lr: "learning rate", grad_norm: "gradient norm", first_attempt_success: "solved at the first attempt" };
const NOT_METRICS = new Set(["step", "stage", "time", "not_finite", "run"]);

/** Keeps `place` up to date: `refresh(run)` fetches what is new. */
export function training(place, path, life) {
  const rows = new Map(); // stage -> step -> row, in order
  const view = { place, rows, chosen: null };
  return {
    async refresh(run) {
      for (const stage of run.stages) {
        const known = rows.get(stage.stage) ?? new Map();
        rows.set(stage.stage, known);
        const last = () => [...known.keys()].at(-1) ?? -1;
        if (stage.step < last()) known.clear(); // it goes on from an earlier checkpoint, and does those steps again
        for (let hasMore = stage.step > last(); hasMore; ) {
          const page = await get(`${path}/metrics?stage=${encodeURIComponent(stage.stage)}&after_step=${last()}`, life.signal);
          for (const row of page.data) known.set(row.step, row);
          hasMore = page.has_more && page.data.length > 0;
        }
      }
      view.stages = run.stages.map((stage) => stage.stage);
      draw(view);
    },
  };
}

function draw(view) {
  const { place, rows, stages } = view;
  const chosen = view.chosen ?? (stages.includes("ppo") && rows.get("ppo").size ? "ppo" : stages.findLast((stage) => rows.get(stage).size));
  if (!chosen) {
    refill(place, null, () => [h("h2", {}, "Training"), h("p", { class: "soft" }, "No step is finished yet.")]);
    return;
  }
  const data = [...rows.get(chosen).values()];
  refill(place, [chosen, data.length, data.at(-1), stages], () => {
    const names = [...new Set(data.flatMap(Object.keys))].filter((name) => !NOT_METRICS.has(name));
    const main = (MAIN[chosen] ?? MAIN.other).filter((name) => names.includes(name));
    const others = names.filter((name) => !main.includes(name)).sort();
    return [
      h("div", { class: "head" }, h("h2", {}, "Training"), stages.length > 1 && h("span", { class: "push" }, choice("Stage",
        stages.map((stage) => [stage, STAGES[stage] ?? stage]), chosen, (stage) => { view.chosen = stage; draw(view); }))),
      h("div", { class: "charts many" }, main.map((name) => metric(name, chosen, data))),
      others.length > 0 && folded(others, chosen, data),
    ];
  });
}

function metric(name, stage, rows) {
  const dots = rows.map((row) => ({ x: row.step, y: row[name] ?? NaN }));
  const last = dots.findLast((dot) => Number.isFinite(dot.y));
  return lineChart({ title: `${TITLES[name] ?? state(name)} ${last ? number(last.y) : ""}`, small: true, isWhole: true, xLabel: "step",
    series: [{ name: state(name), style: stage, dots }] });
}

function folded(names, stage, rows) {
  const charts = h("div", { class: "charts many" });
  return h("details", { class: "plain", "data-key": "all metrics", ontoggle: (event) => {
    if (event.target.open) charts.replaceChildren(...names.map((name) => metric(name, stage, rows)));
  } }, h("summary", {}, `${names.length} more metrics`), charts);
}
