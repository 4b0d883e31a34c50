"""The publisher: group commit, deadlines, doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from streaming_app.errors import NotAccepted
from streaming_app.publisher import BATCH_EVENTS, DEADLINE_S, WAITING_EVENTS, Publisher
from tests.fakes import RecordingLink, an_event, ids
from tests.waiting import until

Start = Callable[[RecordingLink], Publisher]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[tuple[Publisher, RecordingLink]] = []

    def _start(link: RecordingLink) -> Publisher:
        publisher = Publisher(link)
        running.append((publisher, link))
        publisher.start()
        if not link.away:
            until(lambda: publisher.ready, what="the publisher to connect")
        return publisher

    yield _start
    for publisher, link in running:
        link.gate.set()
        publisher.stop()


def test_published_means_confirmed(start: Start) -> None:
    link = RecordingLink()
    event = an_event()
    start(link).publish([event])
    assert ids(link.events) == ids([event])


def test_requests_that_arrive_while_one_message_is_in_flight_travel_together(start: Start) -> None:
    link = RecordingLink()
    publisher = start(link)
    link.gate.clear()
    first = publisher.submit([an_event()])
    assert link.sending.wait(5)
    others = [publisher.submit([an_event()]) for _ in range(20)]
    link.gate.set()
    for future in [first, *others]:
        future.result(timeout=5)
    assert [len(message) for message in link.messages] == [1, 20]


def test_a_message_carries_at_most_a_batch_and_never_splits_a_request(start: Start) -> None:
    link = RecordingLink()
    publisher = start(link)
    link.gate.clear()
    publisher.submit([an_event()])
    assert link.sending.wait(5)
    futures = [publisher.submit([an_event() for _ in range(size)]) for size in (300, 300, 1000, 1)]
    link.gate.set()
    for future in futures:
        future.result(timeout=5)
    assert [len(message) for message in link.messages] == [1, 300, 300, 1000, 1]
    assert BATCH_EVENTS == 500


def test_a_request_never_waits_past_its_deadline(start: Start) -> None:
    link = RecordingLink()
    publisher = start(link)
    link.gate.clear()
    started = monotonic()
    with pytest.raises(NotAccepted, match="in time"):
        publisher.publish([an_event()])
    assert DEADLINE_S <= monotonic() - started < DEADLINE_S + 0.2


def test_what_is_past_its_deadline_is_not_sent_any_more(start: Start) -> None:
    link = RecordingLink()
    publisher = start(link)
    link.gate.clear()
    in_flight, late = an_event(), an_event()
    publisher.submit([in_flight])
    assert link.sending.wait(5)
    with pytest.raises(NotAccepted):
        publisher.publish([late])
    link.gate.set()
    publisher.publish([an_event()])
    assert ids([late])[0] not in ids(link.events)


def test_a_batch_in_doubt_is_sent_again_on_a_new_connection(start: Start) -> None:
    link = RecordingLink(doubts=1)
    event = an_event()
    start(link).publish([event])
    assert link.connects == 2
    assert ids(link.events) == ids([event, event])  # it may have arrived twice; the id makes that harmless


def test_a_broker_that_is_away_is_refused_at_once_and_found_again(start: Start) -> None:
    link = RecordingLink(away=True)
    publisher = start(link)
    started = monotonic()
    with pytest.raises(NotAccepted, match="away"):
        publisher.publish([an_event()])
    assert monotonic() - started < 0.1
    link.away = False
    until(lambda: publisher.ready, timeout_s=5, what="the publisher to find the broker again")
    publisher.publish([an_event()])


def test_a_broker_that_closes_the_connection_is_noticed_while_idle(start: Start) -> None:
    link = RecordingLink()
    publisher = start(link)
    link.away = True
    until(lambda: not publisher.ready, timeout_s=5, what="the publisher to notice")


def test_everybody_hears_of_a_broker_that_goes_away_for_good(start: Start) -> None:
    link = RecordingLink(doubts=1)
    publisher = start(link)
    link.gate.clear()
    futures = [publisher.submit([an_event()])]
    assert link.sending.wait(5)
    futures += [publisher.submit([an_event()]) for _ in range(3)]
    link.away = True
    link.gate.set()
    for future in futures:
        with pytest.raises(NotAccepted, match="away"):
            future.result(timeout=5)


def test_waiting_events_are_bounded(start: Start) -> None:
    link = RecordingLink()
    publisher = start(link)
    link.gate.clear()
    publisher.submit([an_event()])
    assert link.sending.wait(5)
    thousand = [an_event() for _ in range(1000)]
    for _ in range(WAITING_EVENTS // 1000):
        publisher.submit(thousand)
    with pytest.raises(NotAccepted, match="too many"):
        publisher.submit([an_event()])


def test_stopping_sends_what_waits() -> None:
    link = RecordingLink()
    publisher = Publisher(link)
    publisher.start()
    until(lambda: publisher.ready, what="the publisher to connect")
    futures = [publisher.submit([an_event()]) for _ in range(10)]
    publisher.stop()
    assert all(future.done() and future.exception() is None for future in futures)
    assert not link.connected


def test_many_threads_get_each_their_own_answer(start: Start) -> None:
    link = RecordingLink()
    publisher = start(link)
    events = [an_event() for _ in range(500)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda event: publisher.publish([event]), events))
    assert sorted(ids(link.events)) == sorted(ids(events))
