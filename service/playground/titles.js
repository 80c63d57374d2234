// Titles of items by their ids, each asked for once.

import * as api from "./api.js";

const known = new Map();

export function learn(items) {
  for (const one of items) known.set(one.item_id, one.title ?? one.item_id);
}

/** The title; the id itself of an item that the catalogue lacks. */
export async function title(id) {
  if (!known.has(id)) {
    try {
      learn([await api.item(id)]);
    } catch (problem) {
      if (problem.status !== 404) throw problem;
      known.set(id, id);
    }
  }
  return known.get(id);
}
