// Playing cards, drawn: rank and suit in two corners, the suit large in the middle.

import { s } from "./dom.js";

const SUITS = {
  S: { name: "spades", style: "black", d: "M12 1.5C9 6 2.5 9.3 2.5 14a4.4 4.4 0 0 0 8 2.5c0 2.7-1 4.6-2.6 6h8.2c-1.6-1.4-2.6-3.3-2.6-6a4.4 4.4 0 0 0 8-2.5C21.5 9.3 15 6 12 1.5z" },
  H: { name: "hearts", style: "red", d: "M12 22C8.5 17.5 2 13.5 2 8.3A5.3 5.3 0 0 1 12 5.8 5.3 5.3 0 0 1 22 8.3C22 13.5 15.5 17.5 12 22z" },
  D: { name: "diamonds", style: "red", d: "M12 1.5L20 12l-8 10.5L4 12z" },
  C: { name: "clubs", style: "black", d: "M12 1.8a4.7 4.7 0 0 0-3.9 7.3A4.7 4.7 0 1 0 10.7 16.2c0 2.8-1 4.8-2.7 6.3h8c-1.7-1.5-2.7-3.5-2.7-6.3A4.7 4.7 0 1 0 15.9 9.1 4.7 4.7 0 0 0 12 1.8z" },
};
const NAMES = { A: "ace", J: "jack", Q: "queen", K: "king", T: "10" };
const CARD = /^[SHDC][A2-9TJQK]$/;

export function isCard(text) {
  return typeof text === "string" && CARD.test(text);
}

/** "CK" -> "king of clubs". */
export function cardName(card) {
  return `${NAMES[card[1]] ?? card[1]} of ${SUITS[card[0]].name}`;
}

/** What a card's rank is written as: "T" -> "10". */
export function rankOf(card) {
  return card[1] === "T" ? "10" : card[1];
}

/** What a card counts as, under "ten" or "rank". */
export function valueOf(card, faceCards) {
  const high = { A: 1, T: 10, J: 11, Q: 12, K: 13 };
  const value = high[card[1]] ?? Number(card[1]);
  return faceCards === "ten" ? Math.min(value, 10) : value;
}

/** The card as a picture, `small` for lists. */
export function cardFace(card, small = false) {
  const suit = SUITS[card[0]];
  const corner = (turn) => s("g", { transform: turn ? "rotate(180 50 70)" : null },
    s("text", { x: 15, y: 27, "text-anchor": "middle", "font-size": rankOf(card).length > 1 ? 21 : 24, class: "rank" }, rankOf(card)),
    s("path", { d: suit.d, transform: "translate(7.5 33) scale(.63)" }));
  return s("svg", { class: `card ${suit.style}${small ? " little" : ""}`, viewBox: "0 0 100 140", role: "img", "aria-label": cardName(card) },
    s("rect", { class: "paper", x: 1, y: 1, width: 98, height: 138, rx: 9 }),
    small
      ? [s("text", { x: 50, y: 66, "text-anchor": "middle", "font-size": 58, class: "rank" }, rankOf(card)),
         s("path", { d: suit.d, transform: "translate(24 76) scale(2.17)" })]
      : [corner(false), corner(true), s("path", { d: suit.d, transform: "translate(24 44) scale(2.17)" })]);
}

/** A hand of cards side by side; anything that is no card stays text. */
export function hand(cards, small = false) {
  const row = document.createElement("span");
  row.className = small ? "hand little" : "hand";
  row.append(...cards.map((card) => (isCard(card) ? cardFace(card, small) : String(card))));
  return row;
}
