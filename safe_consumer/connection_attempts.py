"""Logs why the broker does not accept the worker's connection, and sets the pause before the next attempt.

RabbitMQ refuses a wrong password, an unknown virtual host and a missing permission. An operator may fix that at the
broker at any time, so the worker retries for ever. It logs a reason once, and again when the reason changes.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

import structlog
from amqp.exceptions import AccessRefused, NotAllowed, PreconditionFailed

log = structlog.get_logger(__name__)

#: Seconds of the first and the longest pause after a refusal. After somebody has fixed a password at the broker, the
#: worker notices within the longest pause.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 5.0

LOGIN = "check the user and the password in AMQP_URL or AMQP_PASSWORD"
PERMISSIONS = "give the user its permissions at RabbitMQ: deploy/rabbitmq/definitions.json lists those of a worker"
VIRTUAL_HOST = "check the virtual host in AMQP_URL, and give the user permissions in it"
SHAPE = "RabbitMQ has a queue or exchange of that name and another shape: CHANGELOG.md says what to do"


class ConnectionAttempts:
    """Counts and logs the attempts to connect to a broker. `name` is what the log calls the broker."""

    def __init__(self, name: str) -> None:
        self._name = name
        #: The last reason for each address. A cluster has several addresses.
        self._reasons: dict[str, str] = {}
        self._away_since: float | None = None
        self._pause_s = 0.0

    def failed(self, error: BaseException, broker: str, reason: str | None = None) -> None:
        """Log that the broker is away, or refuses this worker. `reason` replaces the error's text."""
        if self._away_since is None:
            self._away_since = monotonic()
        self._log("refuses this worker" if what_to_do(error) else "is away", error, broker, reason)

    def lost(self, error: BaseException, broker: str) -> None:
        """Log that an open connection has ended. The broker may have refused what the worker declared."""
        self._log("refuses what this worker needs" if what_to_do(error) else "has lost this worker", error, broker)

    def works(self) -> None:
        """Note that the worker consumes, and log that the broker is back."""
        if self._away_since is not None:
            log.info("%s is back", self._name, away_s=round(monotonic() - self._away_since, 1))
        self._reasons.clear()
        self._away_since = None
        self._pause_s = 0.0

    def next_pause_s(self) -> float:
        """Return the seconds to wait after a refusal: twice the last pause, at most LONGEST_PAUSE_S."""
        self._pause_s = min(max(FIRST_PAUSE_S, self._pause_s * 2), LONGEST_PAUSE_S)
        return self._pause_s

    def _log(self, what: str, error: BaseException, broker: str, reason: str | None = None) -> None:
        reason = reason or words(error)
        if self._reasons.get(broker) == reason:
            return
        self._reasons[broker] = reason
        todo = what_to_do(error)
        advice = {"what_to_do": todo} if todo else {}
        log.warning("%s %s", self._name, what, reason=reason, broker=broker, **advice)


def what_to_do(error: BaseException) -> str | None:
    """Return what a person must change so that the broker accepts this worker. None: a retry is enough."""
    if isinstance(error, AccessRefused):
        return LOGIN if "Login was refused" in words(error) else PERMISSIONS
    if isinstance(error, NotAllowed):
        return VIRTUAL_HOST
    # RabbitMQ uses the same code when a worker keeps a message for too long. Then a new connection is enough.
    if isinstance(error, PreconditionFailed) and "inequivalent" in words(error):
        return SHAPE
    return None


def words(error: BaseException) -> str:
    """Return the text of the broker or the system, on one line."""
    said: Any = getattr(error, "reply_text", None) or error
    return " ".join(str(said).split()) or type(error).__name__
