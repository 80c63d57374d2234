// The page: wires its parts, and asks.

import * as answers from "./answers.js";
import * as api from "./api.js";
import * as controls from "./controls.js";
import { by, fill, h } from "./dom.js";
import { fresh, question, sides, state } from "./state.js";
import * as theme from "./theme.js";
import * as user from "./user.js";
import { t, translate, turn } from "./words.js";

let shown = [];
let asked = 0;

const say = (text) => fill(by("message"), text && h("p", { class: "note" }, text));

function failed(problem) {
  if (!(problem instanceof api.Problem)) throw problem;
  if (problem.status === 401) {
    by("key").hidden = false;
    by("key-value").focus();
  }
  fill(by("message"), answers.problem(problem));
}

/** Puts the question, for one side or two; an answer that comes after a newer question is not shown. */
async function ask() {
  const turnOf = ++asked;
  if (state.mode === "search" && (!state.query || state.bundle.answers.search)) return draw([]);
  by("answers").setAttribute("aria-busy", "true");
  const given = await Promise.all(sides().map(async (side) => {
    const [path, body] = question(side);
    try {
      return { side, path, body, answer: await api.call("POST", path, body) };
    } catch (problem) {
      if (!(problem instanceof api.Problem)) throw problem;
      return { side, path, body, problem };
    }
  }));
  if (turnOf === asked) draw(given);
}

function draw(given) {
  shown = given;
  by("answers").removeAttribute("aria-busy");
  answers.show(by("answers"), given, { act, exclude, failed, invent: () => by("invent").click() });
}

async function act(item, request) {
  by("answers").setAttribute("aria-busy", "true");
  try {
    await user.act(item.item_id, { changed: ask, say, request });
  } catch (problem) {
    by("answers").removeAttribute("aria-busy");
    failed(problem);
  }
}

function exclude(item) {
  state.excluded.set(item.item_id, item.title ?? item.item_id);
  controls.show();
  ask();
}

function head() {
  translate();
  by("language").textContent = t("language");
  by("language").setAttribute("aria-label", t("languageName"));
  const { name, version, items, levels } = state.bundle ?? {};
  by("bundle").textContent = name ? `${name}/${version} · ${t("bundleOf", items.toLocaleString(), levels.length)}` : "";
  theme.label();
}

async function load() {
  state.bundle = await api.bundle();
  state.settings.A ??= fresh(state.bundle);
  // Whoever may not list versions compares settings only.
  state.models = await api.models().then(({ models }) => models, () => []);
  by("key").hidden = true;
  say("");
  head();
  controls.show();
  await user.begin({ changed: ask });
}

by("language").addEventListener("click", async () => {
  turn();
  head();
  if (!state.bundle) return;
  controls.show();
  draw(shown);
  await user.show();
});
by("key").addEventListener("submit", (event) => {
  event.preventDefault();
  api.useKey(by("key-value").value.trim());
  load().catch(failed);
});
if (matchMedia("(max-width: 820px)").matches) by("add").open = false;
theme.start();
controls.start(ask);
user.start({ changed: ask, failed, say });
head();
load().catch(failed);
