// What came back: items in order, the time it took, and the exchange as it was.

import * as api from "./api.js";
import { draw } from "./beam.js";
import { fill, h } from "./dom.js";
import { state } from "./state.js";
import { among, t } from "./words.js";

/** Draws the answers of all sides: [{side, path, body, answer | problem}]. `tools` are what its buttons do. */
export function show(node, given, tools) {
  const first = given[0]?.answer;
  fill(node, h("div", { class: "sides" }, given.map((one) =>
    h("article", { class: "card", id: `answer-${one.side}`, "aria-label": `${t("items")} ${one.side}` },
      one.problem ? problem(one.problem) : answered(one, one.side === "A" ? null : first, tools)))));
}

/** A problem in words: what the service said, field by field. */
export function problem(said) {
  if (said.status === 0) return h("p", { class: "problem" }, t("offline"));
  return h("div", { class: "problem" }, h("p", {}, said.message), said.errors.length > 1 && h("ul", {}, said.errors.map((one) => h("li", {}, `${one.field}: ${one.message}`))));
}

function answered({ side, path, body, answer }, before, tools) {
  const version = `${answer.bundle.name}/${answer.bundle.version}`;
  const facts = [t("answeredBy", version, answer.timing_ms.total.toFixed(1)), answer.reason && t("because", answer.reason), t("eligible", answer.eligible_items.toLocaleString()), answer.history_used !== undefined && t("used", answer.history_used)];
  return [
    h("h2", {}, state.compare ? `${t("items")} ${side}` : t("items")),
    h("p", { class: "dim facts" }, facts.filter(Boolean).join(" · ")),
    result(side, answer, before, tools, [
      h("h3", {}, t("stages")), stages(answer.timing_ms),
      raw(t("request"), api.curl(path, body)), raw(t("answer"), JSON.stringify(answer, null, 2)),
    ]),
  ];
}

/** The items, and behind them the beam, each lighting what belongs to it in the other; then `more`. */
function result(side, answer, before, tools, more) {
  const best = Math.max(...answer.items.map((one) => one.score ?? -Infinity));
  const rows = answer.items.map((one) => row(one, best, answer, before, tools));
  const list = h("div", {}, rows.length ? h("ol", { class: "ranked" }, rows) : h("p", { class: "empty" }, t("noItems")));
  const behind = (...parts) => h("div", { class: "result" }, list, h("div", { class: "behind" }, h("h3", {}, t("beam")), parts, more));
  if (!answer.beam) return behind(h("p", { class: "dim" }, t("noBeam"), " ", h("button", { type: "button", class: "quiet", onclick: tools.invent }, t("invent").toLowerCase())));
  const { figure, light } = draw(answer.beam, answer.items, side, (prefix) => rows.forEach((node, i) => node.classList.toggle("lit", prefix !== null && answer.items[i].sid.startsWith(prefix))));
  rows.forEach((node, i) => {
    const point = () => light(answer.items[i].sid);
    const leave = () => light(undefined);
    for (const [name, work] of Object.entries({ pointerenter: point, focusin: point, pointerleave: leave, focusout: leave })) node.addEventListener(name, work);
  });
  return behind(figure);
}

function row(one, best, answer, before, tools) {
  const title = one.title ?? one.item_id;
  return h("li", {},
    h("span", { class: "rank" }, String(one.rank)),
    h("div", { class: "about" },
      h("button", { type: "button", class: "item title", onclick: () => tools.act(one, answer.request_id) }, title),
      h("div", { class: "row small" }, codes(one.sid), h("span", { class: `source ${one.source}` }, among("sources", one.source ?? "model")), before && moved(one, before)),
      h("div", { class: "row small" }, bar(one.score, best),
        h("span", { class: "tools" }, describer(one, tools.failed),
          h("button", { type: "button", class: "plain", "aria-label": `${t("exclude")}: ${title}`, onclick: () => tools.exclude(one) }, t("exclude"))))));
}

function describer(one, failed) {
  if (state.bundle.answers.describe) return null;
  const show = async (event) => {
    try {
      const { text } = await api.describe(one.item_id);
      event.target.closest(".about").append(h("p", { class: "small described" }, t("described", text)));
      event.target.remove();
    } catch (problem) {
      failed(problem);
    }
  };
  return h("button", { type: "button", class: "plain", "aria-label": `${t("describe")}: ${one.title ?? one.item_id}`, onclick: show }, t("describe"));
}

/** A SID, code by code, each level in its colour. */
function codes(sid) {
  const tokens = sid.match(/<[^>]*>/g) ?? [sid];
  return h("code", { class: "sid", "aria-label": `${t("sid")} ${sid}` }, tokens.map((token, i) => h("span", { class: `level-${i % 5}` }, token.replace(/[<>]/g, ""))));
}

/** The share of the best item's probability that an item has; nothing for what no model scored. */
function bar(score, best) {
  if (score === null) return null;
  const share = Math.exp(score - best);
  return [h("meter", { min: 0, max: 1, value: share.toFixed(4), "aria-label": t("score") }), h("span", { class: "dim" }, `${t("score")} ${score.toFixed(3)}`)];
}

function moved(one, before) {
  const was = before.items.find((other) => other.item_id === one.item_id)?.rank;
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
