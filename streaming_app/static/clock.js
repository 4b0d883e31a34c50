/** The server's clock, and ids made by it. */

/** Milliseconds by which this browser's clock is behind the server's, measured once, as the page came in. */
const behindMs = measure();

/**
 * Milliseconds since 1970 by the server's clock.
 *
 * An id carries its time and the server refuses one from far ahead or long ago, so that a browser whose clock is days
 * off could otherwise record nothing. Kept events survive the page, and the next page may measure better: one clock for
 * all of them is the server's.
 */
export function now() {
  return Date.now() + behindMs;
}

/** A UUIDv7. Those of one page stand in the order they were made, also within a millisecond: at equal times the larger wins. */
export function newId() {
  const ms = Math.max(Math.floor(now()), newId.lastMs);
  newId.count = ms === newId.lastMs ? newId.count + 1 : 0;
  newId.lastMs = ms;
  const time = ms.toString(16).padStart(12, "0");
  const order = newId.count.toString(16).padStart(3, "0");
  // Not crypto.randomUUID: browsers have it only on https and localhost.
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  bytes[0] = (bytes[0] & 0x3f) | 0x80;
  const random = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${order}-${random.slice(0, 4)}-${random.slice(4)}`;
}
newId.lastMs = 0;
newId.count = 0;

function measure() {
  const serverMs = Date.parse(document.querySelector('meta[name="server-time"]')?.content);
  const [page] = performance.getEntriesByType("navigation");
  // The time was written when the answer began, not now. timeOrigin would say when that was, but in some browsers it
  // drifts from Date.now() while the machine sleeps.
  const sinceMs = performance.now() - (page?.responseStart ?? performance.now());
  return Number.isFinite(serverMs) ? serverMs - (Date.now() - sinceMs) : 0;
}
