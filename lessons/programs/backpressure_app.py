"""Flixtrail's publisher, as in a web process: `python -m lessons.programs.backpressure_app OUTBOX`, a folder.

It publishes one view event, prints its id and whether it was stored in time, and runs until it is killed.
"""

from __future__ import annotations

import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from uuid import uuid4

from celery import Celery

from service.logs import LogSettings, configure
from streaming_app.recording.broker import BrokerLink
from streaming_app.recording.deadlines import DEADLINE_S, OUTBOX_DEADLINE_S
from streaming_app.recording.outbox import Outbox
from streaming_app.recording.publisher import Publisher
from view_events import topology
from view_events.event import ViewEvent, new_event_id

CONNECTED_S = 10
LOOK_EVERY_S = 0.01


def main() -> None:
    configure(LogSettings(log_level="ERROR"))
    celery = Celery("streaming_app", set_as_current=False)
    celery.config_from_object("celeryconfig")
    with celery.connection_for_write() as connection:
        topology.declare(connection)
    publisher = Publisher(BrokerLink(celery), Outbox(Path(sys.argv[1]), max_bytes=1_000_000))
    publisher.start()
    deadline = monotonic() + CONNECTED_S
    while not publisher.connected and monotonic() < deadline:
        sleep(LOOK_EVERY_S)
    now, began = datetime.now(UTC), monotonic()
    view = ViewEvent(
        event_id=new_event_id(),
        viewer_id="alice",
        video_id="clip-1",
        playback_id=uuid4(),
        kind="started",
        position_s=0,
        at=now,
        received_at=now,
    )
    publisher.publish([view])
    in_time = monotonic() - began <= DEADLINE_S + OUTBOX_DEADLINE_S
    sys.stdout.write(f"{view.event_id} {'in time' if in_time else 'too late'}\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main()
