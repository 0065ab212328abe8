// Line charts in SVG: axes, interval bands, a legend, a reading line for mouse and arrow keys, and a table of the same.

import { h, put, s, say } from "./dom.js";
import { extent, linear, spread, ticks } from "./scales.js";
import { number } from "./words.js";

const TOP = 12, BOTTOM = 40, LEFT = 46;
const TABLE_ROWS = 400;
const LONGEST_LABEL = 12; // characters beside the right edge; longer names stand in the legend alone

/**
 * A chart as a figure. `series`: [{name, style, dots: [{x, y, low?, high?, note?}]}]; `style` is a class of the colour.
 * `isWhole` keeps the x axis to whole numbers; `small` is for charts of one line.
 */
export function lineChart({ title, series, xLabel, yLimits, isWhole = false, formatY = number, small = false }) {
  const drawn = series
    .map((each) => ({ ...each, dots: each.dots.filter((dot) => Number.isFinite(dot.x) && Number.isFinite(dot.y)).sort((a, b) => a.x - b.x) }))
    .filter((each) => each.dots.length > 0);
  const figure = h("figure", { class: small ? "chart small" : "chart" }, h("figcaption", {}, title));
  if (drawn.length === 0) {
    figure.append(h("p", { class: "soft" }, "No numbers yet."));
    return figure;
  }
  const sheet = h("div", { class: "sheet", tabindex: "0", role: "application", "aria-roledescription": "line chart",
    "aria-label": `${title}, over ${xLabel}. Arrow keys read the points; the table below holds them all.` });
  const tip = h("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  const names = drawn.length > 1 ? legend(drawn) : null;
  put(figure, names, h("div", { class: "frame" }, sheet, tip), tableOf(title, drawn, xLabel, formatY));
  const chart = { drawn, xLabel, yLimits, isWhole, formatY, small, names, sheet, tip };
  const observer = new ResizeObserver(([entry]) => entry.contentRect.width > 0 && draw(chart, entry.contentRect.width));
  observer.observe(sheet);
  reads(chart);
  return figure;
}

function legend(series) {
  return h("ul", { class: "legend" }, series.map((each) => h("li", { class: each.style },
    s("svg", { width: 26, height: 10, "aria-hidden": "true" },
      s("line", { class: "line", x1: 1, x2: 25, y1: 5, y2: 5 }), s("circle", { class: "dot", cx: 13, cy: 5, r: 3.2 })),
    h("span", {}, each.name))));
}

/** Draw at `width` pixels, so that text has its own size on any screen. */
function draw(chart, width) {
  const { drawn, yLimits, small } = chart;
  const isLabelled = !small && drawn.length > 1 && width > 300 && drawn.every((each) => each.name.length <= LONGEST_LABEL);
  if (chart.names) chart.names.hidden = isLabelled; // named once, where there is room beside the lines
  const right = isLabelled ? 92 : 16;
  const height = small ? 150 : Math.round(Math.min(300, Math.max(210, width * 0.5)));
  const dots = drawn.flatMap((each) => each.dots);
  const xs = extent(dots.map((dot) => dot.x));
  const ys = yLimits ?? extent(dots.flatMap((dot) => [dot.y, dot.low ?? dot.y, dot.high ?? dot.y]));
  const x = linear(xs, [LEFT, width - right]);
  const y = linear(ys, [height - BOTTOM, TOP]);
  Object.assign(chart, { x, y, width, height });
  chart.cursor = s("line", { class: "cursor", y1: TOP, y2: height - BOTTOM, visibility: "hidden" });
  const labels = isLabelled ? endLabels(drawn, y, width - right + 10, height) : [];
  chart.sheet.replaceChildren(s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", focusable: "false" },
    axes(chart, xs, ys, right), chart.cursor,
    drawn.map((each) => band(each, x, y)), drawn.map((each) => line(each, x, y)), labels));
}

