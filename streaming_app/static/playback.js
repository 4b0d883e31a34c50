/**
 * Turns playing into events: `started`, `progress` (every ten seconds and on pause, seek and hide), and `finished`.
 *
 * The last reported position is the viewer's place. Only what really played counts. A jump does not count, and neither
 * does a look: a second or two at another position, for example at the end.
 */

import { stamp } from "./clock.js";
import { keep } from "./outbox.js";
import { remember } from "./places.js";

/**
 * After a jump, playing less than this (in seconds of the video) is a look. For a short video: less than a quarter of
 * it.
 */
const LOOK_S = 2;
const LOOK_OF_ALL = 0.25;

export class Playback {
  constructor(videoId, timeline) {
    this._videoId = videoId;
    this._timeline = timeline;
    /** The viewer's place before a look that may be going on; null while it is unknown. */
    this._placeS = null;
    /** Whether the last report was of a look, and the place to go back to was unknown. */
    this._isLost = false;
    this._begin();
  }

  _begin() {
    this.id = stamp().id;
    this.isStarted = false;
    this._isOver = false;
    this._moveTo(0);
  }

  /** The video was played up to here. */
  get positionS() {
    return this._positionS;
  }

  /** `fromS` to `positionS` was really played, without a jump. Both move together while nothing plays. */
  _moveTo(positionS) {
    this._fromS = this._positionS = positionS;
    this._reportedS = positionS;
  }

  /**
   * The video plays. Returns whether this begins a playback: the first one of the page, or the next one after the end.
   */
  plays() {
    if (this._isOver) this._begin();
    if (this.isStarted) return false;
    this.isStarted = true;
    this.jumped();
    this._record("started", this._positionS);
    return true;
  }

  /** The video has played up to its current position. */
  follow() {
    if (!this._isOver) this._positionS = Math.max(this._timeline.positionS, this._fromS);
  }

  /** The video is at another position now. */
  jumped() {
    this._moveTo(this._timeline.positionS);
  }

  /** Report what has played since the last report. While the video plays on, a look is not reported yet. */
  report({ playsOn = false } = {}) {
    if (!this.isStarted || this._isOver || this._positionS === this._reportedS) return;
    const isLook = this._isLook();
    if (isLook && playsOn) return;
    this._record("progress", this._positionS);
    if (!isLook) this._placeS = this._positionS;
    else if (this._placeS === null) this._isLost = true;
    else this._record("progress", this._placeS, null);
  }

  /** Set the viewer's place from before this page. A look goes back to it. */
  learn(placeS) {
    if (this._placeS !== null) return; // the viewer has played on from there
    this._placeS = placeS;
    if (this._isLost) this._record("progress", placeS, null);
  }

  /** The video has ended. `isWhole`: the film ends here; false for a recording that goes on. */
  ended({ isWhole }) {
    if (!this.isStarted || this._isOver) return;
    if (!isWhole || (this._isLook() && this._placeS !== null)) {
      this.report();
      return;
    }
    this._record("finished", this._positionS);
    this._isOver = true;
    this._placeS = this._positionS;
  }

  _isLook() {
    const lengthS = this._timeline.lengthS || Infinity;
    return this._positionS - this._fromS < Math.min(LOOK_S, lengthS * LOOK_OF_ALL);
  }

  _record(kind, positionS, fromS = this._fromS) {
    const { id, at } = stamp();
    this._reportedS = this._positionS;
    keep({
      event_id: id,
      kind,
      video_id: this._videoId,
      playback_id: this.id,
      position_s: milliseconds(positionS),
      ...(fromS !== null && fromS < positionS && { played_from_s: milliseconds(fromS) }),
      at,
    });
    if (kind === "started") return;
    remember(this._videoId, {
      playback_id: this.id,
      position_s: milliseconds(positionS),
      at,
      finished: kind === "finished",
    });
  }
}

function milliseconds(seconds) {
  return Math.round(seconds * 1000) / 1000;
}
