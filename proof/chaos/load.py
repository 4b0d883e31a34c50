"""The client: sends views at fixed times, whether or not they are answered, and records the answers.

After any other answer than 202 (a 503, a timeout, a closed connection), it sends the same ids again until it gets a
202.
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import count
from queue import SimpleQueue
from random import Random
from time import monotonic

import msgspec
import structlog
import urllib3

from proof.chaos.audience import Audience, RequestContent
from proof.chaos.errors import LoadFailed
from proof.chaos.guests import InjectedMessage, MessageFactory
from proof.chaos.ledger import ACCEPTED, CONFIRMED, Attempt, Erasure, Event, ExpectedDeadLetter, Ledger, Sending
from proof.load.playback import Video
from service.waiting import wait_until
from streaming_app.access.auth import Tokens

log = structlog.get_logger(__name__)

#: Requests in progress at a time. Further requests wait here, as in a proxy in front of the streaming app.
AT_A_TIME = 64
#: On an idle machine, an answer takes at most 1.25 s (streaming_app/recording/deadlines.py).
TIMEOUT = urllib3.Timeout(connect=2, read=4)
#: Seconds before a repetition. The pause doubles each time, and is multiplied by a random number between 0.5 and 1.5.
PAUSE_S, LONGEST_PAUSE_S = 0.2, 3.0
#: Maximum number of copies of a request that are sent at a time while duplicates are on.
MOST_COPIES = 5
#: Seconds between two checks for requests to send again.
TICK_S = 0.05
#: Seconds between two attempts to publish directly to a broker that is away.
BROKER_PAUSE_S = 0.5
#: Seconds for the streaming app to answer at the start. Otherwise the run fails before it begins.
START_TIMEOUT_S = 30
#: Seconds to find a viewer to erase.
VIEWER_TIMEOUT_S = 30

NDJSON = "application/x-ndjson"
#: Answers that ask a client to send the same again later (and every 5xx).
LATER = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


@dataclass(eq=False, slots=True)
class Request:
    """One request, from its arrival until it is accepted or refused."""

    sending: Sending
    content: RequestContent
    skew: timedelta
    rounds: int = 0  #: how often it was sent; copies that are sent together are one round
    under_way: int = 0
    done: bool = False

    def body(self, sent_at: datetime | None) -> bytes:
        events: Sequence[Event] = self.sending.events
        if sent_at:
            events = [msgspec.structs.replace(event, sent_at=sent_at) for event in events]
        if self.content.lines:
            return b"\n".join(map(msgspec.json.encode, events))
        return msgspec.json.encode(events[0] if len(events) == 1 else events)


class Load:
    """Sends views at `rate` per second, from `start` to `finish`. Meanwhile, faults such as poison and duplicates are
    added.

    The `ledger` may be judged after `finish`. `excluded_video`: the id of a video that nobody watches here.
    """

    def __init__(
        self, url: str, secret_key: str, *, broker_url: str, seed: int, rate: float, excluded_video: str = ""
    ) -> None:
        self.ledger = Ledger()
        self._url = url
        self._tokens = Tokens(secret_key)
        self._known_tokens: dict[str | None, str] = {}
        self._broker_url = broker_url
        self._name = f"viewer-{seed}"
        self._chance = Random(f"load {seed}")
        self._rate = rate
        self._excluded_video = excluded_video
        self._http = urllib3.PoolManager(maxsize=AT_A_TIME, timeout=TIMEOUT, retries=False)

        self._lock = threading.Lock()
        self._pending = 0  # events and letters
        self._attempts = 0
        self._answers: Counter[str] = Counter()
        self._copies = 1
        self._skew = timedelta()

        self._ready: SimpleQueue[Request | None] = SimpleQueue()
        self._retries: list[tuple[float, int, Request]] = []  # a heap, ordered by due time
        self._numbers = count()
        self._messages: MessageFactory | None = None
        self._to_inject: SimpleQueue[InjectedMessage | None] = SimpleQueue()
        self._finishing = threading.Event()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    # -- from beginning to end --------------------------------------------------------------------------

    def start(self) -> None:
        """Start sending. Raises LoadFailed if the streaming app does not list its videos."""
        videos = self._library()
        self._messages = MessageFactory(f"guest-{self._name}", videos[0].id)
        audience = Audience(videos, self._chance, self._name)
        self._run(lambda: self._generate_requests(audience), "load-pace")
        self._run(self._publish_injected, "load-guests")
        for number in range(AT_A_TIME):
            self._run(self._send, f"load-{number}")

    def finish(self, deadline_s: float) -> list[str]:
        """Make no new events. Continue with pending ones until all are accepted or refused, or the deadline has passed.

        Returns a description of what is left. Nothing is sent afterwards.
        """
        self._finishing.set()
        wait_until(lambda: not self._pending, deadline_s, poll_interval_s=TICK_S)
        self._stopped.set()
        for _ in range(AT_A_TIME):
            self._ready.put(None)
        self._to_inject.put(None)
        for thread in self._threads:
            thread.join()
        with self._lock:
            unanswered = {id(sending): sending for sending in self.ledger.sent.values() if not self._settled(sending)}
            lines = [
                f"{len(sending.events)} events from {sending.events[0].event_id} on: {sending.attempts[-1:]}"
                for sending in unanswered.values()
            ]
            lines += [
                f"{letter.what}: {letter.attempts[-1:]}"
                for letter in self.ledger.deadly.values()
                if not letter.confirmed
            ]
        for line in lines:
            log.warning("not accepted", what=line)
        return lines

    def sample(self) -> dict[str, float]:
        """Return the figures so far: events accepted, pending and refused, requests sent, and `answer <status>` for
        each status.
        """
        with self._lock:
            return {
                "accepted": len(self.ledger.accepted),
                "pending": self._pending,
                "refused": len(self.ledger.refused),
                "attempts": self._attempts,
                **{f"answer {answer}": number for answer, number in self._answers.items()},
            }

    # -- faults -----------------------------------------------------------------------------------------

    def duplicates(self, on: bool) -> None:  # noqa: FBT001 (a switch)
        """Turn duplicates on or off. While they are on, every request is sent up to MOST_COPIES times at once."""
        self._copies = MOST_COPIES if on else 1

    def clock_skew(self, seconds: float) -> None:
        """Set the clocks of all clients ahead by this many seconds, from now on."""
        self._skew = timedelta(seconds=seconds)

    def poison(self, n: int) -> None:
        """Publish `n` messages with content that cannot be stored. Returns at once."""
        for _ in range(n):
            self._inject(self._message_factory.poison())

    def killers(self, n: int, kind: str = "child") -> None:
        """Publish `n` events that kill the `child` or the `parent` of their worker, each in a message of its own.

        Returns at once.
        """
        for _ in range(n):
            self._inject(self._message_factory.killer(kind))

    def erase_one(self, erase: Callable[[str], None]) -> None:
        """Erase a viewer whose views are coming in and who continues to watch. Raises what `erase` raises."""
        viewer_id = self._random_viewer()
        began = datetime.now(UTC)
        with self._lock:
            self.ledger.erased[viewer_id] = Erasure(began, None)
        erase(viewer_id)
        with self._lock:
            self.ledger.erased[viewer_id] = Erasure(began, datetime.now(UTC))

    def _random_viewer(self) -> str:
        """Return a viewer whose views were accepted and who was not erased. Raises LoadFailed."""

        def viewers() -> list[str]:
            with self._lock:
                watching = {event.viewer_id for event in self.ledger.accepted.values()} - self.ledger.erased.keys()
            # Not the companions of poison, because they watch only once.
            return sorted(viewer_id for viewer_id in watching if viewer_id.startswith(self._name))

        found = wait_until(viewers, VIEWER_TIMEOUT_S, poll_interval_s=TICK_S)
        if not found:
            raise LoadFailed("there is nobody whose views were accepted")
        return self._chance.choice(found)

    # -- threads ----------------------------------------------------------------------------------------

    def _run(self, what: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=what, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _generate_requests(self, audience: Audience) -> None:
        """Let requests arrive at their times, and add those that are due again."""
        next_at = monotonic()
        while not self._stopped.wait(TICK_S):
            while not self._finishing.is_set() and next_at <= monotonic():
                content = audience.content(self._skew)
                self._add_request(content)
                next_at += self._chance.expovariate(self._rate / len(content.events))
            with self._lock:
                while self._retries and self._retries[0][0] <= monotonic():
                    self._enqueue(heapq.heappop(self._retries)[2])

    def _add_request(self, content: RequestContent) -> None:
        with self._lock:
            request = Request(self.ledger.send(content.events), content, self._skew)
            self._pending += len(content.events)
            self._enqueue(request)

    def _enqueue(self, request: Request) -> None:
        request.rounds += 1
        request.under_way = self._chance.randint(1, self._copies)
        for _ in range(request.under_way):
            self._ready.put(request)

    def _send(self) -> None:
        """Send requests, one at a time. Several threads run this."""
        while (request := self._ready.get()) is not None:
            if self._stopped.is_set():
                continue
            attempt, retry_after_s = self._attempt(request)
            with self._lock:
                self._record_attempt(request, attempt, retry_after_s)

    def _attempt(self, request: Request) -> tuple[Attempt, float]:
        began = datetime.now(UTC)
        sent_at = began + request.skew if request.content.has_sent_at else None
        content_type = NDJSON if request.content.lines else "application/json"
        headers = {"Authorization": f"Bearer {self._token(request.content.viewer_id)}", "Content-Type": content_type}
        retry_after_s = 0.0
        try:
            response = self._http.request("POST", f"{self._url}/api/views", body=request.body(sent_at), headers=headers)
            answer = str(response.status)
            retry_after_s = _seconds(response.headers.get("Retry-After"))
        except urllib3.exceptions.HTTPError as error:
            answer = type(error).__name__
        return Attempt(began, datetime.now(UTC), answer, sent_at), retry_after_s

    def _record_attempt(self, request: Request, attempt: Attempt, retry_after_s: float) -> None:
        """Record an attempt. The caller has the lock."""
        request.sending.attempts.append(attempt)
        request.under_way -= 1
        self._attempts += 1
        self._answers[attempt.answer] += 1
        if request.done:
            return
        if attempt.answer == ACCEPTED:
            self.ledger.accept(request.sending)
            self._finish_request(request)
        elif _is_final(attempt.answer):
            log.error("refused", answer=attempt.answer, event_id=request.sending.events[0].event_id)
            self.ledger.refused.update({event.event_id: attempt.answer for event in request.sending.events})
            self._finish_request(request)
        elif not request.under_way:
            pause_s = min(PAUSE_S * 2 ** (request.rounds - 1), LONGEST_PAUSE_S) * self._chance.uniform(0.5, 1.5)
            # Never earlier than the server's Retry-After.
            pause_s = max(pause_s, retry_after_s * self._chance.uniform(1, 1.5))
            heapq.heappush(self._retries, (monotonic() + pause_s, next(self._numbers), request))

    def _finish_request(self, request: Request) -> None:
        request.done = True
        self._pending -= len(request.sending.events)

    def _settled(self, sending: Sending) -> bool:
        return sending.events[0].event_id in self.ledger.accepted or sending.events[0].event_id in self.ledger.refused

    # -- directly to the broker -------------------------------------------------------------------------

    @property
    def _message_factory(self) -> MessageFactory:
        assert self._messages, "start was called"
        return self._messages

    def _inject(self, injected: InjectedMessage) -> None:
        with self._lock:
            self.ledger.poison.update({mark: ExpectedDeadLetter(what) for mark, what in injected.poison.items()})
            self.ledger.killers.update({mark: ExpectedDeadLetter(what) for mark, what in injected.killers.items()})
            if injected.events:
                self.ledger.send(injected.events)
            self._pending += len(injected.events) + len(injected.poison) + len(injected.killers)
        self._to_inject.put(injected)

    def _publish_injected(self) -> None:
        """Publish the messages one after another, each until the broker has confirmed it."""
        while (injected := self._to_inject.get()) is not None:
            while not self._stopped.is_set():
                attempt = injected.publish(self._broker_url)
                with self._lock:
                    self._record_injected(injected, attempt)
                if attempt.answer == CONFIRMED:
                    break
                self._stopped.wait(BROKER_PAUSE_S)

    def _record_injected(self, injected: InjectedMessage, attempt: Attempt) -> None:
        """Record an attempt. The caller has the lock."""
        confirmed = attempt.answer == CONFIRMED
        for mark in (*injected.poison, *injected.killers):
            letter = self.ledger.deadly[mark]
            letter.attempts.append(attempt)
            letter.confirmed = confirmed
        if injected.events:
            sending = self.ledger.sent[injected.events[0].event_id]
            sending.attempts.append(attempt)
            if confirmed:
                self.ledger.accept(sending)
        if confirmed:
            self._pending -= len(injected.events) + len(injected.poison) + len(injected.killers)

    # -- the streaming app ------------------------------------------------------------------------------

    def _token(self, viewer_id: str | None) -> str:
        if viewer_id not in self._known_tokens:
            token = self._tokens.ingest() if viewer_id is None else self._tokens.viewer(viewer_id)
            self._known_tokens[viewer_id] = token
        return self._known_tokens[viewer_id]

    def _library(self) -> list[Video]:
        videos = wait_until(self._readable_videos, START_TIMEOUT_S, poll_interval_s=TICK_S)
        if not videos:
            raise LoadFailed(f"{self._url} has no videos, or does not answer")
        return videos

    def _readable_videos(self) -> list[Video]:
        try:
            response = self._http.request("GET", f"{self._url}/api/videos")
            found = response.json()["videos"] if response.status == HTTPStatus.OK else []
        except urllib3.exceptions.HTTPError:
            found = []
        return [
            Video(video["id"], video["duration_s"], video["size_bytes"])
            for video in found
            # Right after the start, a video may be listed that has not been read yet.
            if video["duration_s"] and not video["broken"] and video["id"] != self._excluded_video
        ]


def _is_final(answer: str) -> bool:
    """Return whether sending again is useless: a 4xx, unless it only asks to wait."""
    return answer.startswith("4") and int(answer) not in LATER


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
