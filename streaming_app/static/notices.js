/** Shows on the page what happens to the views: whether they wait, whether the server refuses them, and why. */

import { forgetRefused, news, refused, retryRefused, state, unsaved } from "./outbox.js";

const AWAY = "Recording is away just now. Your place is kept in this browser and sent later.";
const KEPT = "What you watch is kept in this browser and sent later.";
/** Number of reasons shown. There are seldom two. */
const MAX_REASONS = 3;

/** On a page with a player: other notices, by subject. */
const said = new Map();

/** Show a notice on this page. It replaces the earlier notice about the same subject; "" removes it. */
export function say(subject, text) {
  said.set(subject, text);
  const line = document.getElementById("recording");
  if (line) line.textContent = [...said.values()].filter(Boolean).join(" ");
}

function show() {
  say("recording", state.reason ? `${state.reason} ${KEPT}` : state.away ? AWAY : "");
  const count = unsaved();
  const isWaiting = state.away || state.reason;
  say("store", count && isWaiting ? `${views(count)} will be lost if you close this page: the browser cannot store more.` : "");
  showRefused(refused());
}

function showRefused({ count, reasons }) {
  if (count === 0 && !document.getElementById("refused")) return;
  const note = document.getElementById("refused") ?? newNote();
  const why = reasons.slice(0, MAX_REASONS).join("; ");
  note.querySelector("span").textContent = `The server cannot record ${views(count)} of yours. The reason: ${why}.`;
  note.hidden = count === 0;
}

function newNote() {
  const note = document.createElement("p");
  note.id = "refused";
  note.className = "note away";
  note.setAttribute("role", "alert");
  note.append(document.createElement("span"), button("Try again", retryRefused), button("Forget them", forgetRefused));
  const line = document.getElementById("recording");
  if (line) line.after(note);
  else document.querySelector("main").prepend(note);
  return note;
}

function button(text, action) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.addEventListener("click", action);
  return button;
}

function views(count) {
  return count === 1 ? "1 view" : `${count} views`;
}

news.addEventListener("change", show);
// Another tab has sent, set aside or deleted an event.
addEventListener("storage", show);
show();
