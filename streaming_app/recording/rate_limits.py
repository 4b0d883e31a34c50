"""Limits how much one viewer, one address and all ingest tokens together may record. Counts events, not requests.

Anybody gets a cookie by opening a page, so cookies are also limited by address. The operator hands out the tokens.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from flask import Request

from service import metrics
from streaming_app.access.auth import Caller
from streaming_app.recording.errors import TooMany
from streaming_app.recording.request import MAX_EVENTS
from streaming_app.recording.token_buckets import Bucket, BucketTable, Rate
from streaming_app.settings import StreamingSettings

#: Prefix length of an IPv6 network that belongs to one household or one server.
IPV6_PREFIX = 64
MINUTE_S = 60


class Limits:
    """The limits of all web processes on this host that share the table."""

    def __init__(self, settings: StreamingSettings, table: BucketTable) -> None:
        self._table = table
        self._behind_proxy = settings.behind_proxy
        self._cookie_request = settings.cookie_request_events
        self._cookie = Rate(settings.viewer_events_per_s, settings.viewer_burst)
        self._token = Rate(settings.viewer_events_per_s, settings.token_burst)
        self._address = Rate(settings.address_events_per_s, settings.address_burst)
        self._ingest = Rate(settings.ingest_events_per_s, settings.ingest_burst)
        self._new_viewers = Rate(settings.new_viewers_per_minute / MINUTE_S, settings.new_viewers_burst)

    def events_of_request(self, caller: Caller) -> int:
        """Return how many events one request of this caller may have."""
        return min(self._cookie_request or MAX_EVENTS, MAX_EVENTS) if caller.by_cookie else MAX_EVENTS

    def count(self, caller: Caller, request: Request, events: int) -> None:
        """Count the events of a request. Raises TooMany, and then counts none."""
        if caller.ingest:
            wait_s = self._table.take(events, Bucket("ingest", self._ingest)) if self._ingest.per_s else 0
        elif caller.by_cookie:
            address = Bucket(f"address {self._address_of(request)}", self._address)
            wait_s = self._table.take(events, Bucket(f"viewer {caller.viewer_id}", self._cookie), address)
        else:
            wait_s = self._table.take(events, Bucket(f"viewer {caller.viewer_id}", self._token))
        if wait_s > 0:
            metrics.streaming().limited.labels("events").inc(events)
            raise TooMany("More views than anybody watches. Wait, then send the same events with the same ids.", wait_s)

    def new_viewer(self, request: Request) -> None:
        """Count a cookie that is made for a new viewer at this address. Raises TooMany."""
        wait_s = self._table.take(1, Bucket(f"new {self._address_of(request)}", self._new_viewers))
        if wait_s > 0:
            metrics.streaming().limited.labels("new_viewers").inc()
            raise TooMany("Too many new viewers from your network just now. Open the page again in a minute.", wait_s)

    def _address_of(self, request: Request) -> str:
        return network(client_address(request, behind_proxy=self._behind_proxy))


def client_address(request: Request, *, behind_proxy: bool) -> str:
    """Return the address of the client. Behind a trusted proxy, this is the last address that the proxy lists."""
    if behind_proxy:
        forwarded = request.headers.get("X-Forwarded-For", "").rpartition(",")[2]
        if address := request.headers.get("X-Real-IP", forwarded).strip():
            return address
    return request.remote_addr or ""


def network(address: str) -> str:
    """Return the network that is counted as one: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or int(ip) >> IPV6_PREFIX)
    return str(ip)
