// The beam, drawn: a column for each level, a mark for each prefix, a line to its parent as wide as
// the probability that came so far.

import { h, s } from "./dom.js";
import { t } from "./words.js";

const ROW = 20;
const BOX = 16;
const RANKS = 36; // room for the ranks behind the last column
const SHOWN = 6; // of those that died, at each level
const NARROW = 76; // of a mark; narrower ones have no room for a probability

const percent = (log) => (Math.exp(log) * 100).toLocaleString(undefined, { maximumSignificantDigits: 2 }) + "%";

/** The drawing of the `beam` of an answer, with where its items came from. `lit` is called with the prefix that
 * somebody points at, null for none. Returns the figure, and `light` for pointing from elsewhere. */
export function draw(beam, items, side, lit) {
  const detail = h("p", { class: "detail small" }, t("beamHelp"));
  const scroll = h("div", { class: "scroll" });
  const figure = h("figure", { id: `beam-${side}` }, legend(), detail, scroll);
  const nodes = treeOf(beam);
  let walk = null;
  let width = 0;
  // As wide as there is room for, so drawn when that is known, and anew when it changes.
  new ResizeObserver(() => {
    if (scroll.clientWidth === width || !nodes.length) return;
    width = scroll.clientWidth;
    const drawing = drawn(nodes, items, sizes(width, nodes));
    walk = walking(drawing, nodes, (node) => {
      detail.replaceChildren(...(node ? told(node, items) : [t("beamHelp")]));
      lit(node?.prefix ?? null);
    });
    scroll.replaceChildren(drawing);
  }).observe(scroll);
  return { figure, light: (sid) => walk?.(nodes.flat().findLast((node) => node.prefix === sid && node.fate === "kept")) };
}

/** Nodes by level: what is drawn of it, joined to what is above. A level at which every SID was complete is left out. */
function treeOf(beam) {
  const levels = beam.filter((level) => level.prefixes.some((one) => one.token !== null));
  const nodes = levels.map((level, depth) => chosen(level).map((one, row) => ({ ...one, depth, row, level, children: [] })));
  for (const column of nodes.slice(1)) {
    for (const node of column) {
      node.above = nodes[node.depth - 1].find((one) => one.place === node.parent);
      node.above?.children.push(node);
    }
  }
  return nodes;
}

/** All that was kept, the best that were not, the best that eligibility barred. */
function chosen({ prefixes }) {
  const placed = prefixes.map((one, place) => ({ ...one, place }));
  const of = (fate) => placed.filter((one) => one.fate === fate);
  return [...of("kept"), ...of("dropped").slice(0, SHOWN), ...of("ineligible").slice(0, SHOWN)];
}

function sizes(width, nodes) {
  const gap = width < 560 ? 20 : 34;
  const pitch = Math.min(142, Math.max(56, (width - RANKS + gap) / nodes.length));
  return { pitch, mark: Math.floor(pitch - gap), top: nodes.some(([one]) => one.level.removed) ? 54 : 40 };
}

function drawn(nodes, items, size) {
  const ranks = new Map(items.map((one) => [one.sid, one.rank]));
  const rows = Math.max(...nodes.map((column) => column.length));
  const whole = [Math.ceil((nodes.length - 1) * size.pitch + size.mark + RANKS), size.top + rows * ROW];
  const all = nodes.flat();
  const at = (node) => [node.depth * size.pitch + 1, size.top + node.row * ROW];
  return s("svg", { class: "beam", width: whole[0], height: whole[1], viewBox: `0 0 ${whole.join(" ")}`, role: "group", "aria-label": t("beam") },
    nodes.map((column, depth) => heading(column[0].level, depth, size)),
    all.filter((node) => node.above).map((node) => (node.line = line(node, at, size))),
    all.map((node) => (node.mark = mark(node, at, size, ranks.get(node.prefix), node.depth === nodes.length - 1))));
}

