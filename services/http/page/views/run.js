// One run, live: what it can do in and out of distribution, how training goes, what happened, its log.

import { blob, get, list, post, text } from "../api.js";
import { conditions, curves, measurements } from "../curves.js";
import { lineChart } from "../charts.js";
import { h, refill } from "../dom.js";
import { training } from "../training.js";
import { attempt, badge, choice, confirm, empty, progress, select, sentence, table, time } from "../parts.js";
import { count, share, shortSuite, STAGES, state } from "../words.js";

const REFRESH_MS = 3000;
const LOG_LINES = 2000;

export async function show(place, { parts, query, life }) {
  const path = `v1/runs/${encodeURIComponent(parts[0])}`;
  const run = await get(path, life.signal);
  const places = Object.fromEntries(["head", "measured", "training", "events"].map((name) => [name, h("section", {})]));
  place.append(places.head, places.measured, places.training, places.events, log(path, life));
  const view = { path, life, places, axis: query.get("x") === "step" ? "step" : "flops", under: null };
  const trained = training(view.places.training, path, life);
  await life.repeat(async () => {
    view.run = await get(path, life.signal);
    await Promise.all([measured(view), trained.refresh(view.run), happened(view)]);
    refill(places.head, view.run, (now) => head(view, now));
  }, run.status === "running" ? REFRESH_MS : REFRESH_MS * 5);
}

function head({ path, life }, run) {
  const told = h("div", {});
  const stop = run.status === "running" && run.job && h("button", { type: "button", class: "danger", "data-key": "stop", onclick: () => confirm(
    `Stop ${run.id}?`, "It commits a checkpoint after its present step, and ends. The same order, or viter train, resumes it.",
    "Stop the run", () => post(`${path}/stop`, {}, life.signal)) }, "Stop");
  const report = run.has_report && h("button", { type: "button", "data-key": "report", onclick: (event) => attempt(event.target, told, () => download(path, run.id, life)) }, "Report");
  return [
    h("div", { class: "head" }, h("h1", {}, run.id), badge(run.status), h("span", { class: "push actions" }, report, stop)),
    told,
    h("p", { class: "soft" }, "started ", time(run.created_at), ", updated ", time(run.updated_at), 
      run.job && [", job ", h("code", {}, run.job.id)], run.driver && [", trained by ", run.driver]),
    run.error && h("p", { class: "problem" }, sentence(run.error)),
    h("div", { class: "stages" }, run.stages.map((stage) => h("div", { class: "stage" },
      h("span", { class: `name ${stage.stage}` }, STAGES[stage.stage] ?? stage.stage),
      stage.steps ? progress(stage.step, stage.steps, `${stage.id}: steps`) : h("span", { class: "figure" }, `step ${stage.step}`),
      h("a", { href: `#/checkpoints?run=${encodeURIComponent(stage.id)}`, "data-key": stage.id }, count(stage.checkpoints.length, "checkpoint"))))),
  ];
}

/** The report lies behind the token: it is fetched, then saved as a file. */
async function download(path, id, life) {
  const url = URL.createObjectURL(await blob(`${path}/report`, { signal: life.signal }));
  h("a", { href: url, download: `${id}.html` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

async function measured(view) {
  const { run, life, places } = view;
  const [evaluations, models] = await Promise.all([
    list(`v1/evaluations?status=completed&run=${encodeURIComponent(run.id)}`, { most: 1000, signal: life.signal }),
    get("v1/models", life.signal),
  ]);
  const cards = models.data.filter((card) => run.stages.some((stage) => stage.id === card.metadata.run));
  const ids = new Set(cards.map((card) => card.id));
  view.data = { run, cards, evaluations: evaluations.rows.filter((each) => ids.has(each.model)) };
  refill(places.measured, [view.data.evaluations.map((each) => each.id), cards.map((card) => card.id), view.axis, view.under], () => accuracy(view));
}

function accuracy(view) {
  const { run, cards, evaluations } = view.data;
  const again = () => refill(view.places.measured, {}, () => accuracy(view));
  const kinds = [...Map.groupBy(evaluations, conditions)].sort((a, b) => b[1].length - a[1].length);
  if (kinds.length === 0) {
    return [h("h2", {}, "In and out of distribution"),
      empty("No checkpoint of this run has been evaluated through this service. Evaluate one under Checkpoints, or with", `viter eval ${run.stages.at(-1)?.id ?? run.id}@latest`)];
  }
  const under = view.under ?? kinds[0][0];
  const rows = measurements(evaluations.filter((each) => conditions(each) === under));
  const isFlops = view.axis === "flops";
  return [
    h("div", { class: "head" }, h("h2", {}, "In and out of distribution"), h("span", { class: "push controls" },
      kinds.length > 1 ? h("label", {}, h("span", { class: "unseen" }, "Conditions"), select(kinds.map(([words]) => [words, words]), under, (words) => { view.under = words; again(); })) : h("span", { class: "soft" }, under),
      choice("Over", [["flops", "FLOPs"], ["step", "Steps"]], view.axis, (axis) => { view.axis = axis; again(); }))),
    h("div", { class: "charts" }, curves(run, rows, cards, view.axis).map(({ suite, kind, series }) => lineChart({
      title: `${kind.toUpperCase()} · ${shortSuite(suite)}`, series, yLimits: [0, 1], formatY: share, isWhole: !isFlops,
      xLabel: isFlops ? "FLOPs since init" : "step of the branch" }))),
    h("p", { class: "note" }, "Bands are 95 % Wilson intervals. ", isFlops
      ? "FLOPs are counted from tokens, the measure by which SFT and RL are compared." : "A step of SFT and one of RL cost very different amounts; compare by FLOPs."),
  ];
}

async function happened({ path, life, places }) {
  const { data } = await get(`${path}/events?limit=1000`, life.signal);
  const rows = data.toSorted((a, b) => b.time - a.time);
  refill(places.events, rows, () => [h("h2", {}, "Events"), rows.length === 0
    ? h("p", { class: "soft" }, "Nothing yet: checkpoints, replaced workers and faults are told here.")
    : table("Events, newest first", ["when", "what", "details"], rows.slice(0, 300).map(({ time: when, kind, stage, ...more }) => [
      time(when), state(kind), [stage && h("span", { class: "soft" }, `${stage} `), details(more)]]))]);
}

function details(fields) {
  return Object.entries(fields).filter(([name]) => name !== "run").map(([name, value]) => h("span", { class: "pair" },
    h("span", { class: "soft" }, `${name} `), typeof value === "object" && value !== null ? JSON.stringify(value) : String(value)));
}

/** The run's log, read when opened, and again while it stays open. */
function log(path, life) {
  const lines = h("pre", { class: "log", tabindex: "0", "aria-label": "Log" }, "…");
  const fill = async () => {
    const isAtEnd = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 20;
    lines.textContent = (await text(`${path}/logs?tail=${LOG_LINES}`, life.signal)) || "Nothing was logged.";
    if (isAtEnd) lines.scrollTop = lines.scrollHeight;
    return !box.open;
  };
  const box = h("details", { class: "plain", ontoggle: () => box.open && life.repeat(fill, REFRESH_MS).catch((error) => { lines.textContent = sentence(error.message); }) },
    h("summary", {}, "Log"), lines);
  return box;
}
