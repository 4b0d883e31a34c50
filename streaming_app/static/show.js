/** How things look on every page. */

/** A video left within its first seconds was not really begun. */
export const RESUME_FROM_S = 5;

/** Seconds as a player shows them: `0:07`, `12:34`, `1:02:03`. */
export function clock(seconds) {
  const s = Math.floor(seconds);
  const [hours, minutes] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  const tail = `${hours ? String(minutes).padStart(2, "0") : minutes}:${String(s % 60).padStart(2, "0")}`;
  return hours ? `${hours}:${tail}` : tail;
}

/** A copy of what stands in a `<template>`. */
export function fromTemplate(template) {
  return template.content.firstElementChild.cloneNode(true);
}

/** The trail below a poster: how far it was watched. Without a known length there is none. */
export function trail(progress, positionS, durationS) {
  progress.hidden = !durationS;
  progress.max = durationS || 1;
  progress.value = Math.min(positionS, progress.max);
}

export function watchUrl(videoId, positionS = 0) {
  const start = positionS > RESUME_FROM_S ? `?t=${Math.floor(positionS)}` : "";
  return `/watch/${encodeURIComponent(videoId)}${start}`;
}
