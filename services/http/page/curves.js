// From evaluations and checkpoints to the curves of a run. Pure.

import { headline, STAGES } from "./words.js";

/** Under which conditions an evaluation was played: only equal ones belong on one curve. */
export function conditions(evaluation) {
  const { viter, temperature, decoding } = evaluation.order;
  return `${viter} attempts, temperature ${temperature ?? decoding?.temperature}`;
}

/** The stage run of a checkpoint's name: "nano-ppo@step-000040" -> "nano-ppo". */
export function stageRun(model) {
  return model.split("@")[0];
}

/**
 * One result per checkpoint and suite: the one of most tasks, of equal ones the newest.
 * Rows: {model, suite, kind, result, evaluation}.
 */
export function measurements(evaluations) {
  const best = new Map();
  for (const evaluation of evaluations) {
    for (const result of evaluation.results ?? []) {
      const key = `${evaluation.model} ${result.suite}`;
      const known = best.get(key);
      const isBetter = !known || result.n > known.result.n || (result.n === known.result.n && evaluation.created_at > known.evaluation.created_at);
      if (isBetter) best.set(key, { model: evaluation.model, suite: result.suite, kind: result.kind, result, evaluation });
    }
  }
  return [...best.values()];
}

/**
 * The curves of a run: [{suite, kind, series}]. Both branches begin at init, where that was measured. `axis` is "step" or
 * "flops"; FLOPs are counted from init on, as both branches have what came before in common.
 */
export function curves(run, rows, cards, axis) {
  const cardOf = new Map(cards.map((card) => [card.id, card]));
  const stageOf = new Map(run.stages.map((stage) => [stage.id, stage.stage]));
  const inits = cards.filter((card) => stageOf.get(card.metadata.run) === "sft").sort((a, b) => a.metadata.step - b.metadata.step);
  const init = inits.at(-1);
  const before = init?.metadata.compute.flops ?? 0;
  const hasBranches = run.stages.some((stage) => stage.stage !== "sft");
  const suites = [...new Map(rows.map((row) => [row.suite, row.kind]))].sort((a, b) => a[1].localeCompare(b[1])); // ID first, else as they were asked for
  return suites.map(([suite, kind]) => {
    const here = rows.filter((row) => row.suite === suite && cardOf.has(row.model));
    const start = hasBranches ? here.find((row) => row.model === init?.id) : undefined;
    const series = run.stages.filter((stage) => !hasBranches || stage.stage !== "sft").map((stage) => {
      const own = here.filter((row) => stageRun(row.model) === stage.id);
      const dots = own.map((row) => dot(row, xOf(cardOf.get(row.model), axis, before)));
      if (start && dots.length) dots.push(dot(start, 0));
      return { name: STAGES[stage.stage] ?? stage.stage, style: stage.stage, dots };
    });
    if (start && series.every((each) => each.dots.length === 0)) series.push({ name: STAGES.sft, style: "init", dots: [dot(start, 0)] });
    return { suite, kind, series };
  });
}

function xOf(card, axis, before) {
  return axis === "flops" ? Math.max(0, (card.metadata.compute.flops ?? NaN) - before) : card.metadata.step;
}

function dot(row, x) {
  const rate = headline(row.result);
  return { x, y: rate.rate, low: rate.low, high: rate.high, note: `${row.model}, n = ${rate.n}` };
}

/** The newest figure of each kind, "id" and "ood", of one stage run: what a list of runs shows. */
export function newest(rows, stageId) {
  const own = rows.filter((row) => stageRun(row.model) === stageId);
  // of one checkpoint, the suite of most tasks, and of equal ones the one that was asked for first
  const of = (kind) => own.filter((row) => row.kind === kind).sort((a, b) => byName(b.model, a.model) || b.result.n - a.result.n)[0];
  return { id: of("id"), ood: of("ood") };
}

/** Steps are counted, not spelled: step-1000000 comes after step-999999. */
function byName(a, b) {
  return a.localeCompare(b, "en", { numeric: true });
}
