// Light, dark, or as the system: set before the first paint, so that nothing flashes.
"use strict";
(() => {
  let kept = null;
  try { kept = localStorage.getItem("viter.theme"); } catch { /* storage may be switched off */ }
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
})();
