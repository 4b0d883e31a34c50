"""Asks which events are stored: `POST /api/views/receipts`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Protocol

import urllib3

from proof.load.tally import Receipt, Tally
from service.waiting import wait_for_count, wait_until

#: Ids in one request. The streaming app waits for one second for the history API. This needs a hundredth of it.
IDS_PER_REQUEST = 1_000
#: Requests in one check of what is stored, so that checking does not become the load.
REQUESTS_PER_CHECK = 10
TIMEOUT_S = 5.0
#: Seconds between two checks.
POLL_INTERVAL_S = 0.5
#: If no accepted event was stored for this many seconds, the missing ones are lost.
STALL_TIMEOUT_S = 60.0


class NoReceipt(Exception):
    """The history gave no answer, or a useless one. The message says which. Ask again later."""


class TokenRefused(NoReceipt):
    """The app does not accept the token as an ingest token. Asking again changes nothing."""


class ReceiptSource(Protocol):
    """Where to ask. `HttpReceipts` is the real one."""

    def ask(self, ids: Sequence[str]) -> Receipt:
        """Return a receipt for these ids. Raises NoReceipt."""


class HttpReceipts:
    """Asks the streaming app, which asks the history API."""

    def __init__(self, url: str, ingest_token: str) -> None:
        self._url = f"{url}/api/views/receipts"
        headers = {"Authorization": f"Bearer {ingest_token}"}
        self._http = urllib3.PoolManager(headers=headers, timeout=TIMEOUT_S, retries=False)

    def ask(self, ids: Sequence[str]) -> Receipt:
        try:
            answer = self._http.request("POST", self._url, json={"event_ids": list(ids)})
        except urllib3.exceptions.HTTPError as error:
            raise NoReceipt(f"no answer: {type(error).__name__}") from error
        if answer.status != HTTPStatus.OK:
            refused = answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
            said = answer.data[:200].decode(errors="replace").strip()
            raise (TokenRefused if refused else NoReceipt)(f"status {answer.status}, {said}")
        body = answer.json()
        return Receipt(tuple(ids), frozenset(body["missing"]), int(body["counted"]))


def check_stored(tally: Tally, receipt_source: ReceiptSource) -> None:
    """Find out what has been stored since the last check. Raises NoReceipt."""
    not_seen = tally.not_seen(IDS_PER_REQUEST * REQUESTS_PER_CHECK)
    for at in range(0, len(not_seen), IDS_PER_REQUEST):
        tally.record_receipt(receipt_source.ask(not_seen[at : at + IDS_PER_REQUEST]))


def wait_until_stored(
    tally: Tally, receipt_source: ReceiptSource, tick: Callable[[], None], stall_timeout_s: float = STALL_TIMEOUT_S
) -> list[Receipt]:
    """Wait until everything accepted is stored, or nothing more is stored. Returns the receipts of every event sent.

    Calls `tick` after each check. Raises NoReceipt if the history does not answer for `stall_timeout_s`.
    """

    def stored() -> int:
        seen = -1
        with contextlib.suppress(NoReceipt):  # if it stays away, the requests below raise the reason
            while seen < tally.seen < tally.accepted:  # more of them were stored: ask about the next ones at once
                seen = tally.seen
                check_stored(tally, receipt_source)
                tick()
        tick()
        return tally.seen

    wait_for_count(stored, tally.accepted, stall_timeout_s, poll_interval_s=POLL_INTERVAL_S)
    return [_ask_until_answered(receipt_source, ids, stall_timeout_s) for ids in tally.slices(IDS_PER_REQUEST)]


def _ask_until_answered(receipt_source: ReceiptSource, ids: Sequence[str], stall_timeout_s: float) -> Receipt:
    failure = NoReceipt("not asked")

    def ask() -> Receipt | None:
        nonlocal failure
        try:
            return receipt_source.ask(ids)
        except NoReceipt as error:
            failure = error
            return None

    receipt = wait_until(ask, stall_timeout_s, poll_interval_s=POLL_INTERVAL_S)
    if receipt is None:
        raise failure
    return receipt
