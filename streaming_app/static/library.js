/** Fills the row "Continue watching" once the history has answered. Away history, no row. */

import { readHistory, withLatestViews } from "./history_api.js";
import { RESUME_FROM_S, clock, fromTemplate, trail, watchUrl } from "./show.js";

/** One row on a desktop. */
const MAX_CARDS = 4;
/** Playbacks looked at: more than one may be of the same video. */
const LOOK_BACK = 50;

const section = document.getElementById("continue");

/** The last playback of each video, unless it was finished, hardly begun, or its video has gone. */
function unfinished(items) {
  const newest = new Map();
  for (const item of items) if (!newest.has(item.video_id)) newest.set(item.video_id, item);
  return [...newest.values()].filter(
    (item) => !item.finished && item.position_s > RESUME_FROM_S && playable(item.video_id),
  );
}

/** The card of a video in the grid below, if it can be played. */
function playable(videoId) {
  return document.querySelector(`.grid [data-video-id="${CSS.escape(videoId)}"]:not(.broken)`);
}

function card(item) {
  const inGrid = playable(item.video_id);
  const card = fromTemplate(section.querySelector("template"));
  const durationS = Number(inGrid.dataset.durationS);
  card.querySelector("a").href = watchUrl(item.video_id, item.position_s);
  card.querySelector("img").src = inGrid.querySelector("img").src;
  card.querySelector("h2").textContent = item.title;
  card.querySelector(".length").textContent = durationS
    ? `${clock(Math.max(durationS - item.position_s, 0))} left`
    : `at ${clock(item.position_s)}`;
  trail(card.querySelector("progress"), item.position_s, durationS);
  return card;
}

let shown = "[]";

async function refresh() {
  const { items } = await readHistory({ limit: LOOK_BACK }).catch(() => ({ items: [] }));
  const chosen = unfinished(items).slice(0, MAX_CARDS);
  if (JSON.stringify(chosen) === shown) return; // nothing moves under a finger without need
  shown = JSON.stringify(chosen);
  section.querySelector("ul").replaceChildren(...chosen.map(card));
  section.hidden = chosen.length === 0;
}

withLatestViews(refresh);
addEventListener("pageshow", (event) => event.persisted && withLatestViews(refresh));