function axes(chart, xs, ys, right) {
  const { x, y, width, height, small, isWhole } = chart;
  const vertical = ticks(ys[0], ys[1], small ? 4 : 5);
  const horizontal = ticks(xs[0], xs[1], Math.max(4, Math.min(7, Math.floor((width - LEFT - right) / 56))), isWhole);
  return [
    vertical.map((value) => [
      s("line", { class: "grid", x1: LEFT, x2: width - right, y1: y(value), y2: y(value) }),
      s("text", { class: "tick", x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, number(value))]),
    horizontal.map((value) => s("text", { class: "tick", x: x(value), y: height - BOTTOM + 18, "text-anchor": "middle" }, number(value))),
    s("line", { class: "axis", x1: LEFT, x2: width - right, y1: height - BOTTOM, y2: height - BOTTOM }),
    s("text", { class: "name", x: (LEFT + width - right) / 2, y: height - 4, "text-anchor": "middle" }, chart.xLabel),
  ];
}

function band(series, x, y) {
  const dots = series.dots.filter((dot) => Number.isFinite(dot.low) && Number.isFinite(dot.high));
  if (dots.length === 1) {
    const [dot] = dots;
    return s("line", { class: `whisker ${series.style}`, x1: x(dot.x), x2: x(dot.x), y1: y(dot.low), y2: y(dot.high) });
  }
  const upper = dots.map((dot) => `${x(dot.x).toFixed(1)},${y(dot.high).toFixed(1)}`);
  const lower = dots.toReversed().map((dot) => `${x(dot.x).toFixed(1)},${y(dot.low).toFixed(1)}`);
  return dots.length ? s("polygon", { class: `band ${series.style}`, points: [...upper, ...lower].join(" ") }) : null;
}

function line(series, x, y) {
  const points = series.dots.map((dot) => `${x(dot.x).toFixed(1)},${y(dot.y).toFixed(1)}`).join(" ");
  const hasMarks = series.dots.length <= 30;
  return [
    series.dots.length > 1 && s("polyline", { class: `line ${series.style}`, points }),
    hasMarks && series.dots.map((dot) => s("circle", { class: `dot ${series.style}`, cx: x(dot.x), cy: y(dot.y), r: 3.4 })),
  ];
}

function endLabels(series, y, left, height) {
  const heights = spread(series.map((each) => y(each.dots.at(-1).y) + 4), 17, TOP + 8, height - BOTTOM);
  return series.map((each, i) => s("text", { class: `label ${each.style}`, x: left, y: heights[i] }, each.name));
}

/** Mouse and arrow keys put the reading line on a point; what stands there is shown and said. */
function reads(chart) {
  const { drawn, sheet, tip } = chart;
  const stops = [...new Set(drawn.flatMap((each) => each.dots.map((dot) => dot.x)))].sort((a, b) => a - b);
  let current = -1;
  const leave = () => { tip.hidden = true; current = -1; chart.cursor?.setAttribute("visibility", "hidden"); };
  const read = (index, isSaid) => {
    if (!chart.x) return;
    current = Math.max(0, Math.min(stops.length - 1, index));
    const rows = drawn.flatMap((each) => each.dots.filter((dot) => dot.x === stops[current]).map((dot) => [each, dot]));
    point(chart, stops[current], rows);
    if (isSaid) say([`${chart.xLabel} ${number(stops[current])}`, ...rows.map(([each, dot]) => `${each.name} ${valueWords(chart, dot)}`)].join("; "));
  };
  sheet.addEventListener("pointermove", (event) => {
    if (!chart.x) return;
    const at = event.clientX - sheet.getBoundingClientRect().left;
    const nearest = stops.reduce((best, x, i) => (Math.abs(chart.x(x) - at) < Math.abs(chart.x(stops[best]) - at) ? i : best), 0);
    if (nearest !== current) read(nearest, false);
  });
  sheet.addEventListener("pointerleave", leave);
  sheet.addEventListener("blur", leave);
  sheet.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: current + 1, ArrowLeft: current < 0 ? stops.length - 1 : current - 1, Home: 0, End: stops.length - 1 };
    if (event.key === "Escape") leave();
    if (!(event.key in moves)) return;
    event.preventDefault();
    read(moves[event.key], true);
  });
}

function point(chart, stop, rows) {
  const { tip, cursor, x, width } = chart;
  cursor.setAttribute("x1", x(stop));
  cursor.setAttribute("x2", x(stop));
  cursor.setAttribute("visibility", "visible");
  tip.replaceChildren(h("b", {}, `${chart.xLabel} ${number(stop)}`), ...rows.map(([each, dot]) =>
    h("div", { class: each.style }, h("i", { class: "swatch" }), h("span", { class: "who" }, each.name), h("span", { class: "figure" }, valueWords(chart, dot)),
      dot.note && h("small", {}, dot.note))));
  tip.hidden = false;
  const isRight = x(stop) > width / 2;
  tip.style.left = isRight ? "auto" : `${x(stop) + 12}px`;
  tip.style.right = isRight ? `${width - x(stop) + 12}px` : "auto";
}

function valueWords(chart, dot) {
  const range = Number.isFinite(dot.low) ? ` [${chart.formatY(dot.low)}, ${chart.formatY(dot.high)}]` : "";
  return chart.formatY(dot.y) + range;
}

/** The same numbers as a table, made when somebody opens it. */
function tableOf(title, series, xLabel, formatY) {
  const body = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, table` });
  const fill = () => {
    const rows = series.flatMap((each) => each.dots.slice(-TABLE_ROWS).map((dot) => h("tr", {},
      h("th", { scope: "row" }, each.name), h("td", { class: "n" }, number(dot.x)), h("td", { class: "n" }, valueWords({ formatY }, dot)), h("td", {}, dot.note))));
    body.replaceChildren(h("table", {}, h("caption", { class: "unseen" }, title),
      h("thead", {}, h("tr", {}, ["series", xLabel, "value", "note"].map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, rows)));
  };
  return h("details", { class: "data", "data-key": `table ${title}`, ontoggle: (event) => event.target.open && fill() }, h("summary", {}, "Table"), body);
}
