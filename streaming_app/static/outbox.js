/**
 * Keeps view events until the server has accepted them.
 *
 * Every event is stored before it is sent, and deleted only after a 202. So a closed tab, a crash or an outage of the
 * server loses nothing. Events that the server refuses for good are set aside with the reason, until the viewer has
 * seen it. Each event has its own key, so tabs can share the store without overwriting each other's events. If two tabs
 * send the same event, it counts once, because of its id.
 */

import { now } from "./clock.js";
import { postViews, sendBeacon, whyRefused } from "./server.js";
import { get, getJson, inMemory, keysAfter, put, remove } from "./store.js";

const PREFIX = "flixtrail.view.";
/** Key prefix of an event that was refused for good. Its value is `{reason, text}`. */
const REFUSED = "flixtrail.refused.";
/** Events in one request. The server accepts no more from a browser. */
const MAX_BATCH = 100;
/** Browsers let requests outlive a page up to 64 KiB in all. */
const MAX_OUTLIVING_BYTES = 48_000;
const FIRST_PAUSE_MS = 1_000;
/** The longest pause if the server names none. The viewer may close the page at any time, so it is short. */
const LONGEST_PAUSE_MS = 60_000;
/** A Retry-After of more than an hour is treated as a mistake. */
const LONGEST_RETRY_AFTER_MS = 3_600_000;
/** After this many failures with 500, one of the batch's events may be the cause. */
const FAILURES_BEFORE_SUSPICION = 3;
const DAMAGED = "What was kept of it is damaged";

/**
 * Fires "change" when one of these may have changed: `state`, `refused()` or `unsaved()`.
 *
 * `state.away`: views wait to be sent again. `state.reason`: why the server accepts no views from this page, or "".
 */
export const news = new EventTarget();
export const state = { away: false, reason: "" };

let running = null;
let pause = null;
let failures = 0;
let batchSize = MAX_BATCH;
/** The most events per request that the server accepts, as far as known: it has refused more. */
let largest = MAX_BATCH;
let lastBeacon = null;
/**
 * Event id -> reason, for events that were refused when sent alone. If the server then accepts another event, the event
 * itself was the cause.
 */
const suspects = new Map();

/** Store an event. The next `flush` or `beacon` sends it, or another page does. */
export function keep(event) {
  const text = JSON.stringify(event);
  if (put(PREFIX + event.event_id, text)) return;
  compact();
  if (!put(PREFIX + event.event_id, text)) tell();
}

/**
 * The number of views that are lost if the page is closed before they are sent: the browser's store is full or refused.
 */
export function unsaved() {
  return inMemory(PREFIX) + inMemory(REFUSED);
}

/** Return the views that were refused for good, and why: `{count, reasons}`. */
export function refused() {
  const ids = keysAfter(REFUSED);
  return { count: ids.length, reasons: [...new Set(ids.map((id) => getJson(REFUSED + id)?.reason ?? DAMAGED))] };
}

/** Send the refused events again. */
export function retryRefused() {
  for (const id of keysAfter(REFUSED)) {
    const text = getJson(REFUSED + id)?.text;
    if (typeof text === "string") move(REFUSED + id, PREFIX + id, text);
  }
  tell();
  return flush();
}

/** Delete the refused events. */
export function forgetRefused() {
  for (const id of keysAfter(REFUSED)) remove(REFUSED + id);
  tell();
}

/**
 * Send the stored events, oldest first. Resolves to the number of accepted events when none is left or a pause begins.
 */
export function flush() {
  running ??= sendAll().finally(() => {
    running = null;
  });
  return running;
}

/** Find out whether the server would accept views from this page, and show it. */
export async function check() {
  const reason = await whyRefused();
  if (reason === null) return;
  state.reason = reason;
  tell();
}

/**
 * Send the newest events so that the request outlives the page. The page never sees the answer. So the events stay in
 * the store until a `flush`, here or on the next page, has a 202 for them.
 */
export function beacon() {
  let events = readable(keptIds().slice(-MAX_BATCH));
  while (body(events).length > MAX_OUTLIVING_BYTES) events = events.slice(Math.ceil(events.length / 2));
  const newest = events.at(-1)?.event_id;
  if (newest !== undefined && newest !== lastBeacon && sendBeacon(body(events))) lastBeacon = newest;
}

async function sendAll() {
  let accepted = 0;
  while (pause === null) {
    const events = readable(keptIds().filter((id) => !suspects.has(id)).slice(0, batchSize));
    if (events.length === 0) break;
    const text = body(events);
    accepted += settle(await postViews(text, { keepalive: text.length <= MAX_OUTLIVING_BYTES }), events);
  }
  if (pause === null && suspects.size > 0) refuseAll([...suspects.values()][0]);
  return accepted;
}

