"""Headers of every answer that keep a browser from misusing it."""

from __future__ import annotations

#: For answers that are not pages; pages have a policy of their own (streaming_app/routes/pages.py). If a link leads a
#: browser to such an answer, the browser trusts its content type, runs nothing in it, and shows it in no frame of
#: another site.
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
}
#: The one header that matters for the answer to a view.
NO_SNIFFING = ("X-Content-Type-Options", "nosniff")
