/**
 * Remembers in this browser where the viewer stopped: the history may be away, or not know the last minutes yet.
 *
 * A place is deleted when the history has it, or a newer one.
 */

import { now } from "./clock.js";
import { viewer } from "./server.js";
import { getJson, keysAfter, put, remove } from "./store.js";

const PREFIX = "flixtrail.place.";
/** If the history is behind for longer than this, the views will not come, or were erased. */
const LIVES_MS = 86_400_000;
const MAX_PLACES = 100;
/** Up to this difference, two times or two positions count as the same: the server's clock and ours may differ. */
const SAME_MS = 250;
const SAME_S = 0.01;

/** Remember `{playback_id, position_s, at, finished}`, the newest of a video. */
export function remember(videoId, place) {
  put(PREFIX + videoId, JSON.stringify({ ...place, viewer: viewer() }));
  const videos = keysAfter(PREFIX);
  if (videos.length > MAX_PLACES) for (const id of videos.sort(byAge).slice(0, -MAX_PLACES)) remove(PREFIX + id);
}

/** Return the place of a video as an item of the history, or null. */
export function placeOf(videoId) {
  const place = getJson(PREFIX + videoId);
  const isGood = place && place.viewer === viewer() && now() - Date.parse(place.at) < LIVES_MS;
  if (!isGood) {
    remove(PREFIX + videoId);
    return null;
  }
  return { ...place, video_id: videoId, last_at: place.at };
}

/**
 * Return the newest playback of each video, newest first. Uses the history's newest `items` and what this browser
 * knows.
 */
export function newestOfEach(items) {
  const newest = new Map();
  for (const item of items) if (!newest.has(item.video_id)) newest.set(item.video_id, item);
  for (const videoId of keysAfter(PREFIX)) {
    const item = better(placeOf(videoId), newest.get(videoId));
    if (item) newest.set(videoId, item);
  }
  return [...newest.values()].sort((one, other) => Date.parse(other.last_at) - Date.parse(one.last_at));
}

/** Return the newer of a place and the history's newest playback of its video. Either may be missing. */
export function better(place, item) {
  if (!place) return item ?? null;
  if (isNewer(place, item)) return { ...item, ...place };
  remove(PREFIX + place.video_id); // the history has caught up
  return item;
}

/** Return an entry of the history, updated with what this browser knows about the same playback. */
export function updated(item) {
  const place = placeOf(item.video_id);
  return place?.playback_id === item.playback_id && isNewer(place, item) ? { ...item, ...place } : item;
}

function isNewer(place, item) {
  if (!item) return true;
  const isSame = place.playback_id === item.playback_id && Math.abs(place.position_s - item.position_s) < SAME_S;
  return !isSame && Date.parse(place.at) > Date.parse(item.last_at) + SAME_MS;
}

function byAge(one, other) {
  return Date.parse(getJson(PREFIX + one)?.at ?? 0) - Date.parse(getJson(PREFIX + other)?.at ?? 0);
}
