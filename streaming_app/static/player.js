/** The page of a video: reports what is played, continues where the viewer stopped, and shows errors. */

import { lastPlayback } from "./history_api.js";
import { say } from "./notices.js";
import { beacon, check, flush } from "./outbox.js";
import { Playback } from "./playback.js";
import { RESUME_FROM_S, clock, isUnfinished } from "./show.js";
import { Timeline } from "./timeline.js";

const PROGRESS_EVERY_MS = 10_000;
/** Milliseconds for asking whether the file has grown. */
const TIMEOUT_MS = 3_000;
/** If an address names a place past the end, the video opens this much before its end. */
const BEFORE_END_S = 10;
/** Places that are at most this far apart count as the same. */
const NEARBY_S = 5;
/** Tolerance for `currentTime`, which is never exact. */
const EXACT_S = 0.05;
/** How near to its end a looped video was, at the last `timeupdate`, before it began again. */
const LOOP_END_S = 1;
/**
 * Elements that use the space bar themselves when they have the focus. The video is one, because of its own controls.
 */
const TAKES_SPACE = "a[href], button, input, select, textarea, summary, video, [contenteditable]";

const video = document.getElementById("player");
const videoId = video.dataset.videoId;
const timeline = new Timeline(video, Number(video.dataset.durationS || NaN), Number(video.dataset.startS || NaN));
const playback = new Playback(videoId, timeline);

let ticking = null;
let leaving = false;
/** Whether a looped video was played to its end once. The rounds after that are one playback. */
let isRepeating = false;
/** Whether the end was reached, and the page is asking whether it is the end of the film. */
let isEnding = false;

/** Follow the video. During a seek, `currentTime` is the target of the seek, not what was played. */
function follow() {
  if (!video.seeking) playback.follow();
}

function onPlaying() {
  if (!showsPicture()) return;
  if (playback.plays()) {
    forgetStart();
    flush();
  }
  ticking ??= setInterval(onTick, PROGRESS_EVERY_MS);
}

function onTick() {
  follow();
  playback.report({ playsOn: true });
  flush();
}

function onPause() {
  stopTicking();
  follow();
  if (!video.ended) playback.report(); // otherwise `ended` comes next, and reports more
  flush();
}

/** What was played ends at the last `timeupdate`. A new interval begins at the target. */
function onSeeking() {
  end({ isWhole: true });
  if (beginsAgain()) {
    isRepeating = true;
    playback.ended({ isWhole: true });
    if (!video.paused) playback.plays();
  } else {
    playback.report();
  }
  playback.jumped();
  flush();
}

/** Whether a looped video begins again: it jumps to its beginning without an `ended` event. */
function beginsAgain() {
  const isAtEnd = timeline.lengthS - playback.positionS < LOOP_END_S;
  return video.loop && !isRepeating && isAtEnd && timeline.positionS < EXACT_S;
}

async function onEnded() {
  stopTicking();
  follow();
  isEnding = true;
  end({ isWhole: !(await fileHasGrown()) });
}

function end({ isWhole }) {
  if (!isEnding) return; // played again, or page left, meanwhile
  isEnding = false;
  playback.ended({ isWhole });
  if (!isWhole) say("video", "This recording goes on. Reload the page to see more of it.");
  flush();
}

/** Whether the file is longer than when this page was made: a recording that is still being written. */
async function fileHasGrown() {
  try {
    const answer = await fetch(video.currentSrc, { method: "HEAD", signal: AbortSignal.timeout(TIMEOUT_MS) });
    return answer.ok && Number(answer.headers.get("Content-Length")) > Number(video.dataset.sizeBytes);
  } catch {
    return false;
  }
}

/** The page may never come back. Being hidden is the last event that a page surely gets. */
function onVisibility() {
  if (leaving) return; // leaving a page hides it, too; everything has been reported
  if (document.hidden) reportForTheLastTime();
  else flush();
}

function onLeave() {
  leaving = true;
  end({ isWhole: true });
  reportForTheLastTime();
}

function reportForTheLastTime() {
  follow();
  playback.report();
  beacon();
}

function stopTicking() {
  clearInterval(ticking);
  ticking = null;
}

// -- what the browser cannot play ---------------------------------------------------------------------

/** Whether there is a picture. If a browser does not know the codec of the picture, it plays only the sound. */
function showsPicture() {
  return video.videoWidth > 0;
}

function onMetadata() {
  const text = "This browser cannot show the picture of this video: it does not know how it is encoded. Nothing is recorded.";
  say("video", showsPicture() ? "" : text);
  if (!video.paused) onPlaying();
}

