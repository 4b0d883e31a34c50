"""Links to the broker that each lack one safeguard."""

from __future__ import annotations

import sys
from typing import Any

from celery import Celery

from streaming_app.recording.broker import BrokerLink


class Unconfirmed(BrokerLink):
    """Is content when the message is written to the socket."""

    def __init__(self, celery: Celery) -> None:
        super().__init__(celery)
        del self._options["transport_options"]["confirm_publish"]


class NotMandatory(BrokerLink):
    """Lets the broker drop what no queue takes; it confirms that, too."""

    def __init__(self, celery: Celery) -> None:
        super().__init__(celery)
        send_task = celery.send_task

        def not_mandatory(*args: Any, **options: Any) -> Any:
            return send_task(*args, **{**options, "mandatory": False})

        celery.send_task = not_mandatory


class Reused(BrokerLink):
    """Keeps its connection after a confirm that did not come in time."""

    def discard(self) -> None:
        doubt = sys.exception()
        # Celery says OperationalError, and means what caused it.
        if doubt is None or not isinstance(doubt.__cause__, TimeoutError):
            super().discard()
