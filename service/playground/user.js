// The user: who it is, what they did, and what they do next.

import * as api from "./api.js";
import { by, fill, h, settled } from "./dom.js";
import { state } from "./state.js";
import * as titles from "./titles.js";
import { t, typed } from "./words.js";

const TYPES = ["click", "cart", "purchase", "favorite"];
const FOUND = 6;
const NAMES = ["mei", "jun", "lan", "tao", "ida", "noa", "eli", "uma", "kai", "zoe"];

const some = (list) => list[Math.floor(Math.random() * list.length)];

/** Wires the panel; `changed` is called when the user or the history is another, `failed` with what went wrong. */
export function start({ changed, failed, say }) {
  const guarded = (work) => async (event) => {
    event?.preventDefault();
    try {
      await work(event);
    } catch (problem) {
      failed(problem);
    }
  };
  by("pick").addEventListener("submit", guarded(async () => open(by("user-id").value.trim(), changed)));
  by("invent").addEventListener("click", guarded(() => invent(true, changed)));
  by("invent-cold").addEventListener("click", guarded(() => invent(false, changed)));
  by("forget").addEventListener("click", guarded(async () => {
    await api.forget(state.user);
    say(t("forgotten"));
    await open(state.user, changed);
  }));
  const search = guarded(find);
  by("find").addEventListener("submit", search);
  by("find-query").addEventListener("input", settled(search, 250));
  by("found").addEventListener("click", guarded(async (event) => {
    const button = event.target.closest("button");
    if (button) await act(button.dataset.item, { changed, say });
  }));
}

/** Shows the user that the address names, else somebody. */
export async function begin({ changed }) {
  await open(state.user || (location.hash ? decodeURIComponent(location.hash.slice(1)) : some(NAMES)), changed);
  await find();
}

/** Shows another user. */
export async function open(user, changed) {
  if (!user) return;
  state.user = user;
  location.hash = encodeURIComponent(user);
  by("user-id").value = user;
  await reload();
  await changed();
}

async function invent(warm, changed) {
  const user = `${some(NAMES)}-${Math.random().toString(36).slice(2, 7)}`;
  const profile = Object.fromEntries(state.bundle.profile.filter((one) => one.values?.length).map((one) => [one.name, some(one.values)]));
  if (Object.keys(profile).length) await api.storeProfile(user, profile);
  if (warm) {
    // Somebody plausible: one item by chance, and what people take after it.
    const page = (await api.items("", 200)).items;
    const first = some(page);
    const next = await api.similar(first.item_id, { k: 8 });
    const rest = next.items.toSorted(() => Math.random() - 0.5).slice(0, 3);
    for (const one of [first, ...rest]) await api.event(user, one.item_id, "click");
  }
  await open(user, changed);
}

/** Lets the user do something with an item, and goes on from there. */
export async function act(id, { changed, say, request }) {
  const type = by("event-type").value;
  await api.event(state.user, id, type, state.settings.A.scene, request);
  say(t("added", await titles.title(id)));
  await reload();
  await changed();
}

async function reload() {
  state.history = (await api.history(state.user)).events;
  await show();
}

/** Draws the history. */
export async function show() {
  const type = by("event-type");
  const chosen = type.value;
  fill(type, TYPES.map((one) => h("option", { value: one, selected: one === chosen }, typed(one))));
  const names = await Promise.all(state.history.map((event) => titles.title(event.item_id)));
  const list = by("history");
  by("history-count").textContent = state.history.length ? `${state.history.length} · ${t("newest")}` : "";
  list.setAttribute("aria-label", t("history"));
  fill(list, state.history.length
    ? state.history.map((event, i) => h("li", {},
      h("span", { class: "title" }, names[i]),
      h("span", { class: "dim" }, h("span", { class: `type ${event.type}` }, typed(event.type)), " ", moment(event.timestamp))))
    : h("li", { class: "dim empty" }, t("noHistory")));
  list.scrollTop = list.scrollHeight;
}

const moment = (time) => new Date(time).toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });

async function find() {
  const { items } = await api.items(by("find-query").value.trim(), FOUND);
  titles.learn(items);
  fill(by("found"), items.length
    ? items.map((one) => h("li", {}, h("button", { type: "button", "data-item": one.item_id, class: "item" }, h("span", { class: "title" }, one.title ?? one.item_id), h("span", { class: "dim" }, one.item_id))))
    : h("li", { class: "dim empty" }, t("nothing")));
}
