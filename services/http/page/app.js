// The page itself: which view the address names, the token, the theme, and what is said when something fails.

import { ApiError, setTokenAsker, tokenAsked } from "./api.js";
import { h } from "./dom.js";
import { Life } from "./life.js";
import { failure } from "./parts.js";
import { askForToken } from "./token.js";

const VIEWS = { // by the first part of the address; loaded when first shown
  runs: () => import("./views/runs.js"),
  run: () => import("./views/run.js"),
  checkpoints: () => import("./views/checkpoints.js"),
  evaluations: () => import("./views/evaluations.js"),
  evaluation: () => import("./views/evaluation.js"),
  compare: () => import("./views/compare.js"),
  play: () => import("./views/play.js"),
};
const TABS = { run: "runs", evaluation: "evaluations", compare: "evaluations" };
const main = document.getElementById("main");
let life = new Life();
let isFirst = true;

/** "#/run/nano?x=step" -> {name: "run", parts: ["nano"], query}. */
function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...parts] = path.split("/").filter(Boolean).map(decoded);
  return { name: name ?? "runs", parts, query: new URLSearchParams(query) };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

async function show() {
  life.end();
  const mine = (life = new Life());
  const { name, parts, query } = address();
  markTab(TABS[name] ?? name);
  mine.notice(null);
  const place = h("div", { class: "view" });
  main.replaceChildren(place);
  scrollTo(0, 0);
  try {
    if (!Object.hasOwn(VIEWS, name)) throw new ApiError(404, `There is no page “${name}”. The pages are named above.`);
    const view = await VIEWS[name]();
    if (mine.isOver) return;
    await view.show(place, { parts, query, life: mine });
  } catch (error) {
    if (mine.isOver || error.name === "AbortError") return;
    place.replaceChildren(failure(error, show));
  }
  if (mine.isOver) return;
  document.title = `${place.querySelector("h1")?.textContent ?? "Viter"} · Viter`;
  if (!isFirst && (document.activeElement === document.body || !document.activeElement)) main.focus({ preventScroll: true });
  isFirst = false;
}

function markTab(tab) {
  for (const link of document.querySelectorAll("header nav a")) {
    if (link.getAttribute("href") === `#/${tab}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function isDark() {
  return (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
}

function nameTheme() {
  document.getElementById("theme").textContent = isDark() ? "Light" : "Dark";
  document.getElementById("theme").setAttribute("aria-label", isDark() ? "Switch to light colours" : "Switch to dark colours");
}

function switchTheme() {
  const next = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("viter.theme", next);
  nameTheme();
}

document.getElementById("theme").addEventListener("click", switchTheme);
document.getElementById("token").addEventListener("click", async () => {
  if (await tokenAsked("")) show();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address belongs to the views
  main.focus();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
addEventListener("hashchange", show);
setTokenAsker(askForToken);
nameTheme();
show();
