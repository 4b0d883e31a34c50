"""Finds the trace id of a request: the id of the client's trace if it sends one, otherwise a new one.

The id travels with the request's views and is in every log line about them. So one `grep` shows what happened to them.
"""

from __future__ import annotations

import re
import secrets

#: The answer's header with the trace id.
HEADER = "Trace-Id"
#: Version, trace id, parent id, flags. From version 01 on, more may follow. https://www.w3.org/TR/trace-context/
TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace_id>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-.*)?"
)
#: An invalid version, by the specification.
INVALID_VERSION = "ff"


def trace_id(traceparent: str | None) -> str:
    """Return the trace id of a valid W3C `traceparent` header, or a new random one: 32 hexadecimal digits."""
    return _of_client(traceparent or "") or new_trace_id()


def new_trace_id() -> str:
    return secrets.token_hex(16)


def _of_client(traceparent: str) -> str | None:
    found = TRACEPARENT.fullmatch(traceparent.strip())
    if found is None or found["version"] == INVALID_VERSION or (found["version"] == "00" and found["more"]):
        return None
    nothing = not int(found["trace_id"], 16) or not int(found["parent"], 16)
    return None if nothing else found["trace_id"]
