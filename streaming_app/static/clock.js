/**
 * The server's clock, and event ids made with it.
 *
 * The browser's own clock may be wrong, and may be corrected while the page is open. But an id contains its time, and
 * the server refuses an id from far ahead or long ago. So this clock counts from the moment the page was loaded. Each
 * answer of the server corrects it, because the count is too low if the computer slept.
 */

/** If the clock goes back, new ids may be ahead of it by at most this much. The server accepts a day. */
const LONGEST_AHEAD_MS = 12 * 3_600_000;
/** The resolution of the header `Date`. */
const DATE_UNIT_MS = 1_000;
/** Number of ids that fit into one millisecond. */
const IDS_IN_MS = 4_096;

/** The server's time, in milliseconds since 1970, when `performance.now()` was 0. */
let originMs = measure();
/** How far `Date` was ahead of the server's time in the first answer: a proxy may set it with a clock of its own. */
let dateAheadMs = null;
let lastMs = 0;
let count = 0;

/** Return the server's time in milliseconds since 1970. */
export function now() {
  return performance.now() + originMs;
}

/** Correct the clock with the `Date` of an answer. `sentAt`: when the request was sent, by `performance.now()`. */
export function compare(answer, sentAt) {
  const dateMs = Date.parse(answer.headers.get("Date"));
  if (!Number.isFinite(dateMs)) return;
  // The header was written between these two times, and rounded down by up to a second.
  const leastMs = dateMs - now();
  const mostMs = dateMs + DATE_UNIT_MS - (sentAt + originMs);
  if (dateAheadMs === null) dateAheadMs = between(leastMs, 0, mostMs);
  else originMs += between(leastMs, dateAheadMs, mostMs) - dateAheadMs;
}

/**
 * Make a UUIDv7 and its time for one event.
 *
 * Ids of one page sort in the order in which they were made, also within a millisecond and when the clock goes back.
 * For equal times, the larger id is the later one.
 */
export function stamp() {
  const ms = Math.floor(now());
  if (ms > lastMs || lastMs - ms > LONGEST_AHEAD_MS) {
    lastMs = ms;
    count = 0;
  } else if (++count === IDS_IN_MS) {
    lastMs += 1;
    count = 0;
  }
  return { id: uuid7(lastMs, count), at: new Date(lastMs).toISOString() };
}

function uuid7(ms, order) {
  const time = ms.toString(16).padStart(12, "0");
  // crypto.randomUUID exists only on https and localhost.
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  bytes[0] = (bytes[0] & 0x3f) | 0x80;
  const random = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const counter = order.toString(16).padStart(3, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${counter}-${random.slice(0, 4)}-${random.slice(4)}`;
}

function measure() {
  const serverMs = Date.parse(document.querySelector('meta[name="server-time"]')?.content);
  const [page] = performance.getEntriesByType("navigation");
  // The page has the time at which the answer began.
  return Number.isFinite(serverMs) ? serverMs - (page?.responseStart ?? 0) : Date.now() - performance.now();
}

function between(least, wanted, most) {
  return Math.min(Math.max(wanted, least), most);
}
