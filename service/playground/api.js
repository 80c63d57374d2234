// The public API of the service, and nothing else of it.

const KEY = "sidrec-key";

/** What a problem document says; `status` is 0 where there was no answer. */
export class Problem extends Error {
  constructor(status, said) {
    super(said.detail ?? said.title ?? String(status));
    this.status = status;
    this.errors = said.errors ?? [];
  }
}

export const useKey = (key) => sessionStorage.setItem(KEY, key);

/** What is sent beside a body. */
function headers() {
  const key = sessionStorage.getItem(KEY);
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

/** The answer to one request. Throws `Problem`. */
export async function call(method, path, body) {
  let answer;
  try {
    answer = await fetch(path.slice(1), { method, headers: headers(), body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Problem(0, { detail: "" });
  }
  const text = await answer.text();
  let said = {};
  try {
    said = text ? JSON.parse(text) : {};
  } catch {
    said = { detail: text.slice(0, 200) };
  }
  if (!answer.ok) throw new Problem(answer.status, said);
  return said;
}

const id = encodeURIComponent;

export const bundle = () => call("GET", "/v1/bundle");
export const models = () => call("GET", "/v1/models");
export const history = (user) => call("GET", `/v1/users/${id(user)}/history`);
export const storeProfile = (user, values) => call("PUT", `/v1/users/${id(user)}/profile`, { profile: values });
export const forget = (user) => call("DELETE", `/v1/users/${id(user)}`);
export const item = (name) => call("GET", `/v1/items/${id(name)}`);
export const items = (query, limit) => call("GET", `/v1/items?${new URLSearchParams({ query, limit })}`);
export const describe = (name) => call("GET", `/v1/items/${id(name)}/describe`);
export const similar = (name, body) => call("POST", `/v1/items/${id(name)}/similar`, body);

/** Tells of one event; `request` is the answer in which the item was shown. */
export function event(user, name, type, scene, request) {
  const one = { event_id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, user_id: user, item_id: name, type, timestamp: new Date().toISOString() };
  if (scene) one.scene = scene;
  if (request) one.request_id = request;
  return call("POST", "/v1/events", { events: [one] });
}

/** The request as a line for a shell. */
export function curl(path, body) {
  const url = new URL(path.slice(1), document.baseURI);
  const data = JSON.stringify(body).replaceAll("'", "'\\''");
  const key = sessionStorage.getItem(KEY) ? " -H \"Authorization: Bearer $SIDREC_KEY\"" : "";
  return `curl -s ${url} -H 'Content-Type: application/json'${key} -d '${data}'`;
}
