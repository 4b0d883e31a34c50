/**
 * Keeps view events until the server has said that it accepted them.
 *
 * Every event is stored before it is sent, and forgotten only on a 202: a closed tab, a crash or a server that is away
 * loses nothing. Each lies under a key of its own, so that tabs share the store without overwriting each other. Two tabs
 * may send the same event: harmless, its id makes it count once.
 */

import { now } from "./clock.js";

const VIEWS_URL = "/api/views";
const PREFIX = "flixtrail.view.";
/** Events kept at the most, the oldest go first: 14 hours of playing, about 1.5 MB of the 5 MB that a site may store. */
const MAX_KEPT = 5_000;
/** Events in one request: the server takes no more. */
const MAX_BATCH = 1_000;
/** Browsers let 64 KiB outlive a page, all requests together. */
const MAX_OUTLIVING_BYTES = 48_000;
/** How long an answer may take. The server gives one within a quarter of a second; a dead network never does. */
const TIMEOUT_MS = 15_000;
const FIRST_PAUSE_MS = 1_000;
/** The longest pause without a wish of the server's: somebody is watching, and the page may be closed any time. */
const LONGEST_PAUSE_MS = 60_000;
/** A Retry-After beyond an hour is taken for a mistake. */
const LONGEST_RETRY_AFTER_MS = 3_600_000;

/** Tells "away" when an attempt failed and "back" when one worked again. */
export const news = new EventTarget();

/** Where localStorage is refused or full: event id to JSON. Lives as long as the page. */
const memory = new Map();

let running = null;
let pause = null;
let failures = 0;
let refused = false;
let batchSize = MAX_BATCH;
let lastBeacon = null;

/** Store an event. It is sent by the next `flush` or `beacon`, or by another page. */
export function keep(event) {
  const text = JSON.stringify(event);
  try {
    localStorage.setItem(PREFIX + event.event_id, text);
  } catch {
    memory.set(event.event_id, text);
  }
  const ids = keptIds();
  forget(ids.slice(0, Math.max(0, ids.length - MAX_KEPT)));
}

/** The newest event of a video that is still kept, or undefined: the history may not know it yet. */
export function newestOf(videoId) {
  return read(keptIds()).findLast((event) => event.video_id === videoId);
}

/** Send what is kept, oldest first. Resolves to the number of events accepted, once nothing is left or a pause is due. */
export function flush() {
  running ??= sendAll().finally(() => {
    running = null;
  });
  return running;
}

/**
 * Send the newest events in a way that outlives the page. The answer is never seen, so they stay in the store until a
 * `flush`, here or on the next page, has it confirmed.
 */
export function beacon() {
  const ids = outliving(keptIds());
  if (ids.length === 0 || ids.at(-1) === lastBeacon) return;
  if (navigator.sendBeacon(VIEWS_URL, new Blob([body(ids)], { type: "application/json" }))) lastBeacon = ids.at(-1);
}

async function sendAll() {
  let accepted = 0;
  while (pause === null && !refused) {
    const ids = stillReadable(keptIds().slice(0, batchSize));
    if (ids.length === 0) break;
    accepted += settle(await post(ids), ids);
  }
  return accepted;
}

