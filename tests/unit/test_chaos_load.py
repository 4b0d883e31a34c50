"""The client of the chaos run against a server that does what the test says: what it sends, and sends again."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from time import monotonic
from typing import NamedTuple

import msgspec
import pytest

from proof.chaos.audience import FEWEST, MOST, Audience
from proof.chaos.ledger import Ledger
from proof.chaos.load import MOST_COPIES, NDJSON, Load, Request
from proof.load.playback import Video
from streaming_app.access.auth import Caller, Tokens
from streaming_app.recording.request import check, decode
from tests.waiting import until

SECRET = "a secret of the test"
VIDEO = {"id": "clip-1", "duration_s": 30.0, "size_bytes": 1_000_000, "broken": False}
NOBODY = "amqp://guest:guest@127.0.0.1:1//"


class Got(NamedTuple):
    """One request, as it came."""

    at: float
    ids: tuple[str, ...]
    earlier: int  #: how often these ids had come before


#: The status of the answer, or None: the connection ends without one.
Answer = Callable[[Got], int | None]


class Server:
    """A streaming app that answers what it is told to."""

    def __init__(self) -> None:
        self.answer: Answer = lambda _: 202
        self.got: list[Got] = []
        self._seen: Counter[tuple[str, ...]] = Counter()
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._say(200, msgspec.json.encode({"videos": [VIDEO, {**VIDEO, "id": "scratched", "broken": True}]}))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                caller = Tokens(SECRET).read(self.headers["Authorization"].removeprefix("Bearer "))
                views = decode(body, lines=self.headers["Content-Type"] == NDJSON)
                events = check(views, caller, datetime.now(UTC), known={"clip-1"}.__contains__)
                status = server.answer(server.note(tuple(str(event.event_id) for event in events)))
                if status is None:
                    self.close_connection = True
                else:
                    self._say(status, b"{}")

            def _say(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if status == 503:
                    self.send_header("Retry-After", "1")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def note(self, ids: tuple[str, ...]) -> Got:
        with self._lock:
            got = Got(monotonic(), ids, self._seen[ids])
            self._seen[ids] += 1
            self.got.append(got)
            return got

    def times_of(self, ids: tuple[str, ...]) -> list[float]:
        return [got.at for got in self.got if got.ids == ids]


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.http.shutdown()
    one.http.server_close()


@pytest.fixture
def load(server: Server) -> Iterator[Load]:
    one = Load(server.url, SECRET, broker_url=NOBODY, seed=1, rate=200)
    yield one
    one.finish(0)


def test_views_arrive_by_the_clock_however_slow_the_answers_are(server: Server, load: Load) -> None:
    let_go = threading.Event()

    def late(_: Got) -> int:
        let_go.wait(3)
        return 202

    server.answer = late
    load.start()
    until(lambda: load.sample()["pending"] >= 200, 5, what="views to arrive though none is answered")
    assert load.sample()["accepted"] == 0
    let_go.set()
    assert load.finish(10) == []
    assert load.ledger.accepted.keys() == load.ledger.sent.keys()


def test_what_is_refused_for_now_is_sent_again_with_its_ids_and_not_before_the_server_wants_it(
    server: Server, load: Load
) -> None:
    server.answer = lambda got: 202 if got.earlier else 503
    load.start()
    until(lambda: len(server.got) >= 20, what="requests")
    assert load.finish(10) == []
    assert load.ledger.accepted.keys() == load.ledger.sent.keys()
    assert {event_id for got in server.got for event_id in got.ids} == load.ledger.sent.keys()
    for got in server.got:
        first, second = server.times_of(got.ids)
        assert second - first >= 1


def test_what_is_not_answered_is_in_doubt_and_sent_again_with_its_ids(server: Server, load: Load) -> None:
    server.answer = lambda got: (None, 500, 202)[min(got.earlier, 2)]
    load.start()
    until(lambda: load.sample()["accepted"] >= 50, what="views to be accepted at last")
    assert load.finish(10) == []
    assert load.ledger.accepted.keys() == load.ledger.sent.keys()
    for sending in load.ledger.sent.values():
        assert [attempt.answer for attempt in sending.attempts] == ["ProtocolError", "500", "202"]


def test_what_is_never_accepted_is_left_and_was_sent_all_the_same(server: Server, load: Load) -> None:
    server.answer = lambda _: None
    load.start()
    until(lambda: len(server.got) >= 10, what="requests")
    left = load.finish(0.1)
    assert left
    assert load.sample()["pending"] == len(load.ledger.sent) > 0
    assert load.ledger.accepted == {}
    assert {event_id for got in server.got for event_id in got.ids} <= load.ledger.sent.keys()


def test_what_is_refused_for_good_is_told_and_not_sent_again(server: Server, load: Load) -> None:
    server.answer = lambda _: 422
    load.start()
    until(lambda: load.sample()["refused"] >= 20, what="refusals")
    assert load.finish(10) == []
    assert load.ledger.refused.keys() == load.ledger.sent.keys()
    assert set(load.ledger.refused.values()) == {"422"}
    assert {got.earlier for got in server.got} == {0}


def test_in_a_storm_every_request_comes_up_to_five_times_at_once(server: Server, load: Load) -> None:
    load.duplicates(True)  # noqa: FBT003 (a switch)
    load.start()
    until(lambda: len(server.got) >= 200, what="requests")
    load.duplicates(False)  # noqa: FBT003
    assert load.finish(10) == []
    copies = Counter(got.ids for got in server.got)
    assert set(copies.values()) == set(range(1, MOST_COPIES + 1))
    assert load.ledger.accepted.keys() == load.ledger.sent.keys()


def test_poison_that_no_broker_takes_stays_in_doubt(load: Load) -> None:
    load.start()
    load.poison(2)
    load.killers(1, "parent")
    until(lambda: load.ledger.poison and next(iter(load.ledger.poison.values())).attempts, what="an attempt")
    assert len(load.finish(0.1)) >= 3
    assert len(load.ledger.deadly) == 3
    assert not any(letter.confirmed for letter in load.ledger.deadly.values())


def test_an_erased_viewer_watches_and_the_time_of_the_erase_is_known(load: Load) -> None:
    load.start()
    erased: list[str] = []
    load.erase_one(erased.append)
    (viewer_id,) = erased
    erasure = load.ledger.erased[viewer_id]
    assert erasure.ended
    assert erasure.began <= erasure.ended
    assert viewer_id in {event.viewer_id for event in load.ledger.accepted.values()}

    def fails(_: str) -> None:
        raise OSError("the database is away")

    with pytest.raises(OSError, match="away"):
        load.erase_one(fails)
    assert [one.ended for viewer, one in load.ledger.erased.items() if viewer != viewer_id] == [None]


# -- who watches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew_s", [0, 3600, -3600])
def test_every_request_of_the_audience_is_taken_at_the_edge(skew_s: float) -> None:
    skew, now = timedelta(seconds=skew_s), datetime.now(UTC)
    audience = Audience([Video("clip-1", 15.0, 1_000_000), Video("film", 7_200.0, 10**9)], Random(1), "viewer")
    ledger = Ledger()
    parcels = [audience.content(skew) for _ in range(1_000)]
    for content in parcels:
        request = Request(ledger.send(content.events), content, skew)
        body = request.body(now + skew if content.has_sent_at else None)
        caller = Caller(content.viewer_id, ingest=content.viewer_id is None)
        events = check(decode(body, lines=content.lines), caller, now, known={"clip-1", "film"}.__contains__)
        assert [str(event.event_id) for event in events] == [event.event_id for event in content.events]
        if content.has_sent_at:
            assert all(event.at <= now and now - event.at < timedelta(minutes=5) for event in events)
    assert len(ledger.sent) == sum(len(content.events) for content in parcels)
    assert {len(content.events) for content in parcels} == {1, *range(FEWEST, MOST + 1)}
    assert {content.lines for content in parcels} == {content.has_sent_at for content in parcels} == {True, False}
    times: dict[str, list[datetime]] = {}
    for content in parcels:
        for event in content.events:
            times.setdefault(event.playback_id, []).append(event.at)
    assert any(sent != sorted(sent) for sent in times.values()), "nothing came out of order"
