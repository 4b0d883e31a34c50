"""Decides the answer to a request for a video's bytes: the rules of RFC 9110 for one file, without input or output."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Protocol
from urllib.parse import quote

from werkzeug.http import http_date, parse_date, parse_etags

METHODS = ("GET", "HEAD")
#: The last second that an HTTP date can express (end of 9999). A file's time may be later.
LAST_SECOND = 253_402_300_799
#: One range: `bytes=0-499`, `bytes=500-` or `bytes=-500`. A number of more than 1,000 digits is not a position.
ONE_RANGE = re.compile(r"bytes=[ \t]*(?P<first>[0-9]{0,1000})-(?P<last>[0-9]{0,1000})[ \t]*", re.IGNORECASE)

#: Prefix of a file's path in X-Accel-Redirect (deploy/nginx/nginx.conf).
ACCEL_PREFIX = "/accel"

#: A range that contains no byte of the file.
UNSATISFIABLE = (0, 0)


class Headers(Protocol):
    """Request headers by lower-case name. Granian's and Werkzeug's headers both fit."""

    def get(self, key: str, /) -> str | None: ...


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is now. `id` is the video's id; `mtime_ns` is in nanoseconds since 1970."""

    id: str
    size: int
    mtime_ns: int
    content_type: str

    @property
    def etag(self) -> str:
        """The strong tag, without quotes. Other bytes under the same id have another size or another time."""
        return f"{self.id}-{self.size:x}-{self.mtime_ns:x}"

    @property
    def modified(self) -> datetime:
        """The time of the last change in whole seconds, like HTTP dates."""
        return datetime.fromtimestamp(min(max(self.mtime_ns // 10**9, 0), LAST_SECOND), UTC)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: status, headers, and which bytes to send. `start` is included, `end` is not; no bytes if they are
    equal.

    `detail` explains an answer of 4xx. `by_proxy`: the proxy in front sends these bytes.
    """

    status: HTTPStatus
    headers: tuple[tuple[str, str], ...]
    start: int = 0
    end: int = 0
    detail: str = ""
    by_proxy: bool = False

    @property
    def sent_by(self) -> str:
        """Who sends the bytes: `app` or `proxy`."""
        return "proxy" if self.by_proxy else "app"


def answer(method: str, headers: Headers, file: File) -> Reply:
    """Decide the answer to a GET or HEAD. Preconditions come before the range, in the order of RFC 9110, 13.2.2."""
    # Browsers store the bytes and ask each time, because the file may have been replaced.
    tag = (("accept-ranges", "bytes"), ("etag", f'"{file.etag}"'), ("cache-control", "no-cache"))
    known = (*tag, ("last-modified", http_date(file.modified)))
    if _has_changed(headers, file):
        return Reply(HTTPStatus.PRECONDITION_FAILED, known, detail="The video is not the one you asked for any more.")
    if _is_known(headers, file):
        # A 304 has the tag and nothing else: the client has the rest (15.4.5).
        return Reply(HTTPStatus.NOT_MODIFIED, tag)
    # Range is defined for GET only (14.2).
    wanted = headers.get("range") if method == "GET" else None
    found = _range(wanted, file.size) if wanted and _range_holds(headers, file) else None
    if found == UNSATISFIABLE:
        headers_416 = (*known, ("content-range", f"bytes */{file.size}"))
        detail = f"The video has {file.size} bytes; the range asks for none of them."
        return Reply(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers_416, detail=detail)
    start, end = found or (0, file.size)
    sent = [*known, ("content-type", file.content_type), ("content-length", str(end - start))]
    if found:
        sent.append(("content-range", f"bytes {start}-{end - 1}/{file.size}"))
    status = HTTPStatus.PARTIAL_CONTENT if found else HTTPStatus.OK
    return Reply(status, tuple(sent), start, end if method == "GET" else start)


def hand_over(method: str, headers: Headers, file: File, path: str) -> Reply:
    """Let the proxy send the file at `path` (X-Accel-Redirect).

    The proxy handles ranges and preconditions itself. It uses its own tag of the file, which is the tag that clients
    get. `start` and `end` are what it will send to a client that has no bytes yet.
    """
    wanted = headers.get("range") if method == "GET" else None
    start, end = (_range(wanted, file.size) if wanted else None) or (0, file.size)
    sent = (
        ("content-type", file.content_type),
        ("cache-control", "no-cache"),
        # nginx decodes the path like an address, so special characters in a file name must be quoted.
        ("x-accel-redirect", ACCEL_PREFIX + quote(path)),
    )
    return Reply(HTTPStatus.OK, sent, start, end if method == "GET" else start, by_proxy=True)


def _range(value: str, size: int) -> tuple[int, int] | None:
    """Return start and end of the requested range, None to ignore the header, or UNSATISFIABLE.

    Several ranges are answered with the whole file, as 14.2 allows: no player asks for them, and they are expensive. An
    invalid range gets the whole file, too. Werkzeug's parser is not used, because it refuses a suffix that is longer
    than the file.
    """
    match = ONE_RANGE.fullmatch(value)
    if match is None or not (match["first"] or match["last"]):
        return None
    if not match["first"]:
        suffix = min(int(match["last"]), size)
        # A suffix of an empty file is valid, but there is no range to name. So the whole file is sent (14.1.2).
        return (size - suffix, size) if suffix else (None if int(match["last"]) else UNSATISFIABLE)
    first = int(match["first"])
    last = int(match["last"]) if match["last"] else size - 1
    if match["last"] and last < first:
        return None
    return (first, min(last + 1, size)) if first < size else UNSATISFIABLE


def _has_changed(headers: Headers, file: File) -> bool:
    """Return whether If-Match (strong comparison), or else If-Unmodified-Since, forbids an answer."""
    if (tags := headers.get("if-match")) is not None:
        return not parse_etags(tags.strip()).contains(file.etag)
    since = parse_date(headers.get("if-unmodified-since"))
    return since is not None and file.modified > since


def _is_known(headers: Headers, file: File) -> bool:
    """Return whether the client has these bytes, by If-None-Match (weak comparison), or else If-Modified-Since."""
    if (tags := headers.get("if-none-match")) is not None:
        known = parse_etags(tags.strip())
        return known.star_tag or known.contains_weak(file.etag)
    since = parse_date(headers.get("if-modified-since"))
    return since is not None and file.modified <= since


def _range_holds(headers: Headers, file: File) -> bool:
    """Return whether If-Range, if present, names these bytes: the same strong tag or the same date (13.1.5)."""
    value = headers.get("if-range")
    if value is None:
        return True
    value = value.strip()
    if value.startswith(('"', "W/")):
        return value == f'"{file.etag}"'
    return parse_date(value) == file.modified
