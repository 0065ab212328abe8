// Follow an evaluation until it ends, by its event stream, resumed where it broke off.

import { ApiError, events, get } from "./api.js";

const ENDED = new Set(["completed", "failed", "canceled"]);
const AGAIN_MS = 2000;

export function hasEnded(evaluation) {
  return ENDED.has(evaluation.status);
}

/** Call `onChange` with the evaluation whenever it changed. Returns once it has ended, or `life` has. */
export async function follow(evaluation, life, onChange) {
  const path = `v1/evaluations/${encodeURIComponent(evaluation.id)}`;
  let now = evaluation;
  let lastId = String(evaluation.counts.done); // events are numbered by the items that were finished
  while (!life.isOver && !hasEnded(now)) {
    try {
      for await (const { event, id, data } of events(`${path}/events`, { signal: life.signal, lastId })) {
        lastId = id ?? lastId;
        life.notice(null);
        if (event === "item") continue; // the counts come with `progress`, the episodes with the list below
        const news = JSON.parse(data);
        now = event === "end" ? news : { ...now, ...news };
        onChange(now);
      }
      now = hasEnded(now) ? now : await get(path, life.signal); // it broke off, or the service is closing
      onChange(now);
    } catch (error) {
      if (life.isOver || !(error instanceof ApiError) || error.status === 403) throw error;
      life.notice(`${error.message} Trying again.`);
    }
    if (!hasEnded(now)) await life.pause(AGAIN_MS);
  }
}
