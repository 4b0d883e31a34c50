/** Requests the viewer's history. It may be away, so nothing on a page waits for it. */

import { flush } from "./outbox.js";
import { better, placeOf } from "./places.js";

/** When to ask again after views were sent. A worker writes them within moments, a busy one within seconds. */
const LOOK_AGAIN_MS = [400, 1_600, 4_000];
const RETRY_AFTER_S = 5;

/** The history did not answer. `retryAfterS` says when to ask again. */
export class HistoryAway extends Error {
  constructor(retryAfterS) {
    super("the history is away");
    this.retryAfterS = retryAfterS || RETRY_AFTER_S;
  }
}

/** Request `{items, next_cursor}`, newest first. Parameters: limit, cursor, video_id. Throws HistoryAway. */
export async function readHistory(parameters) {
  const answer = await fetch(`/api/history?${new URLSearchParams(parameters)}`).catch(() => null);
  if (answer?.ok) return answer.json();
  await answer?.arrayBuffer().catch(() => null); // an unread body would keep the request open
  throw new HistoryAway(Number(answer?.headers.get("Retry-After")));
}

/**
 * Return the viewer's newest playback of a video before this one, or null. This browser may know a newer one than the
 * history. If the history is away, only what this browser knows is used.
 */
export async function lastPlayback(videoId, thisPlaybackId) {
  const place = placeOf(videoId); // read now, because what is played next will replace it
  // Two, because this page's own playback may be in the history already.
  const { items } = await readHistory({ video_id: videoId, limit: 2 }).catch(() => ({ items: [] }));
  return better(place, items.find((item) => item.playback_id !== thisPlaybackId));
}

/** Call `refresh` now. If an earlier page left views that were just sent, call it again when they may be stored. */
export async function withLatestViews(refresh) {
  const sent = flush();
  await refresh();
  if ((await sent) === 0) return;
  for (const pauseMs of LOOK_AGAIN_MS) {
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
    await refresh();
  }
}
