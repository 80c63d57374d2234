// How the question is put: one set of settings, or two side by side.

import { by, fill, h } from "./dom.js";
import { fresh, sides, state } from "./state.js";
import { among, t } from "./words.js";

const TESTS = { number: ["eq", "lt", "lte", "gt", "gte", "in"], other: ["eq", "in"] };
const SIGNS = { eq: "=", lt: "<", lte: "≤", gt: ">", gte: "≥", in: "∈" };

let ask;

/** Wires the panel; `asked` is called when the question has changed, or is put again. */
export function start(asked) {
  ask = asked;
  by("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
}

/** Draws it anew. */
export function show() {
  const mode = (name) => h("button", { type: "button", "aria-pressed": String(state.mode === name), onclick: () => change(() => (state.mode = name)) }, t(name));
  const compare = h("input", { type: "checkbox", id: "compare", onchange: (event) => change(() => turn(event.target.checked)) });
  compare.checked = state.compare;
  fill(by("modes"), mode("recommend"), mode("search"), h("label", { class: "check" }, compare, t("compare")),
    h("button", { class: "primary", form: "ask" }, t("ask")));
  by("modes").setAttribute("aria-label", t("question"));
  fill(by("ask"), state.mode === "search" && words(), settings(), excluded());
}

function change(work) {
  work();
  show();
  ask();
}

function turn(on) {
  state.compare = on;
  if (on) state.settings.B = structuredClone(state.settings.A);
}

function words() {
  const why = state.bundle.answers.search;
  if (why) return h("p", { class: "problem" }, t("cannotSearch", why));
  return h("label", {}, t("query"), h("input", { id: "query", type: "search", value: state.query, required: true, autocomplete: "off", oninput: (event) => (state.query = event.target.value) }));
}

/** Folded away at first where there is little room. */
function settings() {
  const open = by("settings")?.open ?? matchMedia("(min-width: 821px)").matches;
  return h("details", { id: "settings", open }, h("summary", {}, t("settings")), h("div", { class: "sides" }, sides().map(side)));
}

function side(name) {
  const of = (state.settings[name] ??= fresh(state.bundle));
  const put = (key) => (value) => {
    of[key] = value;
    if (state.mode === "recommend" || state.query) ask();
  };
  const searching = state.mode === "search";
  return h("fieldset", { id: `settings-${name}` }, h("legend", { class: state.compare ? "" : "unseen" }, t("settingsOf", name)),
    h("div", { class: "grid" },
      number(t("k"), of.k, 1, state.bundle.max_k, put("k")),
      number(t("beamWidth"), of.beam_width, 1, state.bundle.max_k, put("beam_width")),
      !searching && state.bundle.scenes.length > 0 && choice(t("scene"), of.scene, [["", t("none")], ...state.bundle.scenes.map((one) => [one, one])], put("scene")),
      !searching && state.models.length > 1 && choice(t("model"), of.model, [["", t("active")], ...state.models.map(version)], put("model")),
      !searching && choice(t("seen"), of.exclude_seen, ["", "nothing", "purchased", "history"].map((one) => [one, among("seens", one)]), put("exclude_seen")),
      !searching && state.bundle.profile.map((field) => choice(field.name, of.profile[field.name] ?? "", [["", t("asStored")], ...(field.values ?? []).map((one) => [one, one])], (value) => put("profile")({ ...of.profile, [field.name]: value })))),
    filters(of, put("filters")));
}

const version = ({ name, version: number }) => [JSON.stringify({ name, version: number }), `${name}/${number}`];

function number(label, value, least, most, changed) {
  const input = h("input", { type: "number", min: least, max: most, value, required: true, onchange: (event) => event.target.reportValidity() && changed(event.target.valueAsNumber) });
  return h("label", {}, label, input);
}

function choice(label, value, options, changed) {
  const select = h("select", { onchange: (event) => changed(event.target.value) }, options.map(([one, name]) => h("option", { value: one, selected: one === value }, name)));
  return h("label", {}, label, select);
}

function filters(of, changed) {
  if (!state.bundle.attributes.length) return null;
  const redraw = (rows) => {
    changed(rows);
    show();
  };
  const edited = (i, part) => of.filters.map((row, j) => (i === j ? { ...row, ...part } : row));
  const rows = of.filters.map((row, i) => {
    const type = state.bundle.attributes.find((one) => one.name === row.attribute).type;
    return h("div", { class: "row filter" },
      choice(t("attribute"), row.attribute, state.bundle.attributes.map((one) => [one.name, one.name]), (attribute) => redraw(edited(i, { attribute, test: "eq" }))),
      choice(t("test"), row.test, (TESTS[type] ?? TESTS.other).map((one) => [one, SIGNS[one]]), (test) => changed(edited(i, { test }))),
      h("label", { class: "grow" }, t("value"), h("input", { value: row.value, onchange: (event) => changed(edited(i, { value: event.target.value })) })),
      h("button", { type: "button", class: "quiet", "aria-label": `${t("remove")}: ${row.attribute}`, onclick: () => redraw(of.filters.filter((_, j) => j !== i)) }, "✕"));
  });
  const add = () => {
    of.filters = [...of.filters, { attribute: state.bundle.attributes[0].name, test: "eq", value: "" }];
    show();
  };
  return [rows, h("button", { type: "button", class: "quiet", onclick: add }, t("addFilter"))];
}

function excluded() {
  if (!state.excluded.size) return null;
  return h("p", { id: "excluded" }, `${t("excluded")}: `, [...state.excluded].map(([id, title]) =>
    h("button", { type: "button", class: "chip", "aria-label": `${t("include")}: ${title}`, onclick: () => change(() => state.excluded.delete(id)) }, title, " ✕")));
}
