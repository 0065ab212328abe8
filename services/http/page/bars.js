// Horizontal bars of rates with their intervals: a list that reads as text, drawn by widths alone.

import { h } from "./dom.js";
import { rateWords } from "./words.js";

/** `rows`: [{name, rate: {rate, low, high, k, n}, style}]. */
export function bars(title, rows) {
  return h("figure", { class: "bars" }, h("figcaption", {}, title), h("ul", {}, rows.map(({ name, rate, style }) => {
    const fill = h("span", { class: "fill" });
    const range = h("span", { class: "range" });
    fill.style.width = `${100 * rate.rate}%`;
    range.style.left = `${100 * rate.low}%`;
    range.style.width = `${100 * (rate.high - rate.low)}%`;
    return h("li", { class: style },
      h("span", { class: "who" }, name),
      h("span", { class: "track", "aria-hidden": "true" }, fill, range),
      h("span", { class: "figure" }, rateWords(rate), h("small", {}, ` ${rate.k} of ${rate.n}`)));
  })));
}
