// Checkpoints: what is in the store, by run. Set an alias, order an evaluation, play.

import { at, get, send } from "../api.js";
import { h, refill, say } from "../dom.js";
import { orderEvaluation } from "../order.js";
import { attempt, dialog, digest, empty, field, select, table, time } from "../parts.js";
import { count, number, state } from "../words.js";

const REFRESH_MS = 5000;
const OF_THE_SYSTEM = new Set(["latest", "init", "best", "best-ood"]);
const SHOWN_METRICS = ["success_rate", "reward_mean", "loss"];

export async function show(place, { query, life }) {
  const view = { run: query.get("run") ?? "", life };
  const controls = h("div", { class: "controls" });
  const body = h("div", {});
  place.append(h("div", { class: "head" }, h("h1", {}, "Checkpoints"), h("div", { class: "push" }, controls)), body);
  view.refresh = async () => {
    const { data } = await get("v1/models", life.signal);
    const runs = [...new Set(data.map((card) => card.metadata.run))];
    if (view.run && !runs.includes(view.run)) view.run = "";
    refill(controls, [runs, view.run], () => runs.length > 1 && h("label", {}, h("span", { class: "unseen" }, "Run"),
      select([["", `all ${runs.length} runs`], ...runs.map((run) => [run, run])], view.run, (run) => { location.hash = run ? `#/checkpoints?run=${encodeURIComponent(run)}` : "#/checkpoints"; })));
    const cards = view.run ? data.filter((card) => card.metadata.run === view.run) : data;
    refill(body, cards, () => cards.length === 0
      ? empty("This store holds no checkpoint yet. Training commits them as it goes.", "viter train deploy/runs/nano-gp-l.yaml")
      : [...Map.groupBy(cards, (card) => card.metadata.run)].map(([run, group]) => ofRun(view, run, group)));
  };
  await life.repeat(view.refresh, REFRESH_MS);
}

function ofRun(view, run, cards) {
  const heads = ["step", "actions", "aliases", ...SHOWN_METRICS.map((name) => ({ text: state(name), isNumber: true })), { text: "FLOPs", isNumber: true }, "digest", "made"];
  return h("section", {},
    h("h2", {}, run, h("span", { class: "soft small" }, ` ${count(cards.length, "checkpoint")}`)),
    h("div", { class: "steady" }, table(`Checkpoints of ${run}`, heads, cards.map((card) => row(view, card)))));
}

function row(view, card) {
  const { metadata, id } = card;
  const name = encodeURIComponent(id);
  const act = (words, label, onclick) => h("button", { type: "button", class: "small", "aria-label": label, "data-key": `${words} ${id}`, onclick }, words);
  return [
    h("span", { class: "figure", title: id }, String(metadata.step)),
    h("span", { class: "actions tight" },
      act("Evaluate", `Evaluate ${id}`, () => orderEvaluation(id, view.life)),
      h("a", { class: "button small", href: `#/play?checkpoint=${name}`, "aria-label": `Play with ${id}` }, "Play"),
      h("a", { class: "button small", href: `#/evaluations?checkpoint=${name}`, "aria-label": `Evaluations of ${id}` }, "Results"),
      act("Alias", `Aliases of ${id}`, () => aliases(view, card))),
    metadata.aliases.map((alias) => h("span", { class: "badge plain" }, alias)),
    ...SHOWN_METRICS.map((metric) => number(metadata.metrics[metric])),
    number(metadata.compute.flops),
    digest(metadata.digest),
    time(card.created),
  ];
}

/** Give a checkpoint an alias of the person's own, or take one away. */
function aliases(view, { id, metadata }) {
  dialog(`Aliases of ${id}`, (close) => {
    const name = h("input", { required: true, pattern: "[a-z0-9][a-z0-9._\\-]{0,62}", autocomplete: "off", spellcheck: "false",
      title: "lower-case letters, digits, dots, dashes" });
    const told = h("div", {});
    const change = async (button, method, alias) => {
      const body = method === "PUT" ? { checkpoint: id } : undefined;
      const isDone = await attempt(button, told, async () => {
        await send(method, `v1/runs/${at(metadata.run)}/aliases/${at(alias)}`, body, view.life.signal);
        return true;
      });
      if (!isDone) return;
      say(method === "PUT" ? `${metadata.run}@${alias} is ${id} now` : `${alias} is removed`);
      close();
      await view.refresh().catch((error) => view.life.notice(error.message));
    };
    const own = metadata.aliases.filter((alias) => !OF_THE_SYSTEM.has(alias) && !alias.includes("@"));
    return h("form", { onsubmit: (event) => { event.preventDefault(); change(event.submitter, "PUT", name.value); } },
      own.length > 0 && h("ul", { class: "plain" }, own.map((alias) => h("li", {}, h("code", {}, alias), " ",
        h("button", { type: "button", class: "small", "aria-label": `Remove alias ${alias}`, onclick: (event) => change(event.target, "DELETE", alias) }, "Remove")))),
      field("New alias", name, `Answers then to ${metadata.run}@ALIAS. An alias that another checkpoint holds moves here.`),
      told,
      h("div", { class: "actions" }, h("button", { type: "submit", class: "main" }, "Set alias"), h("button", { type: "button", onclick: close }, "Close")));
  });
}