async function onError() {
  stopTicking();
  playback.report();
  flush();
  const isUnknown = video.error.code === MediaError.MEDIA_ERR_SRC_NOT_SUPPORTED && (await fileIsThere());
  if (isUnknown) say("video", "This browser cannot play this video: it does not know how it is encoded.");
  else say("video", "The video could not be read. Reload the page to try again.");
}

async function fileIsThere() {
  const answer = await fetch(video.currentSrc, { method: "HEAD" }).catch(() => null);
  return Boolean(answer?.ok);
}

// -- where to begin -----------------------------------------------------------------------------------

/** Continue where the viewer stopped, or begin where `?t=` says. */
async function resume() {
  const wantedS = startInUrl();
  const stopped = lastPlayback(videoId, playback.id);
  if (wantedS !== null) await metadata().then(() => begin(inside(wantedS)));
  const last = await stopped;
  if (last === null) return;
  playback.learn(last.position_s);
  await metadata();
  if (!isUnfinished(last, timeline.lengthS)) return;
  const placeS = inside(last.position_s);
  if (wantedS !== null) {
    // A viewer who follows a link wants to be at its place. After a reload or "back", the last place may be further on.
    if (cameBack() && Math.abs(placeS - wantedS) > NEARBY_S) offerPlace(placeS);
  } else if (begin(placeS)) {
    offer(`Continues at ${clock(placeS)}.`, "Start over", 0);
  } else {
    offerPlace(placeS);
  }
}

/** Go to a position, unless the viewer has done something already. Returns whether it went there. */
function begin(positionS) {
  const isUntouched = !playback.isStarted && timeline.positionS < EXACT_S;
  if (isUntouched) timeline.seek(positionS);
  return isUntouched;
}

/** Return the position, or one shortly before the end if the video is shorter (or still growing). */
function inside(positionS) {
  const { lengthS } = timeline;
  return positionS < lengthS || !(lengthS > 0) ? positionS : Math.max(lengthS - BEFORE_END_S, 0);
}

function startInUrl() {
  const t = new URLSearchParams(location.search).get("t");
  return t !== null && /^\d+(\.\d+)?$/.test(t) ? Number(t) : null;
}

/** After something was played, remove the start from the address. So a reload continues at the newer place. */
function forgetStart() {
  const url = new URL(location);
  if (!url.searchParams.has("t")) return;
  url.searchParams.delete("t");
  history.replaceState(history.state, "", url);
}

function cameBack() {
  const [page] = performance.getEntriesByType("navigation");
  return page?.type === "reload" || page?.type === "back_forward";
}

function metadata() {
  if (video.readyState >= HTMLMediaElement.HAVE_METADATA) return Promise.resolve();
  return new Promise((resolve) => video.addEventListener("loadedmetadata", resolve, { once: true }));
}

function offerPlace(placeS) {
  offer(`You stopped at ${clock(placeS)}.`, "Continue there", placeS);
}

function offer(text, choice, positionS) {
  const note = document.getElementById("resume");
  const button = note.querySelector("button");
  note.querySelector("span").textContent = text;
  button.textContent = choice;
  button.onclick = () => {
    timeline.seek(positionS);
    note.hidden = true;
    video.focus();
  };
  note.hidden = false;
}

// -- the keyboard -------------------------------------------------------------------------------------

/** The space bar plays and pauses, unless another element uses it. */
function onKey(event) {
  const isPlain = !(event.ctrlKey || event.altKey || event.metaKey || event.shiftKey || event.repeat);
  if (event.key !== " " || !isPlain || event.defaultPrevented || event.target.closest(TAKES_SPACE)) return;
  event.preventDefault(); // it would scroll the page
  if (video.paused) video.play().catch(() => {}); // the `error` event says why
  else video.pause();
}

video.addEventListener("playing", onPlaying);
video.addEventListener("timeupdate", follow);
video.addEventListener("pause", onPause);
video.addEventListener("seeking", onSeeking);
video.addEventListener("seeked", () => playback.jumped());
video.addEventListener("ended", onEnded);
video.addEventListener("loadedmetadata", onMetadata);
video.addEventListener("resize", onMetadata);
video.addEventListener("error", onError);
document.addEventListener("visibilitychange", onVisibility);
document.addEventListener("keydown", onKey);
addEventListener("pagehide", onLeave);
addEventListener("pageshow", () => {
  leaving = false;
});

if (video.error) onError();
else if (video.readyState >= HTMLMediaElement.HAVE_METADATA) onMetadata();
resume();
check();
flush();
