// What came back: items in order, the time it took, and the exchange as it was.

import * as api from "./api.js";
import { draw } from "./beam.js";
import { fill, h } from "./dom.js";
import { state } from "./state.js";
import { among, t } from "./words.js";

/** Draws the answers of all sides: [{side, path, body, answer | problem}]. `act` and `exclude` are called with an item. */
export function show(node, given, { act, exclude, failed }) {
  const first = given[0]?.answer;
  fill(node, h("div", { class: "sides" }, given.map((one) =>
    h("article", { class: "card", id: `answer-${one.side}`, "aria-label": `${t("items")} ${one.side}` },
      one.problem ? problem(one.problem) : answered(one, one.side === "A" ? null : first, { act, exclude, failed })))));
}

/** A problem in words: what the service said, field by field. */
export function problem(said) {
  if (said.status === 0) return h("p", { class: "problem" }, t("offline"));
  return h("div", { class: "problem" }, h("p", {}, said.message), said.errors.length > 1 && h("ul", {}, said.errors.map((one) => h("li", {}, `${one.field}: ${one.message}`))));
}

function answered({ side, path, body, answer }, before, tools) {
  const version = `${answer.bundle.name}/${answer.bundle.version}`;
  const facts = [t("answeredBy", version, answer.timing_ms.total.toFixed(1)), answer.reason && t("because", answer.reason), t("eligible", answer.eligible_items), answer.history_used !== undefined && t("used", answer.history_used)];
  return [
    h("h2", {}, state.compare ? `${t("items")} ${side}` : t("items")),
    h("p", { class: "dim facts" }, facts.filter(Boolean).join(" · ")),
    answer.items.length ? ranked(answer, before, tools) : h("p", { class: "empty" }, t("noItems")),
    h("h3", {}, t("beam")),
    answer.beam ? draw(answer.beam, answer.items, side) : h("p", { class: "dim" }, t("noBeam")),
    h("h3", {}, t("stages")), stages(answer.timing_ms),
    raw(t("request"), api.curl(path, body)), raw(t("answer"), JSON.stringify(answer, null, 2)),
  ];
}

function ranked(answer, before, tools) {
  const scores = answer.items.map((one) => one.score).filter((score) => score !== null);
  const places = before && new Map(before.items.map((one) => [one.item_id, one.rank]));
  return h("ol", { class: "ranked" }, answer.items.map((one) => h("li", {},
    h("span", { class: "rank" }, String(one.rank)),
    h("div", { class: "about" },
      h("button", { type: "button", class: "item title", onclick: () => tools.act(one, answer.request_id) }, one.title ?? one.item_id),
      h("div", { class: "row small" }, codes(one.sid), h("span", { class: `source ${one.source}` }, among("sources", one.source ?? "model")), places && moved(one, places)),
      bar(one.score, scores)),
    h("div", { class: "tools" }, describer(one, tools.failed),
      h("button", { type: "button", class: "quiet", "aria-label": `${t("exclude")}: ${one.title ?? one.item_id}`, onclick: () => tools.exclude(one) }, t("exclude"))))));
}

function describer(one, failed) {
  if (state.bundle.answers.describe) return null;
  const show = async (event) => {
    try {
      const { text } = await api.describe(one.item_id);
      event.target.closest("li").querySelector(".about").append(h("p", { class: "small described" }, t("described", text)));
      event.target.remove();
    } catch (problem) {
      failed(problem);
    }
  };
  return h("button", { type: "button", class: "quiet", "aria-label": `${t("describe")}: ${one.title ?? one.item_id}`, onclick: show }, t("describe"));
}

/** A SID, code by code, each level in its colour. */
function codes(sid) {
  const tokens = sid.match(/<[^>]*>/g) ?? [sid];
  return h("code", { class: "sid", "aria-label": `${t("sid")} ${sid}` }, tokens.map((token, i) => h("span", { class: `level-${i % 5}` }, token.replace(/[<>]/g, ""))));
}

/** The share of the best item's probability that an item has. */
function bar(score, scores) {
  if (score === null) return h("p", { class: "dim small" }, t("popularNow"));
  const share = Math.exp(score - Math.max(...scores));
  return h("div", { class: "row small" }, h("meter", { min: 0, max: 1, value: share.toFixed(4), "aria-label": t("score") }), h("span", { class: "dim" }, `${t("score")} ${score.toFixed(3)}`));
}

function moved(one, places) {
  const was = places.get(one.item_id);
  if (was === undefined) return h("span", { class: "moved new" }, t("newHere"));
  const by = was - one.rank;
  return h("span", { class: "moved", title: by > 0 ? t("up", by) : by < 0 ? t("down", -by) : t("same") }, by > 0 ? `▲ ${by}` : by < 0 ? `▼ ${-by}` : "=");
}

function stages(timing) {
  const { total, ...parts } = timing;
  return h("table", { class: "stages" }, h("tbody", {}, Object.entries(parts).map(([name, ms]) =>
    h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, h("meter", { min: 0, max: total, value: ms, "aria-label": name })), h("td", { class: "number" }, `${ms.toFixed(2)} ms`)))));
}

function raw(name, text) {
  const copy = async (event) => {
    await navigator.clipboard.writeText(text);
    event.target.textContent = t("copied");
  };
  return h("details", {}, h("summary", {}, name), navigator.clipboard && h("button", { type: "button", class: "quiet", onclick: copy }, t("copy")), h("pre", { tabindex: "0" }, text));
}
