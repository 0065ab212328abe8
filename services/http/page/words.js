// How numbers, times and states are written. Pure.

/** 0.6654 -> "0.665". */
export function share(value) {
  return Number.isFinite(value) ? value.toFixed(3) : "–";
}

/** A rate with its interval: "0.665 [0.631, 0.698]". */
export function rateWords(rate) {
  return `${share(rate.rate)} [${share(rate.low)}, ${share(rate.high)}]`;
}

/** "general_points/ood-rule" -> "ood-rule", for where the environment is plain to see. */
export function shortSuite(name) {
  return name.slice(name.indexOf("/") + 1);
}

/** The full name of an alias, which tells its run where that is another than the checkpoint's. */
export function aliasName(run, alias) {
  return alias.includes("@") ? alias : `${run}@${alias}`;
}

/** The rate a suite is measured by. */
export function headline(result) {
  return result[result.headline ?? "success"];
}

export function headlineWords(result) {
  return result.headline === "per_step_accuracy" ? "correct answers per step" : "success";
}

/** Short, for ticks and tables: 12,400 · 0.0032 · 9.3e11. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3)) return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
  return value.toLocaleString("en", { maximumSignificantDigits: size >= 1000 ? 6 : 4 });
}

/** 1 hand, 2 hands. */
export function count(n, one, many = `${one}s`) {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

/** Seconds since 1970 -> "3 min ago". */
export function ago(seconds) {
  if (!seconds) return "–";
  const passed = Date.now() / 1000 - seconds;
  if (passed < 10) return "just now";
  return passed < 86400 * 2 ? `${duration(passed)} ago` : moment(seconds).slice(0, 10);
}

/** 3671 -> "1 h 1 min". */
export function duration(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 3570) return `${Math.round(seconds / 60)} min`;
  const minutes = Math.round(seconds / 60);
  return minutes < 1440 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.round(minutes / 1440)} days`;
}

/** Seconds since 1970 -> "2026-11-25 14:03:20", where the reader is. */
export function moment(seconds) {
  if (!seconds) return "–";
  const at = new Date(seconds * 1000);
  const two = (part) => String(part).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

const STATES = { in_progress: "running", wrong_value: "wrong value", wrong_numbers: "wrong numbers" };

/** A state or status as it is read: "wrong_value" -> "wrong value". */
export function state(word) {
  return STATES[word] ?? String(word).replaceAll("_", " ");
}

export const STAGES = { sft: "SFT (init)", sft_branch: "SFT branch", ppo: "RL (PPO)" };

/** How an episode went: "once", "revised", "unsolved" or "failed" (could not be judged). */
export function outcome(item) {
  if (item.error) return "failed";
  if (!item.success) return "unsolved";
  const positions = new Set(item.turns.map((turn) => turn.position ?? 0));
  return item.turns.length > positions.size ? "revised" : "once";
}

export const OUTCOMES = { once: "solved at once", revised: "solved after revision", unsolved: "unsolved", failed: "not judged" };