function heading(level, depth, { pitch, mark }) {
  const kept = level.prefixes.filter((one) => one.fate === "kept").length;
  const x = depth * pitch + 1;
  const counted = mark < NARROW ? `${kept} / ${level.considered}` : t("keptOf", kept, level.considered);
  return s("text", { x, y: 14, class: "heading" }, s("tspan", { class: `name level-${depth % 5}` }, `${t("level")} ${level.level}`),
    s("tspan", { x, dy: 15, class: "dim" }, counted),
    level.removed > 0 && s("tspan", { x, dy: 14, class: "barred" }, t("removed", level.removed)));
}

function line(node, at, { mark }) {
  const [x, y] = at(node);
  const [left, top] = at(node.above);
  const [from, to] = [left + mark, x];
  const middle = (from + to) / 2;
  const d = `M${from},${top + BOX / 2} C${middle},${top + BOX / 2} ${middle},${y + BOX / 2} ${to},${y + BOX / 2}`;
  return s("path", { class: `line ${node.fate}`, d, "stroke-width": (0.8 + 9 * Math.sqrt(Math.exp(node.score))).toFixed(2) });
}

function mark(node, at, { mark: width }, rank, last) {
  const label = [node.prefix, `${t(node.fate)}, ${said(node)}`, rank && `${t("rank")} ${rank}`].filter(Boolean).join(": ");
  const kept = node.fate === "kept" && node.token !== null;
  return s("g", { class: `mark ${node.fate} ${rank ? "shown" : ""} ${node.token === null ? "whole" : ""}`, transform: `translate(${at(node).join(",")})`, tabindex: -1, role: "img", "aria-label": label },
    s("rect", { class: "box", width, height: BOX, rx: 4 }),
    kept && s("rect", { class: `fill level-${node.depth % 5}`, width: Math.max(2, width * Math.exp(node.log_probability)).toFixed(1), height: BOX, rx: 4 }),
    s("text", { class: "token", x: 6, y: 12 }, node.token?.replace(/[<>]/g, "") ?? (width < NARROW ? "✓" : t("whole"))),
    kept && width >= NARROW && s("text", { class: "percent", x: width - 5, y: 12 }, percent(node.log_probability)),
    rank && last && s("text", { class: "rank", x: width + 6, y: 12 }, `#${rank}`));
}

const said = (node) => t("details", percent(node.log_probability), node.score.toFixed(3), node.eligible_items);

/** What is known of a node, and which of the answer's items it led to. */
function told(node, items) {
  const below = items.filter((one) => one.sid.startsWith(node.prefix));
  return [h("code", {}, node.prefix), h("span", {}, ` ${t(node.fate)} · ${said(node)}`),
    below.length > 0 && h("span", { class: "led" }, ` → ${below.map((one) => `#${one.rank} ${one.title ?? one.item_id}`).join(" · ")}`)].filter(Boolean);
}

/** Pointing at a mark, or walking there with the arrow keys, lights its way up and what came of it. Returns what lights. */
function walking(drawing, nodes, tell) {
  const all = nodes.flat();
  let current = all[0];
  current.mark.setAttribute("tabindex", 0);
  const light = (node) => {
    const lit = new Set();
    const below = (one) => one.children.forEach((child) => (lit.add(child), below(child)));
    for (let one = node; one; one = one.above) lit.add(one);
    if (node) below(node);
    drawing.classList.toggle("lit", Boolean(node));
    for (const one of all) for (const part of [one.mark, one.line]) part?.classList.toggle("on", lit.has(one));
    tell(node);
  };
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
  drawing.addEventListener("pointerleave", () => light(null));
  drawing.addEventListener("focusout", () => light(null));
  drawing.addEventListener("keydown", (event) => {
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    const column = nodes[current.depth];
    const next = { ArrowUp: column[current.row - 1], ArrowDown: column[current.row + 1], ArrowLeft: current.above, ArrowRight: current.children[0] }[event.key];
    if (next) go(next);
  });
  return light;
}

function legend() {
  return h("figcaption", { class: "legend small" }, ["kept", "dropped", "ineligible"].map((fate) => h("span", { class: fate }, h("i", { "aria-hidden": "true" }), t(fate))));
}