/** Handle an answer. Returns the number of accepted events. */
function settle(answer, events) {
  const { status } = answer;
  if (status === 202) {
    // Only the events that the answer names. A program in between may answer 202, too, and has stored nothing.
    const accepted = events.filter((event) => answer.ids.includes(event.event_id));
    for (const event of accepted) remove(PREFIX + event.event_id);
    if (accepted.length > 0) succeeded();
    else later(answer.headers, { isOffline: false });
    return accepted.length;
  }
  if (status === 422 && setAsideNamed(answer.errors, events)) return 0;
  if (mayBeOfAnEvent(status)) suspect(answer, events);
  else if (status === 401) refuseAll(reasonOf(answer));
  else later(answer.headers, { isOffline: status === 0 });
  return 0;
}

/** Set aside the events that the server names as refused for good, with its reasons. */
function setAsideNamed(errors, events) {
  const named = errors.filter((error) => events[error?.index] !== undefined);
  for (const { index, message } of named) setAside(events[index].event_id, String(message));
  if (named.length > 0) tell();
  return named.length > 0;
}

/** Whether one event may be the cause of this answer. Some 4xx never have that cause; 500 has it if it stays. */
function mayBeOfAnEvent(status) {
  if (status === 500) return failures >= FAILURES_BEFORE_SUSPICION;
  return status >= 400 && status < 500 && ![401, 408, 425, 429].includes(status);
}

/**
 * Find the cause if the server names no event. Smaller requests find the event. It is set aside when the server has
 * accepted another event. If the server accepts none, an event is not the cause.
 */
function suspect(answer, events) {
  if (events.length > 1) {
    batchSize = Math.ceil(events.length / 2);
    if (answer.status === 422) largest = batchSize; // the server named no event: there were too many
    return;
  }
  suspects.set(events[0].event_id, reasonOf(answer));
  if (suspects.size > 1) refuseAll(reasonOf(answer));
}

function reasonOf({ status, detail }) {
  return detail || `The server refused them, with status ${status}.`;
}

function succeeded() {
  for (const [id, reason] of suspects) setAside(id, reason);
  suspects.clear();
  batchSize = Math.min(batchSize * 2, largest);
  failures = 0;
  Object.assign(state, { away: false, reason: "" });
  tell();
}

/**
 * The server accepts no views from this page at the moment. Nothing is lost: this page asks again now and then, and so
 * does the next page.
 */
function refuseAll(reason) {
  suspects.clear();
  state.reason = reason;
  pauseFor(LONGEST_PAUSE_MS);
}

function later(headers, { isOffline }) {
  failures += 1;
  state.away = true;
  const backoffMs = Math.min(FIRST_PAUSE_MS * 2 ** (failures - 1), LONGEST_PAUSE_MS);
  pauseFor(Math.max(backoffMs, retryAfterMs(headers)), { isOffline });
}

function pauseFor(ms, { isOffline = false } = {}) {
  // A random part, so that not all pages come back at the same moment.
  pause = { isOffline, timer: setTimeout(resume, ms * (1 + Math.random() / 4)) };
  tell();
}

function resume() {
  clearTimeout(pause?.timer);
  pause = null;
  flush();
}

/** Return Retry-After in milliseconds, or 0. The header is a number of seconds or a date. */
function retryAfterMs(headers) {
  const value = headers.get("Retry-After") ?? "";
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - now();
  return Math.min(Math.max(ms || 0, 0), LONGEST_RETRY_AFTER_MS);
}

/** The ids of the stored events, oldest first: an id begins with its time. */
function keptIds() {
  return keysAfter(PREFIX);
}

/** Return the events with these ids. Leaves out events that another tab has deleted; sets damaged ones aside. */
function readable(ids) {
  const isThere = ids.filter((id) => get(PREFIX + id) !== null);
  const damaged = isThere.filter((id) => getJson(PREFIX + id)?.event_id !== id);
  for (const id of damaged) setAside(id, DAMAGED);
  if (damaged.length > 0) tell();
  return isThere.map((id) => getJson(PREFIX + id)).filter((event, n) => event?.event_id === isThere[n]);
}

function setAside(id, reason) {
  const text = get(PREFIX + id);
  if (text !== null) move(PREFIX + id, REFUSED + id, JSON.stringify({ reason, text }));
}

function move(from, to, text) {
  const isSafe = put(to, text);
  remove(from);
  if (!isSafe) put(to, text); // a full store now has room for it
}

/**
 * Make room: delete progress reports that a later report of the same playback includes. Both say since when it played
 * without a seek, and the later one continues the earlier one. So the history stays the same without the earlier one.
 */
function compact() {
  const later = new Set();
  for (const event of readable(keptIds()).reverse()) {
    const stretch = `${event.playback_id} ${event.played_from_s}`;
    if (event.kind === "progress" && event.played_from_s !== undefined && later.has(stretch)) {
      remove(PREFIX + event.event_id);
    }
    later.add(stretch);
  }
}

function body(events) {
  const sentAt = new Date(now()).toISOString();
  return JSON.stringify(events.map((event) => ({ ...event, sent_at: sentAt })));
}

function tell() {
  news.dispatchEvent(new Event("change"));
}

// The network is back, so a pause because of the network ends. A pause that the server asked for does not.
addEventListener("online", () => {
  if (pause?.isOffline) resume();
});
addEventListener("pageshow", (event) => {
  if (event.persisted) flush();
});
