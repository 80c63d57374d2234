// What the page knows: who asks, for what, and how. Answers are not kept here.

export const state = {
  bundle: null, // GET /v1/bundle
  models: [], // loaded versions, where the key may list them
  user: "",
  history: [], // events, oldest first
  mode: "recommend",
  query: "",
  compare: false,
  excluded: new Map(), // item id -> title
  settings: {},
};

/** The settings of one side before anybody has touched them. */
export function fresh(bundle) {
  return { k: 10, beam_width: bundle.beam_width, scene: "", model: "", exclude_seen: "", profile: {}, filters: [] };
}

/** The sides that are asked: A, and B where two are compared. */
export const sides = () => (state.compare ? ["A", "B"] : ["A"]);

/** What is sent for one side: the path and the body. */
export function question(side) {
  const of = state.settings[side];
  const body = { k: of.k, beam_width: Math.max(of.beam_width, of.k), trace: true, exclude: [...state.excluded.keys()] };
  const filter = filterOf(of.filters);
  if (filter) body.filter = filter;
  if (state.mode === "search") return ["/v1/search", { query: state.query, ...body }];
  if (of.scene) body.scene = of.scene;
  if (of.exclude_seen) body.exclude_seen = of.exclude_seen;
  const profile = Object.fromEntries(Object.entries(of.profile).filter(([, value]) => value));
  if (Object.keys(profile).length) body.profile = profile;
  if (of.model) body.bundle = JSON.parse(of.model);
  return ["/v1/recommendations", { user_id: state.user, ...body }];
}

function filterOf(rows) {
  const tests = rows.filter((row) => row.value !== "").map((row) => ({ [row.attribute]: { [row.test]: valueOf(row) } }));
  return tests.length > 1 ? { and: tests } : tests[0];
}

function valueOf({ attribute, test, value }) {
  const type = state.bundle.attributes.find((one) => one.name === attribute)?.type;
  const one = (text) => (type === "number" ? Number(text) : type === "boolean" ? text === "true" : text);
  return test === "in" ? value.split(/[,,]/).map((text) => one(text.trim())) : one(value.trim());
}
