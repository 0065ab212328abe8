// The token: asked for in a dialog, kept in this tab or on this device, never in an address.

import { isKeptOnDevice, keepToken, token } from "./api.js";
import { h } from "./dom.js";

/** Ask the person. Resolves to whether a token was given. `why` tells what was wrong with the one before. */
export function askForToken(why) {
  return new Promise((resolve) => {
    const field = h("input", { id: "token-field", type: "password", name: "token", autocomplete: "off", spellcheck: "false",
      required: true, "aria-describedby": "token-help" });
    const onDevice = h("input", { type: "checkbox", checked: isKeptOnDevice() });
    const done = (isGiven) => { dialog.close(); dialog.remove(); resolve(isGiven); };
    const forget = token() && h("button", { type: "button", class: "quiet", onclick: () => { keepToken(null); location.reload(); } }, "Forget it");
    const form = h("form", { method: "dialog", onsubmit: (event) => {
      event.preventDefault();
      const given = field.value.trim();
      if (!/^[\x21-\x7e]+$/.test(given)) {
        field.setCustomValidity("A token is one word of letters, digits and signs; this holds something else.");
        field.reportValidity();
        return;
      }
      keepToken(given, onDevice.checked);
      done(true);
    } },
      h("h2", { id: "token-title" }, "Token"),
      why && h("p", { class: "problem" }, `${why[0].toUpperCase()}${why.slice(1)}.`),
      h("p", { id: "token-help" }, "The service prints it once, when it is first started on a terminal; for its operator it also lies in ",
        h("code", {}, "runs/service/token"), "."),
      h("label", { for: "token-field" }, "Bearer token"),
      field,
      h("label", { class: "check" }, onDevice, "Keep on this device, also after this tab is closed"),
      h("div", { class: "actions" },
        h("button", { type: "submit", class: "main" }, "Continue"),
        h("button", { type: "button", onclick: () => done(false) }, "Cancel"), forget));
    field.addEventListener("input", () => field.setCustomValidity(""));
    const dialog = h("dialog", { "aria-labelledby": "token-title" }, form);
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); done(false); });
    document.body.append(dialog);
    dialog.showModal();
    field.focus();
  });
}
