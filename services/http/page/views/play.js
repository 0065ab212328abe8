// Play a task: deal or type one, answer it yourself, let a checkpoint answer it turn by turn.

import { get, post } from "../api.js";
import { h } from "../dom.js";
import { attempt } from "../parts.js";
import { personPlays } from "../person.js";
import { checkpointPlays } from "../plays.js";
import { dealer } from "../dealer.js";
import { taskTable } from "../tasktable.js";

export async function show(place, { query, life }) {
  const [environments, models] = await Promise.all([get("v1/environments", life.signal), get("v1/models", life.signal)]);
  const names = environments.data.map((each) => each.name);
  const checkpoint = query.get("checkpoint") ?? "";
  const isOfStreets = checkpoint.includes("virl") && names.includes("virl");
  const view = {
    life, names, checkpoint, models: models.data,
    environment: isOfStreets ? "virl" : names.includes("general_points") ? "general_points" : names[0],
    options: { target: 24, face_cards: "ten", modality: /-vl(-|@|$)/.test(checkpoint) ? "vision" : "language" },
    viter: 5, seed: Math.floor(Math.random() * 100_000), task: null,
  };
  const told = h("div", {});
  let asked = 0;
  const lay = (task) => {
    asked += 1; // a deal still on its way comes too late
    view.task = task;
    for (const part of [table, person, plays]) part.show(task);
  };
  view.deal = async (button) => {
    const path = `v1/environments/${encodeURIComponent(view.environment)}/tasks`;
    const mine = (asked += 1);
    const task = await attempt(button, told, () => post(path, { seed: view.seed, options: optionsOf(view) }, life.signal));
    if (task && mine === asked) lay(task);
  };
  view.put = (cards) => lay({ environment: "general_points", options: optionsOf(view), data: { cards }, state: { cards },
    images: view.options.modality === "vision" ? [cards.join("-")] : [] });
  const table = taskTable(view);
  const person = personPlays(view);
  const plays = checkpointPlays(view);
  const dealt = dealer(view);
  place.append(h("h1", {}, "Play"), dealt.element, told, table.element, h("div", { class: "two" }, person.element, plays.element));
  await view.deal(dealt.button);
}

/** The options of the rule, as the chosen environment knows them. */
export function optionsOf({ environment, options, viter }) {
  return environment === "general_points" ? { ...options, viter } : { modality: options.modality, viter };
}
