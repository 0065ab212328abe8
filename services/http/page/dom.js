// Elements from values. Text goes in as text: nothing here, or anywhere on this page, parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element: h("p", {class: "note", onclick: f}, "text", child, [more]). Null and false children are left out. */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** An SVG element. */
export function s(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "selected") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Put children into an element, beside what it holds. Null and false ones are left out, as in `h`. */
export function put(element, ...children) {
  return filled(element, {}, children);
}

const shown = new WeakMap();

/**
 * Show `build(data)` in `place`, unless it shows the same data already. Open details stay open, and the focus stays
 * where it was, both by `data-key`, so that a refresh disturbs nobody.
 */
export function refill(place, data, build) {
  const now = JSON.stringify(data);
  if (shown.get(place) === now) return;
  shown.set(place, now);
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const open = new Set([...place.querySelectorAll("details[open][data-key]")].map((each) => each.dataset.key));
  place.replaceChildren(...[build(data)].flat(Infinity).filter(Boolean));
  for (const each of place.querySelectorAll("details[data-key]")) if (open.has(each.dataset.key)) each.open = true;
  if (focused) [...place.querySelectorAll("[data-key]")].find((each) => each.dataset.key === focused)?.focus();
}

/** Say something to who listens instead of looking. */
export function say(text) {
  document.getElementById("spoken").textContent = text;
}
