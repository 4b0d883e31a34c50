/** Requests posters again that are not ready yet. Until then, or if there is none, no broken picture is shown. */

const RETRIES = 6;
const RETRY_MS = 2000;

/** How often each picture has been requested again. */
const asked = new WeakMap();

function retry(image) {
  const count = asked.get(image) ?? 0;
  image.classList.add("waiting");
  if (count >= RETRIES) return;
  asked.set(image, count + 1);
  const address = image.src;
  // Wait longer each time, because many new videos make a queue.
  setTimeout(() => {
    if (image.src !== address) return;
    image.removeAttribute("src");
    image.src = address;
  }, RETRY_MS * (count + 1));
}

function isPoster(element) {
  return element instanceof HTMLImageElement && element.closest(".poster") !== null;
}

document.addEventListener("error", (event) => isPoster(event.target) && retry(event.target), true);
document.addEventListener("load", (event) => isPoster(event.target) && event.target.classList.remove("waiting"), true);
// Pictures that failed before this script was loaded.
for (const image of document.querySelectorAll(".poster img")) {
  if (image.complete && image.naturalWidth === 0 && image.getAttribute("src")) retry(image);
}
