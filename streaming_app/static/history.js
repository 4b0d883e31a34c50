/** Shows the viewer's history, newest first, one page at a time. */

import { HistoryAway, readHistory, withLatestViews } from "./history_api.js";
import "./notices.js";
import { updated } from "./places.js";
import { clock, fromTemplate, isFinished, trail, watchUrl } from "./show.js";

const PAGE = 25;
const AWAY = "History is away just now; views are still being recorded.";

const days = document.getElementById("days");
const more = document.getElementById("more");
const state = document.getElementById("state");

/** The videos of /api/videos, by id. Empty until it has answered. */
let videos = new Map();
let cursor = null;
/** The first page as it is shown, to see whether it has changed. */
let first = "";
let pages = 0;
let retry = null;

/** Show the newest entries. After "more" was pressed, nothing is replaced any more, because the viewer is reading. */
async function refresh() {
  if (pages > 1) return;
  await attempt(refresh, async () => {
    const page = await readHistory({ limit: PAGE });
    if (JSON.stringify(page) === first) return;
    first = JSON.stringify(page);
    pages = 1;
    days.replaceChildren();
    append(page);
    document.getElementById("empty").hidden = page.items.length > 0;
  });
}

async function loadMore() {
  more.disabled = true;
  await attempt(loadMore, async () => {
    const page = await readHistory({ limit: PAGE, cursor });
    pages += 1;
    const firstNew = append(page);
    // The button may be gone, so the focus moves to the first new entry.
    firstNew?.querySelector("a")?.focus({ preventScroll: true });
  });
  more.disabled = false;
}

/** Run an action. If the history is away, show that and offer to try again. */
async function attempt(again, action) {
  clearTimeout(retry);
  try {
    await action();
    state.textContent = "";
  } catch (error) {
    if (!(error instanceof HistoryAway)) throw error;
    state.textContent = AWAY;
    retry = setTimeout(again, error.retryAfterS * 1000);
  }
}

/** Add a page below the entries that are shown. Returns its first entry. */
function append(page) {
  const added = page.items.filter((item) => !document.getElementById(entryId(item))).map((item) => addEntry(updated(item)));
  cursor = page.next_cursor;
  more.hidden = cursor === null;
  return added[0];
}

function addEntry(item) {
  const entry = filled(item);
  dayList(new Date(item.last_at)).append(entry);
  return entry;
}

function filled(item) {
  const entry = fromTemplate(document.getElementById("entry"));
  const video = videos.get(item.video_id);
  const time = entry.querySelector("time");
  entry.id = entryId(item);
  time.dateTime = item.last_at;
  time.textContent = new Date(item.last_at).toLocaleTimeString(undefined, { hour: "numeric", minute: "2-digit" });
  entry.querySelector(".far").textContent = howFar(item, video?.duration_s);
  entry.querySelector(".watched").textContent = `${clock(item.watched_s)} watched`;
  entry.querySelector("h3").replaceChildren(playable(video) ? link(item.title, watchUrl(item.video_id)) : item.title);
  entry.querySelector(".mark").replaceChildren(mark(item, video));
  if (playable(video)) entry.querySelector("img").src = video.poster_url;
  else entry.querySelector("img").remove();
  trail(entry.querySelector("progress"), isFinished(item, video?.duration_s) ? Infinity : item.position_s, video?.duration_s);
  return entry;
}

function playable(video) {
  return video && !video.broken;
}

function howFar(item, durationS) {
  return durationS ? `${clock(item.position_s)} of ${clock(durationS)}` : `at ${clock(item.position_s)}`;
}

/** Make the text "Finished", or a link to continue. */
function mark(item, video) {
  if (isFinished(item, video?.duration_s)) return badge("Finished", true);
  if (!playable(video)) return badge("No longer in the library", false);
  const onward = link("Continue", watchUrl(item.video_id, item.position_s));
  onward.className = "button";
  onward.setAttribute("aria-label", `Continue ${item.title} at ${clock(item.position_s)}`);
  return onward;
}

function badge(text, finished) {
  const badge = document.createElement("span");
  badge.className = finished ? "badge finished" : "badge";
  badge.textContent = text;
  return badge;
}

function link(text, href) {
  const link = document.createElement("a");
  link.textContent = text;
  link.href = href;
  return link;
}

function entryId(item) {
  return `playback-${item.playback_id}`;
}

/** Return the list of a day's entries. Makes it if this is the day's first entry. */
function dayList(date) {
  const name = dayName(date);
  const last = days.lastElementChild;
  if (last?.querySelector("h2").textContent === name) return last.querySelector("ol");
  const section = fromTemplate(document.getElementById("day"));
  section.querySelector("h2").textContent = name;
  days.append(section);
  return section.querySelector("ol");
}

function dayName(date) {
  const daysAgo = Math.round((midnight(new Date()) - midnight(date)) / 86_400_000);
  if (daysAgo === 0) return "Today";
  if (daysAgo === 1) return "Yesterday";
  const year = date.getFullYear() === new Date().getFullYear() ? undefined : "numeric";
  return date.toLocaleDateString("en", { weekday: "long", day: "numeric", month: "long", year });
}

function midnight(date) {
  return new Date(date.getFullYear(), date.getMonth(), date.getDate());
}

/** Load lengths and posters from the library. Without them, entries show less but are still right. */
async function loadVideos() {
  const answer = await fetch("/api/videos").catch(() => null);
  const library = answer?.ok ? await answer.json() : { videos: [] };
  videos = new Map(library.videos.map((video) => [video.id, video]));
}

more.addEventListener("click", loadMore);
document.addEventListener("visibilitychange", () => !document.hidden && withLatestViews(refresh));
addEventListener("pageshow", (event) => event.persisted && withLatestViews(refresh));

await loadVideos();
withLatestViews(refresh);
