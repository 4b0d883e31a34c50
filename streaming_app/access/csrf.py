"""Says whether a request with a viewer's cookie was sent by one of our own pages.

A page of another site can make a browser send the cookie along. Three checks find this out. A foreign page can forge
none of them, and each check covers cases where another does not work: see docs/decisions/0013-own-pages.md.
"""

from __future__ import annotations

from flask import Request

#: Header with the page token. Only our own pages know their token: it is bound to the viewer.
PAGE_TOKEN_HEADER = "Page-Token"  # noqa: S105 (a header's name)
#: The same as a parameter of the address, for `navigator.sendBeacon`, which cannot set headers.
PAGE_TOKEN_PARAMETER = "page_token"  # noqa: S105 (a parameter's name)

#: Values of Sec-Fetch-Site for a request from our own page, and for one that a person made (address bar, bookmark).
OWN = frozenset({"same-origin", "none"})
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def is_cross_site(request: Request) -> bool:
    """Return whether the browser says that another site's page sent this. Browsers say so over https and on localhost
    only.
    """
    site = request.headers.get("Sec-Fetch-Site")
    return site is not None and site not in OWN


def is_same_site(request: Request, *, behind_proxy: bool) -> bool:
    """Return whether the headers fit a request from one of our own pages, or from a program that is not a browser."""
    if request.headers.get("Sec-Fetch-Site") is not None:
        return not is_cross_site(request)
    # Browsers send Origin with every POST (also sendBeacon), and no page can change it. Without it, the client is not a
    # browser.
    origin = request.headers.get("Origin")
    return origin is None or _is_this_site(origin, _hosts(request, behind_proxy=behind_proxy))


def page_token(request: Request) -> str:
    """Return the page token of a request, or an empty string."""
    return request.headers.get(PAGE_TOKEN_HEADER) or request.args.get(PAGE_TOKEN_PARAMETER, "")


def _hosts(request: Request, *, behind_proxy: bool) -> list[str]:
    """Return the hosts of this site: the request's own, and the host that a trusted proxy was asked for."""
    hosts = [request.headers.get("Host", "")]
    if behind_proxy:
        hosts.append(request.headers.get("X-Forwarded-Host", "").partition(",")[0].strip())
    return hosts


def _is_this_site(origin: str, hosts: list[str]) -> bool:
    # Schemes are not compared, because a proxy that ends TLS changes https to http.
    scheme, _, authority = origin.lower().partition("://")
    port = DEFAULT_PORTS.get(scheme, "")
    wanted = authority.removesuffix(port)
    return bool(wanted) and wanted in {host.lower().removesuffix(port) for host in hosts}
