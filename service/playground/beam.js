// The beam, drawn: a column for each level, a mark for each prefix, a line to its parent.

import { h, s } from "./dom.js";
import { t } from "./words.js";

const WIDTH = 172; // of a column
const MARK = 104;
const ROW = 20;
const TOP = 44;
const SHOWN = 6; // of those that died, at each level

const percent = (log) => (Math.exp(log) * 100).toLocaleString(undefined, { maximumSignificantDigits: 3 }) + " %";

/** The drawing of the `beam` of an answer, with where its items came from. */
export function draw(beam, items, side) {
  const levels = beam.filter((level) => level.prefixes.some((one) => one.token !== null));
  const columns = levels.map(chosen);
  const rows = Math.max(...columns.map((column) => column.length));
  const size = [levels.length * WIDTH + 8, TOP + rows * ROW + 24];
  const detail = h("p", { class: "detail small", "aria-live": "polite" }, t("beamHelp"));
  const ranks = new Map(items.map((one) => [one.sid, one.rank]));
  const nodes = columns.map((column, depth) => column.map((one, row) => ({ ...one, depth, row, level: levels[depth], children: [] })));
  for (const column of nodes.slice(1)) {
    for (const node of column) {
      node.above = nodes[node.depth - 1].find((one) => one.place === node.parent);
      node.above?.children.push(node);
    }
  }
  const all = nodes.flat();
  const drawing = s("svg", { class: "beam", width: size[0], height: size[1], viewBox: `0 0 ${size.join(" ")}`, role: "group", "aria-label": t("beam") },
    levels.map(heading),
    all.filter((node) => node.above).map((node) => (node.line = line(node))),
    all.map((node) => (node.mark = mark(node, ranks))));
  walk(drawing, nodes, detail, ranks);
  return h("figure", { id: `beam-${side}` }, legend(), h("div", { class: "scroll" }, drawing), detail);
}

/** What is drawn of a level: all that was kept, the best that were not, what eligibility barred. */
function chosen({ prefixes }) {
  const placed = prefixes.map((one, place) => ({ ...one, place }));
  const of = (fate) => placed.filter((one) => one.fate === fate);
  return [...of("kept"), ...of("dropped").slice(0, SHOWN), ...of("ineligible").slice(0, SHOWN)];
}

function heading(level, depth) {
  const kept = level.prefixes.filter((one) => one.fate === "kept").length;
  const text = [t("considered", level.considered), level.removed ? t("removed", level.removed) : ""].filter(Boolean).join(", ");
  return s("text", { x: depth * WIDTH + 4, y: 14, class: "heading" }, s("tspan", { class: `name level-${depth % 5}` }, `${t("level")} ${level.level}`), ` · ${kept} ${t("kept")}`,
    s("tspan", { x: depth * WIDTH + 4, dy: 16, class: "dim" }, text));
}

const x = (node) => node.depth * WIDTH + 4;
const y = (node) => TOP + node.row * ROW;

function line(node) {
  const from = [x(node.above) + MARK, y(node.above) + 8];
  const to = [x(node), y(node) + 8];
  const middle = (from[0] + to[0]) / 2;
  return s("path", { class: `line ${node.fate}`, d: `M${from} C${middle},${from[1]} ${middle},${to[1]} ${to}`, "stroke-width": 0.75 + 3 * Math.exp(node.log_probability) });
}

function mark(node, ranks) {
  const rank = ranks.get(node.prefix);
  const label = `${node.prefix}: ${t(node.fate)}, ${said(node)}${rank ? `, ${t("rank")} ${rank}` : ""}`;
  return s("g", { class: `mark ${node.fate} ${rank ? "shown" : ""}`, transform: `translate(${x(node)},${y(node)})`, tabindex: -1, role: "img", "aria-label": label },
    s("rect", { class: "box", width: MARK, height: 16, rx: 4 }),
    node.fate === "kept" && s("rect", { class: `fill level-${node.depth % 5}`, width: Math.max(2, MARK * Math.exp(node.log_probability)), height: 16, rx: 4 }),
    s("text", { x: 6, y: 12 }, node.token?.replace(/[<>]/g, "") ?? t("whole")),
    rank && s("text", { x: MARK - 5, y: 12, class: "rank" }, `#${rank}`));
}

const said = (node) => t("details", percent(node.log_probability), node.score.toFixed(3), node.eligible_items);

/** Pointing at a mark, or walking there with the arrow keys, lights its way up and what came of it. */
function walk(drawing, nodes, detail, ranks) {
  const all = nodes.flat();
  let current = all[0];
  if (!current) return;
  current.mark.setAttribute("tabindex", 0);
  const light = (node) => {
    const lit = new Set();
    for (let one = node; one; one = one.above) lit.add(one);
    const below = (one) => one.children.forEach((child) => (lit.add(child), below(child)));
    below(node);
    drawing.classList.add("lit");
    for (const one of all) for (const part of [one.mark, one.line]) part?.classList.toggle("on", lit.has(one));
    const rank = ranks.get(node.prefix);
    detail.replaceChildren(h("code", {}, node.prefix), ` ${t(node.fate)} · ${said(node)}${rank ? ` · ${t("rank")} ${rank}` : ""}`);
  };
  const dark = () => drawing.classList.remove("lit");
  const go = (node) => {
    current.mark.setAttribute("tabindex", -1);
    current = node;
    current.mark.setAttribute("tabindex", 0);
    current.mark.focus();
  };
  for (const node of all) {
    node.mark.addEventListener("pointerenter", () => light(node));
    node.mark.addEventListener("focus", () => light(node));
    node.mark.addEventListener("click", () => go(node));
  }
  drawing.addEventListener("pointerleave", dark);
  drawing.addEventListener("focusout", dark);
  drawing.addEventListener("keydown", (event) => {
    const column = nodes[current.depth];
    const next = { ArrowUp: column[current.row - 1], ArrowDown: column[current.row + 1], ArrowLeft: current.above, ArrowRight: current.children[0] }[event.key];
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    if (next) go(next);
  });
}

function legend() {
  return h("figcaption", { class: "legend small" }, ["kept", "dropped", "ineligible"].map((fate) => h("span", { class: fate }, h("i", { "aria-hidden": "true" }), t(fate))));
}
