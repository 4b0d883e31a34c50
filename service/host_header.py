"""Checks the Host header: which names does this site answer to?

The page of another site can make its own name point to 127.0.0.1 or to a machine of the LAN (DNS rebinding). The
browser then treats our answers as that site's own. But such a name is one of the public DNS. So names that nobody can
own in the public DNS always get an answer. Other names get one only if ALLOWED_HOSTS lists them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address

#: Endings that the public DNS never has (RFC 6761, 6762, 8375; ICANN reserved `internal`).
PRIVATE_ENDINGS = (".localhost", ".local", ".lan", ".internal", ".intranet", ".home", ".home.arpa", ".corp", ".test")
#: A name, an IPv4 address, or an IPv6 address in brackets; then an optional port. Names of upstreams and containers may
#: have underscores.
HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
#: HTTP/1.0, as CGI and as granian write it.
PROTOCOLS_WITHOUT_HOST = frozenset({"HTTP/1.0", "HTTP/1"})
#: If ALLOWED_HOSTS contains this, every name gets an answer.
ANY = "*"


class Hosts:
    """The names that a Host header may have.

    `allowed` has names besides the private ones; `.example.org` stands for all names below it.
    """

    def __init__(self, allowed: tuple[str, ...] = ()) -> None:
        self._allowed = frozenset(name.lower() for name in allowed)
        self._cached_fault = lru_cache(1024)(self._fault)

    def fault(self, host: str | None, protocol: str) -> tuple[int, str] | None:
        """Return what is wrong, like `_fault`. A missing header is fine in HTTP/1.0, which does not know it."""
        return None if host is None and protocol in PROTOCOLS_WITHOUT_HOST else self._cached_fault(host or "")

    def _fault(self, host: str) -> tuple[int, str] | None:
        """Return status and detail of the answer to a request with this Host header; None if the header is fine."""
        match = HOST.fullmatch(host)
        if match is None:
            return 400, "Send one Host header, with a name or an address and perhaps a port."
        name = match["name"].lower().removesuffix(".")
        if self._is_allowed(name):
            return None
        return 421, f"This server does not answer to the name {name}. If it is yours, set ALLOWED_HOSTS={name}"

    def _is_allowed(self, name: str) -> bool:
        if ANY in self._allowed or name in self._allowed or "." not in name or name.endswith(PRIVATE_ENDINGS):
            return True
        parents = (name[index:] for index, letter in enumerate(name) if letter == ".")
        return _is_address(name) or any(parent in self._allowed for parent in parents)


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
