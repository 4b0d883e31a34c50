/** Reports what is played: `started`, `progress` every ten seconds and on pause, seek and hide, `finished`. */

import { newId, now } from "./clock.js";
import { lastPlayback } from "./history_api.js";
import { beacon, flush, keep, news, newestOf } from "./outbox.js";
import { RESUME_FROM_S, clock } from "./show.js";

const PROGRESS_EVERY_MS = 10_000;

const video = document.getElementById("player");
const videoId = video.dataset.videoId;

/** One a page view. `fromS` to `positionS` was really played, without a seek; both move together when nothing plays. */
const playback = { id: newId(), started: false, fromS: 0, positionS: 0, reported: "", timer: null };
let leaving = false;

function record(kind) {
  const { fromS, positionS } = playback;
  playback.reported = `${fromS} ${positionS}`;
  keep({
    event_id: newId(),
    kind,
    video_id: videoId,
    playback_id: playback.id,
    position_s: milliseconds(positionS),
    ...(fromS < positionS && { played_from_s: milliseconds(fromS) }),
    at: new Date(now()).toISOString(),
  });
}

/** A progress event, unless nothing has happened since the last one. */
function recordProgress() {
  const changed = playback.reported !== `${playback.fromS} ${playback.positionS}`;
  if (playback.started && changed) record("progress");
}

function milliseconds(seconds) {
  return Math.round(seconds * 1000) / 1000;
}

/** Follow the video. During a seek `currentTime` is where it goes, not what was played. */
function follow() {
  if (!video.seeking) playback.positionS = Math.max(video.currentTime, playback.fromS);
}

function jumped() {
  playback.fromS = playback.positionS = video.currentTime;
}

function onPlaying() {
  if (!playback.started) {
    playback.started = true;
    jumped();
    record("started");
    flush();
  }
  playback.timer ??= setInterval(onTick, PROGRESS_EVERY_MS);
}

function onTick() {
  follow();
  recordProgress();
  flush();
}

function onPause() {
  stopTicking();
  follow();
  if (!video.ended) recordProgress(); // else `ended` comes next, and says more
  flush();
}

/** What was played ends where the last `timeupdate` saw it; from here on the next interval counts. */
function onSeeking() {
  recordProgress();
  jumped();
  flush();
}

function onEnded() {
  stopTicking();
  if (!playback.started) return;
  follow();
  record("finished");
  flush();
}

/** The page may never come back: being hidden is the last thing that a page is sure to be told. */
function onVisibility() {
  if (leaving) return; // a page that is left is hidden on the way out, and has said it all
  if (document.hidden) reportForTheLastTime();
  else flush();
}

function onLeave() {
  leaving = true;
  reportForTheLastTime();
}

function reportForTheLastTime() {
  follow();
  recordProgress();
  beacon();
}

function stopTicking() {
  clearInterval(playback.timer);
  playback.timer = null;
}

/** Go on where the viewer stopped; `?t=` says where to begin otherwise. */
async function resume(kept) {
  const wantedS = startInUrl();
  const startS = wantedS ?? (await whereStopped(kept));
  if (startS === null) return;
  await metadata();
  if (startS >= video.duration) return;
  const untouched = !playback.started && video.currentTime === 0;
  if (untouched) video.currentTime = startS;
  if (wantedS !== null) return;
  if (untouched) offer(`Continues at ${clock(startS)}.`, "Start over", 0);
  else offer(`You stopped at ${clock(startS)}.`, "Continue there", startS);
}

function startInUrl() {
  const t = new URLSearchParams(location.search).get("t");
  return t !== null && /^\d+(\.\d+)?$/.test(t) ? Number(t) : null;
}

/** Seconds, or null to begin at the beginning. An event still kept here may be newer than what the history knows. */
async function whereStopped(kept) {
  const known = await lastPlayback(videoId, playback.id);
  const keptIsNewer = kept && (!known || Date.parse(kept.at) > Date.parse(known.last_at));
  const last = keptIsNewer ? { position_s: kept.position_s, finished: kept.kind === "finished" } : known;
  return last && !last.finished && last.position_s > RESUME_FROM_S ? last.position_s : null;
}

function metadata() {
  if (video.readyState >= HTMLMediaElement.HAVE_METADATA) return Promise.resolve();
  return new Promise((resolve) => video.addEventListener("loadedmetadata", resolve, { once: true }));
}

function offer(text, choice, positionS) {
  const note = document.getElementById("resume");
  const button = note.querySelector("button");
  note.querySelector("span").textContent = text;
  button.textContent = choice;
  button.addEventListener("click", () => {
    video.currentTime = positionS;
    note.hidden = true;
    video.focus();
  });
  note.hidden = false;
}

function say(text) {
  document.getElementById("recording").textContent = text;
}

video.addEventListener("playing", onPlaying);
video.addEventListener("timeupdate", follow);
video.addEventListener("pause", onPause);
video.addEventListener("seeking", onSeeking);
video.addEventListener("seeked", jumped);
video.addEventListener("ended", onEnded);
video.addEventListener("error", () => say("The video could not be read. Reload the page to try again."));
document.addEventListener("visibilitychange", onVisibility);
addEventListener("pagehide", onLeave);
addEventListener("pageshow", () => {
  leaving = false;
});
news.addEventListener("away", () => say("Recording is away just now. Your place is kept in this browser and sent later."));
news.addEventListener("back", () => say(""));

resume(newestOf(videoId));
flush();
