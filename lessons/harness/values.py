"""Which values a lesson's settings accept: with each of them the lesson can be played."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Whole:
    """A whole number from `least` to `most`."""

    least: int
    most: int
    words: tuple[str, ...] = ()

    def read(self, text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(self.most))):
            raise ValueError(text)
        if not self.least <= int(text) <= self.most:
            raise ValueError(text)
        return int(text)

    def __str__(self) -> str:
        return f"a whole number from {self.least} to {self.most}"


@dataclass(frozen=True)
class OneOf:
    """One of a few words; `none` is None."""

    words: tuple[str, ...]

    def read(self, text: str) -> str | None:
        if text not in self.words:
            raise ValueError(text)
        return None if text == "none" else text

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


@dataclass(frozen=True)
class Switch:
    """True or false."""

    words: tuple[str, ...] = ("true", "false")

    def read(self, text: str) -> bool:
        known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        try:
            return known[text.lower()]
        except KeyError:
            raise ValueError(text) from None

    def __str__(self) -> str:
        return "true or false"


#: What one setting takes. As text it is a part of a sentence: `a whole number from 1 to 50`.
Values = Whole | OneOf | Switch

#: AMQP writes a prefetch into 16 bits; 0: no limit.
PREFETCH = Whole(0, 65_535)

#: By lesson and setting. Beyond these a lesson could not go on: there would be nothing to kill, or no end of it.
VALUES: Mapping[str, Mapping[str, Values]] = {
    "hello": {"queue": OneOf(("hello", "goodbye"))},
    "messaging": {"auto_delete": Switch()},
    "connections": {"channels": Whole(2, 10_000), "exclusive": Switch()},
    "exchanges": {"x_match": OneOf(("none", "all", "any", "all-with-x", "any-with-x")), "durable": Switch()},
    "bindings": {"mandatory": Switch()},
    "properties": {"delivery_mode": Whole(1, 2), "compare": Switch()},
    "queues": {"auto_delete": Switch()},
    "queue_limits": {"limit": OneOf(("x-max-length-bytes", "x-length-bytes", "x-max-length"))},
    "push_and_pull": {"no_ack": Switch(), "prefetch": PREFETCH},
    "work_queue": {"prefetch": PREFETCH},
    "acknowledgement": {"ack": OneOf(("late", "early"))},
    "confirms": {"mandatory": Switch(), "in_flight": Whole(1, 1_000), "persistent": Switch()},
    "poison": {"limit": Whole(1, 50), "prefetch": Whole(1, 65_535), "dead_letters": Switch()},
    "fan_out": {"queue": OneOf(("recommendations", "history"))},
    "backpressure": {"overflow": OneOf(("reject-publish", "drop-head", "reject-publish-dlx"))},
    "exactly_once": {"crashes": Whole(1, 500), "idempotent": Switch()},
    "containers": {"copied_first": OneOf(("requirements", "sources"))},
}
