// The service's routes: one place that knows the token, the errors, pages of lists and streams.

const KEPT = "viter.token";
const PAGE_SIZE = 200;

/** What the service, or the network, refused: `status` 0 is no answer at all. */
export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

let askForToken = async () => false;
let asking = null;

/** Who asks the person for a token: gets a sentence, resolves to whether there is a token now. */
export function setTokenAsker(asker) {
  askForToken = asker;
}

/** Ask for a token, once for all who want one at the same time. */
export function tokenAsked(why) {
  asking ??= askForToken(why).finally(() => { asking = null; });
  return asking;
}

export function token() {
  return sessionStorage.getItem(KEPT) ?? localStorage.getItem(KEPT);
}

/** Keep a token for this tab, or for this device; null forgets it everywhere. */
export function keepToken(text, onDevice) {
  sessionStorage.removeItem(KEPT);
  localStorage.removeItem(KEPT);
  if (text) (onDevice ? localStorage : sessionStorage).setItem(KEPT, text);
}

export function isKeptOnDevice() {
  return localStorage.getItem(KEPT) !== null;
}

async function request(method, path, { body, signal, headers = {} } = {}) {
  const used = token();
  const sent = { ...headers, ...(used ? { Authorization: `Bearer ${used}` } : {}) };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body),
      signal, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The service does not answer. Is it running? viter serve starts it.");
  }
  if (answer.ok) return answer;
  const detail = await detailOf(answer);
  if (answer.status !== 401) throw new ApiError(answer.status, detail);
  const hasAnother = token() !== used; // somebody typed one while this was under way
  if (hasAnother || (await tokenAsked(used ? detail : ""))) return request(method, path, { body, signal, headers });
  throw new ApiError(401, "This service wants a token.");
}

async function detailOf(answer) {
  try {
    const problem = await answer.json();
    return String(problem.detail ?? problem.error?.message ?? answer.statusText);
  } catch {
    return `${answer.status} ${answer.statusText}`;
  }
}

export async function get(path, signal) {
  return (await request("GET", path, { signal })).json();
}

export async function send(method, path, body, signal, headers) {
  const answer = await request(method, path, { body, signal, headers });
  return answer.status === 204 ? null : answer.json();
}

export async function post(path, body, signal, headers) {
  return send("POST", path, body, signal, headers);
}

export async function text(path, signal) {
  return (await request("GET", path, { signal })).text();
}

/** A picture or a file, fetched with the token, as a blob. */
export async function blob(path, { body, signal } = {}) {
  return (await request(body ? "POST" : "GET", path, { body, signal })).blob();
}

/** Rows of a list, page after page, at most `most`; says whether there are more. */
export async function list(path, { most = 1000, signal, onPage } = {}) {
  const rows = [];
  let after = null;
  for (;;) {
    const url = withQuery(path, { limit: Math.min(PAGE_SIZE, most - rows.length), after });
    const page = await get(url, signal);
    rows.push(...page.data);
    onPage?.(rows, page.has_more);
    if (!page.has_more || rows.length >= most || page.data.length === 0) return { rows, hasMore: Boolean(page.has_more) };
    after = page.last_id;
  }
}

/** `path` with query parameters; those that are null or empty are left out. */
export function withQuery(path, parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== ""));
  if ([...query].length === 0) return path;
  return path + (path.includes("?") ? "&" : "?") + query;
}

/** Each part of a path, written so that a server reads it back; slashes within a part separate parts too. */
export function at(...parts) {
  return parts.flatMap((part) => String(part).split("/")).map(encodeURIComponent).join("/");
}

/**
 * Server-sent events by fetch, which unlike EventSource can carry the token: yields {event, id, data}.
 * The caller resumes a stream that broke off by `lastId`.
 */
export async function* events(path, { body, signal, lastId } = {}) {
  const headers = { Accept: "text/event-stream", ...(lastId ? { "Last-Event-ID": lastId } : {}) };
  const answer = await request(body === undefined ? "GET" : "POST", path, { body, signal, headers });
  if (answer.status === 204) return; // all was told
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    yield* parsed(reader);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw error instanceof ApiError ? error : new ApiError(0, "The stream broke off.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Events of a text/event-stream. Comments, which only keep the line alive, are passed over. */
async function* parsed(reader) {
  let rest = "";
  let event = { event: "message", id: undefined, data: [] };
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (event.data.length) yield { ...event, data: event.data.join("\n") };
        event = { event: "message", id: event.id, data: [] };
        continue;
      }
      const [, field, content] = /^([^:]*):? ?([^]*)$/.exec(line);
      if (field === "data") event.data.push(content);
      else if (field === "event") event.event = content;
      else if (field === "id") event.id = content;
    }
  }
}
