// Light, dark, or what the system says.

import { by } from "./dom.js";
import { among } from "./words.js";

const KEPT = "sidrec-theme";
const ALL = ["auto", "light", "dark"];
const now = () => localStorage.getItem(KEPT) ?? "auto";

export function label() {
  by("theme").textContent = among("themes", now());
}

function apply() {
  document.documentElement.dataset.theme = now();
}

export function start() {
  apply();
  by("theme").addEventListener("click", () => {
    localStorage.setItem(KEPT, ALL[(ALL.indexOf(now()) + 1) % ALL.length]);
    apply();
    label();
  });
}
