// The episodes of an evaluation: filtered, opened one by one, each with an address of its own.

import { at, get, withQuery } from "./api.js";
import { h, put } from "./dom.js";
import { picture, promptBlock, taskGlance, turnList } from "./episode.js";
import { badge, choice, select, sentence } from "./parts.js";
import { count, outcome, OUTCOMES } from "./words.js";

const PAGE = 200;
const SHOWN = 40;

/** `element` to show; `grow(done)` fetches what has been played since. `chosen` is the item the address names. */
export function episodes(evaluation, { chosen, query, life }) {
  const path = `v1/evaluations/${encodeURIComponent(evaluation.id)}`;
  const list = h("ol", { class: "episodes" });
  const more = h("p", {});
  const counted = h("p", { class: "soft", role: "status" });
  const view = { path, life, list, more, counted, items: new Map(), last: null, wanted: 0, shown: SHOWN, base: `#/evaluation/${encodeURIComponent(evaluation.id)}`,
    filters: { suite: query.get("suite") ?? "", outcome: query.get("outcome") ?? "" }, isFetching: false, suites: evaluation.order.suites };
  const change = (name, value) => {
    view.filters[name] = value;
    view.shown = SHOWN;
    history.replaceState(null, "", withQuery(view.base, view.filters));
    draw(view);
  };
  const element = h("section", {}, h("h2", {}, "Episodes"),
    chosen && oneEpisode(view, chosen),
    h("div", { class: "controls" },
      choice("Outcome", [["", "all"], ...Object.entries(OUTCOMES).filter(([word]) => word !== "failed")], view.filters.outcome, (word) => change("outcome", word)),
      view.suites.length > 1 && h("label", {}, h("span", { class: "unseen" }, "Suite"), select([["", "all suites"], ...view.suites.map((name) => [name, name])], view.filters.suite, (name) => change("suite", name)))),
    counted, list, more);
  return { element, grow: (done) => grow(view, done) };
}

/** Fetch the items that were not there before, page after page. */
async function grow(view, done) {
  view.wanted = done;
  if (view.isFetching) return;
  view.isFetching = true;
  draw(view);
  try {
    while (view.items.size < view.wanted && !view.life.isOver) {
      const page = await get(withQuery(`${view.path}/items`, { limit: PAGE, after: view.last }), view.life.signal);
      if (page.data.length === 0) break;
      for (const item of page.data) view.items.set(item.id, item);
      view.last = page.last_id;
      draw(view);
    }
  } catch (error) {
    if (error.name !== "AbortError") view.counted.textContent = sentence(error.message);
  } finally {
    view.isFetching = false;
  }
}

function draw(view) {
  const { filters, list, more, counted } = view;
  const fitting = [...view.items.values()].filter((item) => (!filters.suite || item.suite === filters.suite) && (!filters.outcome || outcome(item) === filters.outcome));
  counted.textContent = view.items.size === 0 ? "None is played yet." : `${count(fitting.length, "episode")} of ${view.items.size.toLocaleString("en")}`;
  const wanted = fitting.slice(0, view.shown);
  const known = new Map([...list.children].map((child) => [child.dataset.id, child]));
  const rows = wanted.map((item) => known.get(item.id) ?? row(view, item));
  if (rows.length !== list.children.length || rows.some((each, i) => list.children[i] !== each)) list.replaceChildren(...rows);
  more.replaceChildren(...(fitting.length > view.shown
    ? [h("button", { type: "button", onclick: () => { view.shown += SHOWN; draw(view); } }, `Show ${Math.min(SHOWN, fitting.length - view.shown)} more`)] : []));
}

function row(view, item) {
  const body = h("div", { class: "body" });
  const details = h("details", { ontoggle: () => details.open && !body.hasChildNodes() && put(body, read(view, item)) },
    h("summary", {}, h("span", { class: "line" }, badge(outcome(item), OUTCOMES[outcome(item)]), taskGlance(item),
      h("span", { class: "soft push" }, `${count(item.turns.length, "answer")} · ${item.suite} ${item.index}`))), body);
  return h("li", { "data-id": item.id }, details);
}

/** A whole episode: its link, prompt, pictures, turns. */
function read(view, item) {
  const imagesOf = (position) => {
    const keys = item.positions?.[position]?.images ?? [];
    return keys.length > 0 && h("div", { class: "seen" }, keys.map((key, i) => picture({ path: `${view.path}/items/${at(item.suite, item.index)}/images/${encodeURIComponent(key)}` },
      `What the model saw${keys.length > 1 ? `, ${i + 1} of ${keys.length}` : ""}: ${item.task}`, view.life.signal)));
  };
  return [
    h("p", { class: "soft" }, h("a", { href: `${view.base}/${at(item.suite, item.index)}` }, "Link to this episode"), ` · reward ${item.reward}`),
    item.error && h("p", { class: "problem" }, sentence(item.error)),
    promptBlock(item.prompt),
    ...turnList(item.turns, item.positions, imagesOf),
  ];
}

/** The one that the address names, opened above the others. */
function oneEpisode(view, chosen) {
  const place = h("div", { class: "chosen" }, h("p", { class: "soft" }, "…"));
  get(`${view.path}/items/${at(chosen)}`, view.life.signal).then((item) => {
    place.replaceChildren(h("div", { class: "head" }, badge(outcome(item), OUTCOMES[outcome(item)]), taskGlance(item),
      h("span", { class: "soft" }, `${item.suite} ${item.index}`)));
    put(place, read(view, item));
  }).catch((error) => {
    if (error.name !== "AbortError") place.replaceChildren(h("p", { class: "problem" }, sentence(error.message)));
  });
  return place;
}
