/** Asks for the viewer's history, which may be away: nothing on a page waits for it. */

import { flush } from "./outbox.js";

/** When to look again after views were sent: the worker writes them within moments, a busy one within seconds. */
const LOOK_AGAIN_MS = [400, 1_600, 4_000];
const RETRY_AFTER_S = 5;

/** The history did not answer. `retryAfterS` says when to ask again. */
export class HistoryAway extends Error {
  constructor(retryAfterS) {
    super("the history is away");
    this.retryAfterS = retryAfterS || RETRY_AFTER_S;
  }
}

/** `{items, next_cursor}`, newest first. Parameters: limit, cursor, video_id. Throws HistoryAway. */
export async function readHistory(parameters) {
  const answer = await fetch(`/api/history?${new URLSearchParams(parameters)}`).catch(() => null);
  if (answer?.ok) return answer.json();
  throw new HistoryAway(Number(answer?.headers.get("Retry-After")));
}

/** The viewer's last playback of a video before this one, or null; null too when the history is away. */
export async function lastPlayback(videoId, thisPlaybackId) {
  try {
    // Two: somebody who presses play at once is in the history before it answers.
    const { items } = await readHistory({ video_id: videoId, limit: 2 });
    return items.find((item) => item.playback_id !== thisPlaybackId) ?? null;
  } catch {
    return null;
  }
}

/** Call `refresh` now. If views that an earlier page left were sent just now, call it again until they may be seen. */
export async function withLatestViews(refresh) {
  const sent = flush();
  await refresh();
  if ((await sent) === 0) return;
  for (const pauseMs of LOOK_AGAIN_MS) {
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
    await refresh();
  }
}
