/** Fills the row "Continue watching" when the history has answered. If it is away, uses what this browser knows. */

import { readHistory, withLatestViews } from "./history_api.js";
import "./notices.js";
import { newestOfEach } from "./places.js";
import { clock, fromTemplate, isUnfinished, trail, watchUrl } from "./show.js";

/** One row on a desktop. */
const MAX_CARDS = 4;
/** Playbacks to look at: several may be of the same video. */
const LOOK_BACK = 50;

const section = document.getElementById("continue");

/** The last playback of each video, unless it was finished, was hardly begun, or its video is gone. */
function unfinished(items) {
  return newestOfEach(items).filter((item) => {
    const inGrid = playable(item.video_id);
    return inGrid && isUnfinished(item, durationS(inGrid));
  });
}

function durationS(inGrid) {
  return Number(inGrid.dataset.durationS) || 0;
}

/** The card of a video in the grid below, if it can be played. */
function playable(videoId) {
  return document.querySelector(`.grid [data-video-id="${CSS.escape(videoId)}"]:not(.broken)`);
}

function card(item) {
  const inGrid = playable(item.video_id);
  const card = fromTemplate(section.querySelector("template"));
  const lengthS = durationS(inGrid);
  card.querySelector("a").href = watchUrl(item.video_id, item.position_s);
  card.querySelector("img").src = inGrid.querySelector("img").src;
  card.querySelector("h2").textContent = inGrid.querySelector("h2").textContent;
  card.querySelector(".length").textContent = lengthS
    ? `${clock(lengthS - item.position_s)} left`
    : `at ${clock(item.position_s)}`;
  trail(card.querySelector("progress"), item.position_s, lengthS);
  return card;
}

let shown = "[]";

async function refresh() {
  const { items } = await readHistory({ limit: LOOK_BACK }).catch(() => ({ items: [] }));
  const chosen = unfinished(items).slice(0, MAX_CARDS);
  if (JSON.stringify(chosen) === shown) return; // unchanged: do not move cards while the viewer may be pressing one
  shown = JSON.stringify(chosen);
  section.querySelector("ul").replaceChildren(...chosen.map(card));
  section.hidden = chosen.length === 0;
}

withLatestViews(refresh);
addEventListener("pageshow", (event) => event.persisted && withLatestViews(refresh));
