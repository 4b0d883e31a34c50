"""A process that accepts views as a web process does: `python -m tests.faults.accepter FOLDER`, FOLDER of the outbox.

Reads a JSON array of events, says `accepted` in a line once they are safe, and lives until it is killed.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import msgspec
from celery import Celery

from service.logs import LogSettings, configure
from streaming_app.recording.broker import BrokerLink
from streaming_app.recording.outbox import Outbox
from streaming_app.recording.publisher import Publisher
from view_events.event import ViewEvent

BYTES = 1024 * 1024


def main() -> None:
    configure(LogSettings())  # to standard error
    celery = Celery("streaming_app", set_as_current=False)
    celery.config_from_object("celeryconfig")
    publisher = Publisher(BrokerLink(celery), Outbox(Path(sys.argv[1]), BYTES))
    publisher.start()
    publisher.publish(msgspec.json.decode(sys.stdin.read(), type=list[ViewEvent]))
    sys.stdout.write("accepted\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main()
