/** Stores texts by key in localStorage: tabs share it and it outlives the page. If it is refused or full: in memory. */

const memory = new Map();

/** Store a text. Returns whether it outlives the page; if not, it is kept in memory. */
export function put(key, text) {
  try {
    localStorage.setItem(key, text);
    memory.delete(key);
    return true;
  } catch {
    memory.set(key, text);
    return false;
  }
}

/** Return the text, or null. */
export function get(key) {
  try {
    return memory.get(key) ?? localStorage.getItem(key);
  } catch {
    return null;
  }
}

export function remove(key) {
  memory.delete(key);
  try {
    localStorage.removeItem(key);
  } catch {
    // localStorage is refused, so the text was only in memory
  }
}

/** Return the rest of each key that begins with `prefix`, sorted. */
export function keysAfter(prefix) {
  const keys = new Set([...storedKeys(), ...memory.keys()]);
  return [...keys].filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length)).sort();
}

/** Return how many of these keys are lost when the page is closed. */
export function inMemory(prefix) {
  return [...memory.keys()].filter((key) => key.startsWith(prefix)).length;
}

/** Return the JSON under a key, or null if it is missing or damaged. */
export function getJson(key) {
  try {
    return JSON.parse(get(key));
  } catch {
    return null;
  }
}

function storedKeys() {
  try {
    return Object.keys(localStorage);
  } catch {
    return [];
  }
}
