// The service's API: problems as errors, patience where the service asks for it, a key where it wants one.

import { withKey } from "./key.js";

const NDJSON = "application/x-ndjson";
const ATTEMPTS = 6;
const LONGEST_WAIT_S = 60;

/** Why there is no answer, as a sentence; `status` and `code` as in the service's problem (RFC 9457). */
export class Failure extends Error {
  constructor(sentence, { status = 0, code = "unreachable", retryAfter = null } = {}) {
    super(sentence);
    Object.assign(this, { status, code, retryAfter });
  }
}

export const info = () => send("v1/info").then(json);
export const versions = () => send("v1/versions").then(json);
export const score = (file, options, call) => post("v1/score", { image: file }, options, call);
/** Scores many files by one version; `each` hears every answer (a ScoreBatchItem) as soon as it is there. */
export async function scoreAll(files, options, each, call) {
  const request = { method: "POST", body: form({ images: files }, options), headers: { Accept: NDJSON }, ...call };
  const response = await send("v1/score/batch", request);
  let missing = files.length;
  for await (const line of lines(response.body)) {
    const item = JSON.parse(line);
    if (item.result) announce(item.result);
    each(item);
    missing -= 1;
  }
  if (missing) throw new Failure("The service ended its answer early.");
}

export const compare = (first, second, options, call) => post("v1/compare", { first, second }, options, call);
export const rank = (files, options, call) => post("v1/rank", { images: files }, options, call);

/** A call to the operators' port, which has another origin and another key. Never sent twice. */
export async function operate(address, path, key) {
  const url = new URL(path, address.endsWith("/") ? address : `${address}/`);
  const response = await reach(url, { method: "POST", headers: { Authorization: `Bearer ${key}` } });
  if (!response.ok) throw await failure(response);
  return response.json();
}

async function post(path, files, options, call) {
  const answer = await json(await send(path, { method: "POST", body: form(files, options), ...call }));
  announce(answer);
  return answer;
}

const announce = (answer) => document.dispatchEvent(new CustomEvent("serving", { detail: answer }));

function form(files, options) {
  const body = new FormData();
  for (const [name, given] of Object.entries(files)) {
    for (const file of [given].flat()) body.append(name, file, file.name);
  }
  for (const [name, value] of Object.entries(options)) body.append(name, value);
  return body;
}

/** Sends until there is an answer. `waiting(sentence)` hears why it takes longer. */
async function send(path, { waiting = () => {}, ...request } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    const response = await withKey((headers) => reach(path, { ...request, headers: { ...request.headers, ...headers } }), waiting);
    if (response.ok) return response;
    const reason = await failure(response);
    if (reason.retryAfter === null || reason.retryAfter > LONGEST_WAIT_S || attempt === ATTEMPTS) throw reason;
    waiting(`${reason.message} Asking again in ${reason.retryAfter} s.`);
    await pause(reason.retryAfter, request.signal);
  }
}

async function reach(url, request) {
  try {
    return await fetch(url, { credentials: "omit", cache: "no-store", ...request });
  } catch (error) {
    return lost(error);
  }
}

function lost(error) {
  if (error.name === "AbortError") throw error;
  throw new Failure("The service cannot be reached.");
}

async function failure(response) {
  const { status } = response;
  const after = response.headers.get("Retry-After");
  const retryAfter = status === 429 || status === 503 ? (/^\d+$/.test(after ?? "") ? Number(after) : 1) : null;
  const problem = await response.json().catch(() => null);
  const sentence = problem?.detail ?? `Something on the way to the service answered ${status}.`;
  return new Failure(sentence, { status, code: problem?.code ?? "http_error", retryAfter });
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch(lost);
    if (done) return;
    const whole = (rest + value).split("\n");
    rest = whole.pop();
    yield* whole;
  }
}

const json = (response) => response.json();

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
