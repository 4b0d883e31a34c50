/** Sends requests to the server that say which page they come from. */

import { compare } from "./clock.js";

const VIEWS_URL = "/api/views";
/** Milliseconds that an answer may take. The server needs a quarter of a second; a dead network never answers. */
const TIMEOUT_MS = 15_000;
const ACCEPTED = 202;
const WHO_ARE_YOU = 401;
const NOT_YOU = 403;

let token = document.querySelector('meta[name="page-token"]')?.content ?? "";

/** Distinguishes the pages of different viewers in the same browser. */
export function viewer() {
  return token.slice(0, 8);
}

/**
 * Post events as JSON. Returns `{status, ids, detail, errors, headers}`. `ids`: the accepted ones. Status 0: no answer.
 *
 * `keepalive`: the request may outlive the page.
 */
export async function postViews(text, { keepalive }) {
  const answer = await postAsViewer(VIEWS_URL, text, keepalive);
  const { event_ids: ids } = answer.status === ACCEPTED ? await json(answer) : {};
  return { status: answer.status, headers: answer.headers, ids: Array.isArray(ids) ? ids : [], ...(await problem(answer)) };
}

/**
 * Ask why the server would refuse all views from this page. Returns a sentence, or null if it accepts them or does not
 * say.
 */
export async function whyRefused() {
  const answer = await postAsViewer(`${VIEWS_URL}/check`, undefined, false);
  if (answer.status !== WHO_ARE_YOU && answer.status !== NOT_YOU) return null;
  return (await problem(answer)).detail;
}

/** Send events so that the request outlives the page. The page never sees the answer. */
export function sendBeacon(text) {
  const url = `${VIEWS_URL}?${new URLSearchParams({ page_token: token })}`;
  return navigator.sendBeacon(url, new Blob([text], { type: "application/json" }));
}

/** If the page was opened under another cookie, or its cookie did not come back, get a new token and try again. */
async function postAsViewer(url, text, keepalive) {
  const answer = await post(url, text, keepalive);
  const isUnknown = answer.status === WHO_ARE_YOU || answer.status === NOT_YOU;
  return isUnknown && (await newToken(answer.status)) ? post(url, text, keepalive) : answer;
}

async function newToken(status) {
  const answer = await request("/api/page", {});
  const found = answer.status === 200 ? (await json(answer)).page_token : null;
  if (!found) return false;
  const isNew = found !== token || status === WHO_ARE_YOU;
  token = found;
  return isNew;
}

function post(url, text, keepalive) {
  const headers = { "Page-Token": token, ...(text !== undefined && { "Content-Type": "application/json" }) };
  return request(url, { method: "POST", headers, body: text, keepalive });
}

async function request(url, options) {
  const sentAt = performance.now();
  try {
    const answer = await fetch(url, {
      ...options,
      redirect: "error", // another site (a hotel's log-in page, for example) has accepted nothing
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    compare(answer, sentAt);
    return answer;
  } catch {
    return { status: 0, headers: new Headers(), json: () => ({}) };
  }
}

/** Return what an answer says about a refusal: `{detail, errors}`. */
async function problem(answer) {
  const { detail, errors } = answer.status >= 400 ? await json(answer) : {};
  return { detail: typeof detail === "string" ? detail : "", errors: Array.isArray(errors) ? errors : [] };
}

async function json(answer) {
  try {
    return (await answer.json()) ?? {};
  } catch {
    return {};
  }
}
