/** Formats that every page uses. */

/** A video that was left within its first seconds was not really begun. */
export const RESUME_FROM_S = 5;
/** From this share of its length on, a video is finished (FINISHED_AT): only credits follow. */
const FINISHED_AT = Number(document.querySelector('meta[name="finished-at"]')?.content || 0.95);
/** Credits take at most this long, however long the film is. */
const LONGEST_CREDITS_S = 300;
/** Less than this is shown as "0:00 left". */
const NOTHING_LEFT_S = 1;

/** Format seconds as a player shows them: `0:07`, `12:34`, `1:02:03`. */
export function clock(seconds) {
  const s = Math.floor(seconds);
  const [hours, minutes] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  const tail = `${hours ? String(minutes).padStart(2, "0") : minutes}:${String(s % 60).padStart(2, "0")}`;
  return hours ? `${hours}:${tail}` : tail;
}

/** Whether a playback has come to the end of its video, or to the credits. `durationS` may be unknown. */
export function isFinished({ finished, position_s: positionS }, durationS) {
  const creditsS = Math.min(durationS * (1 - FINISHED_AT), LONGEST_CREDITS_S);
  return finished || (durationS > 0 && durationS - positionS <= Math.max(creditsS, NOTHING_LEFT_S));
}

/** Whether to offer to continue a playback: it was really begun and is not finished. */
export function isUnfinished(item, durationS) {
  return item.position_s > RESUME_FROM_S && !isFinished(item, durationS);
}

/** Copy the content of a `<template>`. */
export function fromTemplate(template) {
  return template.content.firstElementChild.cloneNode(true);
}

/** Make the trail below a poster, which shows how far the video was watched. None if the length is unknown. */
export function trail(progress, positionS, durationS) {
  progress.hidden = !durationS;
  progress.max = durationS || 1;
  progress.value = Math.min(positionS, progress.max);
}

export function watchUrl(videoId, positionS = 0) {
  const start = positionS > RESUME_FROM_S ? `?t=${Math.floor(positionS)}` : "";
  return `/watch/${encodeURIComponent(videoId)}${start}`;
}