/** The answer as {status, retryAfterMs, errors}; status 0 when there was none. */
async function post(ids) {
  const text = body(ids);
  try {
    const answer = await fetch(VIEWS_URL, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: text,
      keepalive: text.length <= MAX_OUTLIVING_BYTES,
      redirect: "error", // what answers elsewhere (a hotel's log-in page) has accepted nothing
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    const errors = answer.status === 422 ? (await answer.json()).errors : [];
    return { status: answer.status, retryAfterMs: retryAfterMs(answer), errors };
  } catch {
    return { status: 0, retryAfterMs: 0, errors: [] };
  }
}

/** Act on an answer. Returns the number of events accepted. */
function settle(answer, ids) {
  switch (answer.status) {
    case 202:
      forget(ids);
      succeeded();
      return ids.length;
    case 422:
      dropNamed(answer.errors, ids);
      break;
    case 400:
    case 413:
      halve(ids);
      break;
    case 403:
    case 415:
      refused = true; // asking again from this page would change nothing; the next page may be luckier
      break;
    default: // 401 (the next page brings a cookie), 429, 5xx, no answer at all
      later(answer);
  }
  return 0;
}

function dropNamed(errors, ids) {
  const named = new Set((errors ?? []).map((error) => ids[error.index]).filter(Boolean));
  if (named.size > 0) forget([...named]);
  else halve(ids);
}

/** Something among these cannot be taken, and nobody says what: smaller requests find it, and it alone is dropped. */
function halve(ids) {
  if (ids.length === 1) forget(ids);
  else batchSize = Math.ceil(ids.length / 2);
}

function succeeded() {
  batchSize = Math.min(batchSize * 2, MAX_BATCH);
  if (failures > 0) news.dispatchEvent(new Event("back"));
  failures = 0;
}

function later(answer) {
  failures += 1;
  const backoffMs = Math.min(FIRST_PAUSE_MS * 2 ** (failures - 1), LONGEST_PAUSE_MS);
  // A little at random on top, so that everybody's pages do not come back in the same moment.
  const pauseMs = Math.max(backoffMs, answer.retryAfterMs) * (1 + Math.random() / 4);
  pause = { offline: answer.status === 0, timer: setTimeout(resume, pauseMs) };
  news.dispatchEvent(new Event("away"));
}

function resume() {
  clearTimeout(pause?.timer);
  pause = null;
  flush();
}

/** Retry-After in milliseconds: it is a number of seconds, or a date. 0 without one. */
function retryAfterMs(answer) {
  const value = answer.headers.get("Retry-After") ?? "";
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - now();
  return Math.min(Math.max(ms || 0, 0), LONGEST_RETRY_AFTER_MS);
}

/** The ids of the kept events, oldest first: they begin with their time. */
function keptIds() {
  const stored = storedKeys().filter((key) => key.startsWith(PREFIX));
  return [...stored.map((key) => key.slice(PREFIX.length)), ...memory.keys()].sort();
}

function storedKeys() {
  try {
    return Object.keys(localStorage);
  } catch {
    return [];
  }
}

function textOf(id) {
  try {
    return memory.get(id) ?? localStorage.getItem(PREFIX + id);
  } catch {
    return null;
  }
}

/** The events with these ids. What another tab has forgotten meanwhile, or nobody can read, is left out. */
function read(ids) {
  return ids.map((id) => parsed(textOf(id))).filter((event) => event !== null);
}

/** These ids, without those whose events cannot be read: they would stay for ever. */
function stillReadable(ids) {
  const lost = ids.filter((id) => parsed(textOf(id))?.event_id !== id);
  forget(lost);
  return ids.filter((id) => !lost.includes(id));
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function forget(ids) {
  for (const id of ids) {
    memory.delete(id);
    try {
      localStorage.removeItem(PREFIX + id);
    } catch {
      // refused: then it was in memory only
    }
  }
}

function body(ids) {
  const sentAt = new Date(now()).toISOString();
  return JSON.stringify(read(ids).map((event) => ({ ...event, sent_at: sentAt })));
}

/** The newest of these ids whose events fit into one request that outlives the page. */
function outliving(ids) {
  let fitting = stillReadable(ids.slice(-MAX_BATCH));
  while (body(fitting).length > MAX_OUTLIVING_BYTES) fitting = fitting.slice(Math.ceil(fitting.length / 2));
  return fitting;
}

// The network came back: a pause that was only for its sake is over. One that the server asked for is not.
addEventListener("online", () => {
  if (pause?.offline) resume();
});
addEventListener("pageshow", (event) => {
  if (event.persisted) flush();
});
