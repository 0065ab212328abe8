// A checkpoint plays the task on the table: each answer and verdict as it happens.

import { ApiError, events } from "./api.js";
import { h, say } from "./dom.js";
import { endWords, statusWords, turnItem } from "./episode.js";
import { aliasName } from "./words.js";
import { attempt, empty, field, select } from "./parts.js";
import { pictureOf } from "./tasktable.js";

const MAX_TOKENS = 256;

/** `show(task)` stops what is played and waits for the button. */
export function checkpointPlays(view) {
  const turns = h("div", { class: "played" });
  const end = h("p", { role: "status" });
  const told = h("div", {});
  const element = h("section", { class: "player", "aria-labelledby": "it" }, h("h2", { id: "it" }, "A checkpoint"));
  if (view.models.length === 0) {
    element.append(empty("This store holds no checkpoint yet. Training commits them as it goes.", "viter train deploy/runs/nano-gp-l.yaml"));
    return { element, show() {} };
  }
  const names = choices(view);
  const checkpoint = select(names, names.some(([name]) => name === view.checkpoint) ? view.checkpoint : names[0][0]);
  const temperature = h("input", { type: "number", name: "temperature", min: 0, max: 5, step: "any", value: 1, required: true });
  const button = h("button", { type: "submit", class: "main" }, "Let it answer");
  const stop = h("button", { type: "button", hidden: true, onclick: () => stopping?.abort() }, "Stop");
  let stopping = null;
  const clear = () => { turns.replaceChildren(); end.textContent = ""; told.replaceChildren(); };
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    clear();
    const mine = (stopping = new AbortController());
    view.life.signal.addEventListener("abort", () => mine.abort());
    stop.hidden = false;
    end.textContent = "It is thinking …";
    const { task } = view;
    const order = { checkpoint: checkpoint.value, environment: task.environment, options: task.options, data: task.data, seed: view.seed,
      viter: task.options.viter ?? view.viter, temperature: temperature.valueAsNumber, max_tokens: MAX_TOKENS };
    await attempt(button, told, () => play(view, order, mine.signal, turns, end));
    if (end.textContent === "It is thinking …") end.textContent = mine.signal.aborted ? "Stopped." : "";
    stop.hidden = true;
  } }, h("div", { class: "with" }, field("Checkpoint", checkpoint), field("Temperature", temperature)), h("div", { class: "actions" }, button, stop));
  element.append(form, told, turns, end);
  return { element, show() { stopping?.abort(); clear(); } };
}

async function play(view, order, signal, turns, end) {
  const { task } = view;
  let opening = { images: [] }; // what the prompt shows at the position that is played
  let before = [];
  let place = null;
  for await (const { event, data } of events("v1/episodes", { body: order, signal })) {
    const news = JSON.parse(data);
    if (event === "task") opening = news;
    else if (event === "turn") {
      if (place?.position !== news.position) {
        place = positionPlace(view, task, news.position, opening.images.filter((key) => !before.includes(key)));
        turns.append(place.element);
      }
      place.list.append(turnItem(news, place.list.children.length + 1));
      say(statusWords(news));
      if (news.next) [before, opening] = [opening.images, news.next];
    } else if (event === "end") {
      end.textContent = endWords(news);
      return;
    } else if (event === "error") throw new ApiError(news.status ?? 500, news.detail ?? "The episode broke off.");
  }
  throw new ApiError(0, "The episode broke off before its end.");
}

/** Where the turns of one position go: a heading where a task has several, and its pictures where it shows any. */
function positionPlace(view, task, position, images) {
  const list = h("ol", { class: "turns" });
  const isWalk = !Array.isArray(task.data.cards); // a hand has one position, and its picture lies on the table
  const element = h("section", {}, isWalk && h("h4", {}, `Position ${position + 1}`),
    h("div", { class: "scene" }, isWalk && images.length > 0 && h("div", { class: "seen" }, images.map((key) => pictureOf(view, task, key))), list));
  return { position, list, element };
}

/** Checkpoints by run, newest first, and the aliases that name them. */
function choices({ models }) {
  return models.flatMap(({ id, metadata }) => [...metadata.aliases.map((alias) => aliasName(metadata.run, alias)).map((name) => [name, `${name} (step ${metadata.step})`]), [id, id]]);
}
