"""The publisher: group commit, deadlines, doubt, and the outbox behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import monotonic

import pytest
from structlog.testing import capture_logs

from streaming_app.recording import deadlines
from streaming_app.recording.deadlines import DEADLINE_S, OUTBOX_DEADLINE_S
from streaming_app.recording.outbox import Outbox
from streaming_app.recording.publisher import BATCH_EVENTS, LOAD_WINDOW_S, PACE_S, WAITING_EVENTS, Publisher
from tests.fakes import RecordingLink, an_event, fill, ids
from tests.waiting import until
from view_events.event import ViewEvent

Start = Callable[[RecordingLink], Publisher]


@pytest.fixture
def outbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outbox:
    # Beside other tests a disk may take longer than a second. What happens then, test_deadlines.py shows.
    monkeypatch.setattr(deadlines, "OUTBOX_DEADLINE_S", 10)
    return Outbox(tmp_path / "outbox", max_bytes=16 * 1024 * 1024)


@pytest.fixture
def start(outbox: Outbox) -> Iterator[Start]:
    running: list[tuple[Publisher, RecordingLink]] = []

    def _start(link: RecordingLink) -> Publisher:
        publisher = Publisher(link, outbox)
        running.append((publisher, link))
        publisher.start()
        if not link.away:
            until(lambda: publisher.connected, what="the publisher to connect")
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
    futures = [publisher.submit([an_event() for _ in range(size)]) for size in (800, 800, 800, 1000, 1)]
    link.gate.set()
    for future in futures:
        future.result(timeout=5)
    assert [len(message) for message in link.messages] == [1, 1600, 1801]
    assert BATCH_EVENTS == 2_000


def test_a_request_that_waits_past_its_deadline_is_stored_in_the_outbox(start: Start, outbox: Outbox) -> None:
    link = RecordingLink()
    publisher = start(link)
    link.gate.clear()
    started = monotonic()
    publisher.publish([an_event()])
    assert DEADLINE_S <= monotonic() - started < DEADLINE_S + OUTBOX_DEADLINE_S
    assert outbox.events == 1


def test_after_the_first_deadline_nobody_waits_for_a_broker_that_does_not_confirm(start: Start, outbox: Outbox) -> None:
    link = RecordingLink()
    publisher = start(link)
    link.gate.clear()
    publisher.publish([an_event()])
    started = monotonic()
    for _ in range(5):
        publisher.publish([an_event()])
    assert monotonic() - started < DEADLINE_S
    assert outbox.events == 6
    assert publisher.ready
    assert not publisher.connected


def test_the_outbox_is_sent_oldest_first_once_the_broker_confirms_again(start: Start, outbox: Outbox) -> None:
    link = RecordingLink(away=True)
    publisher = start(link)
    events = [an_event() for _ in range(2400)]
    for event in events:
        publisher.submit([event])
    until(lambda: outbox.events == len(events), what="the outbox to have them")
    link.away = False
    until(lambda: not outbox.events, what="the outbox to be empty")
    assert ids(link.events) == ids(events)
    assert [len(message) for message in link.messages] == [2_000, 400]
    until(lambda: publisher.connected, what="the breaker to close")


def test_fresh_views_do_not_wait_for_the_end_of_the_outbox(start: Start, outbox: Outbox) -> None:
    fresh = an_event()

    class Visited(RecordingLink):
        """A broker to which the second message is on its way when a fresh view arrives."""

        def send(self, events: Sequence[ViewEvent]) -> str:
            if len(self.messages) == 1:
                publisher.submit([fresh])
            return super().send(events)

    link = Visited(away=True)
    publisher = start(link)
    old = [an_event() for _ in range(20 * BATCH_EVENTS)]
    for first in range(0, len(old), BATCH_EVENTS):
        publisher.submit(old[first : first + BATCH_EVENTS])
    until(lambda: outbox.events == len(old), what="the outbox to have them")
    link.away = False
    until(lambda: fresh in link.events and not outbox.events, what="all to be sent")
    assert link.messages[2] == [fresh]
    assert sorted(ids(link.events)) == sorted(ids([fresh, *old]))


def test_a_quiet_service_sends_at_once(start: Start) -> None:
    publisher = start(RecordingLink())
    took = []
    for _ in range(5):  # on a busy machine one of them is quick
        began = monotonic()
        for _ in range(10):
            publisher.publish([an_event()])
        took.append(monotonic() - began)
    assert min(took) < 10 * PACE_S


def test_under_load_requests_gather(start: Start) -> None:
    sent_at = []

    class Timed(RecordingLink):
        def send(self, events: Sequence[ViewEvent]) -> str:
            sent_at.append(monotonic())
            return super().send(events)

    publisher = start(Timed())

    def one_after_another() -> None:
        ends = monotonic() + 5 * LOAD_WINDOW_S
        while monotonic() < ends:
            publisher.publish([an_event()])

    with ThreadPoolExecutor(8) as clients:
        for client in [clients.submit(one_after_another) for _ in range(8)]:
            client.result()
    pauses = [after - before for before, after in pairwise(sent_at[-20:])]
    assert median(pauses) >= 0.9 * PACE_S


def test_a_message_of_the_outbox_that_is_not_confirmed_stays_there(start: Start, outbox: Outbox) -> None:
    link = RecordingLink(away=True, doubts=2)
    publisher = start(link)
    event = an_event()
    publisher.publish([event])
    link.away = False
    until(lambda: not outbox.events, what="the outbox to be empty")
    assert ids(link.events) == ids([event] * 3)  # it may have arrived three times; the id makes that harmless


def test_a_batch_in_doubt_goes_to_the_outbox_and_is_sent_again_on_a_new_connection(
    start: Start, outbox: Outbox
) -> None:
    link = RecordingLink(doubts=1)
    event = an_event()
    start(link).publish([event])
    until(lambda: not outbox.events, what="the outbox to be empty")
    assert link.connects == 2
    assert ids(link.events) == ids([event, event])


def test_while_the_broker_is_away_views_are_stored_at_once_and_it_is_found_again(start: Start, outbox: Outbox) -> None:
    link = RecordingLink(away=True)
    publisher = start(link)
    started = monotonic()
    publisher.publish([an_event()])
    assert monotonic() - started < DEADLINE_S
    link.away = False
    until(lambda: publisher.connected, timeout_s=5, what="the publisher to find the broker again")
    publisher.publish([an_event()])
    until(lambda: not outbox.events, what="the outbox to be empty")


def test_a_broker_that_closes_the_connection_is_noticed_while_idle(start: Start) -> None:
    link = RecordingLink()
    publisher = start(link)
    link.away = True
    until(lambda: not publisher.connected, timeout_s=5, what="the publisher to notice")


def test_everybody_who_waits_for_a_broker_that_goes_away_gets_into_the_outbox(start: Start, outbox: Outbox) -> None:
    link = RecordingLink(doubts=1)
    publisher = start(link)
    link.gate.clear()
    futures = [publisher.submit([an_event()])]
    assert link.sending.wait(5)
    futures += [publisher.submit([an_event()]) for _ in range(3)]
    link.away = True
    link.gate.set()
    for future in futures:
        future.result(timeout=5)
    assert outbox.events == len(futures)


def test_what_waits_in_memory_is_bounded_and_the_rest_goes_to_the_outbox(start: Start, outbox: Outbox) -> None:
    link = RecordingLink()
    publisher = start(link)
    link.gate.clear()
    publisher.submit([an_event()])
    assert link.sending.wait(5)
    thousand = [an_event() for _ in range(1000)]
    for _ in range(WAITING_EVENTS // 1000):
        publisher.submit(thousand)
    publisher.submit([an_event()]).result(5)
    assert outbox.events == 1


def test_an_outbox_that_is_full_refuses(tmp_path: Path) -> None:
    link = RecordingLink(away=True)
    full = Publisher(link, Outbox(tmp_path / "small", max_bytes=64 * 1024))
    full.start()
    accepted = fill(lambda: full.publish([an_event()]))
    assert accepted > 50
    assert not full.ready
    link.away = False
    until(lambda: full.connected, what="the broker to be found again")
    full.publish([an_event()])
    until(lambda: len(set(ids(link.events))) == accepted + 1, what="everything accepted to be sent")
    full.stop()


class BuggyLink(RecordingLink):
    """Raises what no link should, once."""

    def send(self, events: Sequence[ViewEvent]) -> str:
        bug, self.bug = self.bug, False
        if bug:
            raise ZeroDivisionError
        return super().send(events)

    bug = True


def test_whatever_goes_wrong_in_the_thread_it_goes_on_and_nothing_is_lost(start: Start, outbox: Outbox) -> None:
    link = BuggyLink()
    event = an_event()
    start(link).publish([event])
    until(lambda: not outbox.events, what="the outbox to be empty")
    assert ids(link.events) == ids([event])


def test_stopping_sends_what_waits(outbox: Outbox) -> None:
    link = RecordingLink()
    publisher = Publisher(link, outbox)
    publisher.start()
    until(lambda: publisher.connected, what="the publisher to connect")
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
    # On a busy machine some pass their deadline, and go by way of the outbox.
    until(lambda: {*ids(link.events)} == {*ids(events)}, what="all events to be sent")


def test_why_there_is_no_broker_is_told_once_and_again_when_it_is_something_else(outbox: Outbox) -> None:
    link = RecordingLink(away=True)
    publisher = Publisher(link, outbox)
    with capture_logs() as logs:
        for reason in ("ACCESS_REFUSED", "ACCESS_REFUSED", "Connection refused"):
            link.reason = reason
            publisher._check_connection()  # noqa: SLF001 (one attempt, instead of waiting for three)
    assert [line["reason"] for line in logs if line["log_level"] == "warning"] == [
        "ACCESS_REFUSED",
        "Connection refused",
    ]


# -- what the broker refuses for good -------------------------------------------------------------------------


def test_a_view_that_the_broker_refuses_for_good_holds_up_no_other(start: Start, outbox: Outbox) -> None:
    bad = an_event(kind="finished")
    link = RecordingLink(away=True, refuses=lambda event: event.event_id == bad.event_id)
    publisher = start(link)
    good = [an_event() for _ in range(60)]
    publisher.publish([*good[:20], bad, *good[20:40]])
    for event in good[40:]:
        publisher.publish([event])
    link.away = False
    until(lambda: outbox.events == 0, what="the outbox to be sorted out")
    assert sorted(ids(link.events)) == sorted(ids(good))
    assert link.refusals <= 2 + 2 * (41).bit_length()


def test_what_was_put_aside_is_sent_once_more_by_whoever_takes_over_the_file(start: Start, outbox: Outbox) -> None:
    bad = an_event()
    link = RecordingLink(refuses=lambda event: event.event_id == bad.event_id)
    publisher = start(link)
    publisher.publish([bad])

    def sorted_out() -> bool:
        publisher.publish([an_event()])
        return outbox.events == 0

    until(sorted_out, what="it to be put aside")
    publisher.stop()
    mended = RecordingLink()
    successor = Outbox(outbox.folder, max_bytes=16 * 1024 * 1024)
    other = Publisher(mended, successor)
    other.start()
    until(lambda: ids(mended.events) == ids([bad]), what="the view to be sent again")
    until(lambda: successor.events == 0, what="the file to be empty")
    other.stop()
    assert not list(outbox.folder.glob("*.sqlite"))


def test_nothing_is_given_up_while_the_broker_refuses_everything(start: Start, outbox: Outbox) -> None:
    link = RecordingLink(refuses=lambda _event: True)
    publisher = start(link)
    events = [an_event() for _ in range(3)]
    for event in events:
        publisher.publish([event])
    until(lambda: link.refusals >= 6, what="a few refusals")
    assert outbox.events == 3
    link.refuses = lambda _event: False
    until(lambda: outbox.events == 0, what="the outbox to be empty")
    assert sorted(ids(link.events)) == sorted(ids(events))


def test_a_refused_message_leaves_the_broker_in_use_for_the_others(start: Start) -> None:
    bad = an_event()
    link = RecordingLink(refuses=lambda event: event.event_id == bad.event_id)
    publisher = start(link)
    publisher.publish([bad])
    others = [an_event() for _ in range(5)]
    for event in others:
        publisher.publish([event])
        until(lambda: publisher.connected, what="the publisher to connect again")
    until(lambda: set(ids(others)) <= set(ids(link.events)), what="the others to arrive")
