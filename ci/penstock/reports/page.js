"use strict";
// All of it can be read without this; it only folds and filters.
const all = document.querySelectorAll("details");
const fold = (open) => all.forEach((part) => { part.open = open; });
document.querySelector(".tools").hidden = false;
document.querySelector("#open").addEventListener("click", () => fold(true));
document.querySelector("#close").addEventListener("click", () => fold(false));
const named = (part) => (part.querySelector("summary") ?? part).textContent.toLowerCase();
const parts = [...document.querySelectorAll("details.filtered, .filtered tbody tr")].map((part) => [part, named(part)]);
document.querySelector("#filter").addEventListener("input", ({ target }) => {
  const words = target.value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const [part, name] of parts) {
    part.hidden = !words.every((word) => name.includes(word));
    found += !part.hidden;
  }
  document.querySelector("#found").textContent = words.length ? `${found} of ${parts.length} found` : "";
});
