/**
 * Positions in a video, in seconds from its first picture.
 *
 * The first timestamp of a file may be any number: a cut video begins a few milliseconds late, and a camera may write
 * the time of day. A player's `currentTime` begins at that timestamp.
 */

/** The server accepts no position above a week. */
const MAX_POSITION_S = 604_800;

/** How long to look for the first timestamp while nothing plays. */
const WATCH_MS = 10_000;

export class Timeline {
  /** `lengthS` and `startS`: from the library, or NaN. Make the object before anything is played. */
  constructor(video, lengthS, startS = NaN) {
    this._video = video;
    this._lengthS = lengthS;
    this._startS = startS || 0;
    this._isMoved = false;
    this._find();
    // A browser may set the first timestamp a moment after the first picture, without an event.
    this._watch(performance.now() + WATCH_MS);
    for (const event of ["loadedmetadata", "loadeddata", "canplay"]) {
      video.addEventListener(event, () => this._find());
    }
    video.addEventListener("seeking", () => {
      this._isMoved = true;
    });
  }

  _watch(untilMs) {
    this._find();
    const isOpen = !this._isMoved && this._video.paused && performance.now() < untilMs;
    if (isOpen) requestAnimationFrame(() => this._watch(untilMs));
  }

  /** The first timestamp: the position of the video before anybody has moved it. */
  _find() {
    const { currentTime, paused, seeking } = this._video;
    // 0 may also mean that it is not known yet.
    if (!this._isMoved && !seeking && paused && currentTime > 0) this._startS = currentTime;
  }

  /** The current position of the video. */
  get positionS() {
    return this.positionOf(this._video.currentTime);
  }

  /** Convert a `currentTime` to a position. */
  positionOf(time) {
    return Math.min(Math.max(time - this._startS, 0), MAX_POSITION_S);
  }

  /** Go to a position. */
  seek(positionS) {
    this._video.currentTime = this._startS + positionS;
  }

  /** The length in seconds, as the browser knows it; NaN if it is unknown. A recording may grow. */
  get lengthS() {
    const { duration } = this._video;
    if (!Number.isFinite(duration)) return this._lengthS;
    // Some files say where they end, others how long they are.
    const startS = this._startS;
    const fromStartS = duration - startS;
    if (fromStartS <= 0) return duration;
    if (startS > MAX_POSITION_S) return fromStartS; // the start is the time of day
    const isLength = Math.abs(duration - this._lengthS) < Math.abs(fromStartS - this._lengthS);
    return isLength ? duration : fromStartS;
  }
}
