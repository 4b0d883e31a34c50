"""`flixtrail poison`: publishes a message that becomes a dead letter, to show what happens to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from local.errors import DemoError
from local.pasteable_commands import flixtrail_command
from local.state_option import state_option
from service.waiting import wait_until

if TYPE_CHECKING:
    from local.running_demo import RunningDemo
    from view_events.event import ViewEvent

#: Seconds to wait. A message that kills its process is delivered about twenty times, and replacing a process takes a
#: second.
TIMEOUT_S = 120
POLL_INTERVAL_S = 0.25
#: A character that JSON may contain and PostgreSQL cannot store.
NUL = "\0"


@click.command()
@click.option("--kills-worker", is_flag=True, help="The view kills every process that writes it. RabbitMQ only.")
@state_option
def command(state: Path, *, kills_worker: bool) -> None:
    """Publish a message that becomes a dead letter, and wait until it is one.

    \b
    flixtrail poison                  a view that PostgreSQL refuses: its viewer's name contains a NUL
    flixtrail poison --kills-worker   a view that kills every process that writes it (about a minute)

    The command bypasses the streaming app, because that refuses the view. No other view is lost: views that were
    delivered together with it are stored. It works in a demo only, because only its workers let this view kill them.
    Then try `flixtrail dead list`.
    """  # noqa: D301 (click's \b)
    from local.running_demo import RunningDemo
    from local.state import State

    running = RunningDemo(State(state))
    if kills_worker and running.learner_mode:
        raise DemoError(
            "--kills-worker needs RabbitMQ, which counts how often a message was delivered. Learner mode has no "
            "such count, so the message kills workers for ever."
        )
    if kills_worker and not running.document["broker"]["management_url"]:
        raise DemoError(
            "--kills-worker needs the demo's own RabbitMQ, without AMQP_URL: only its workers know the view."
        )
    before = count_dead_letters(running)
    event_id = publish(running, kills_worker=kills_worker)
    click.echo(f"published: view {event_id}, {'which kills its worker' if kills_worker else 'which cannot be stored'}")
    wait_for_dead_letter(running, before)
    if running.learner_mode:
        click.echo("It is in PostgreSQL's table pgmq.q_views_dead now: learner mode has no dead-letter queue.")
    else:
        click.echo("It is a dead letter now. You can list, redrive or drop it:")
        click.echo(f"  {flixtrail_command()} dead list")
        click.echo(f"  {flixtrail_command()} dead redrive --all")
        click.echo(f"  {flixtrail_command()} dead drop --all")


def count_dead_letters(running: RunningDemo) -> int:
    """Return the number of dead letters. Raises DemoError while the broker does not answer."""
    from local.errors import BrokerUnreachable

    try:
        return running.queue().figures().dead
    except BrokerUnreachable as error:
        raise DemoError(f"the broker does not answer: {error}") from None


def wait_for_dead_letter(running: RunningDemo, before: int) -> None:
    """Wait until there is one more dead letter. Raises DemoError after TIMEOUT_S."""
    if not wait_until(lambda: count_dead_letters(running) > before, TIMEOUT_S, poll_interval_s=POLL_INTERVAL_S):
        raise DemoError(
            f"It is no dead letter after {TIMEOUT_S} s. Is a worker running? This shows it: "
            f"{flixtrail_command()} status"
        )


def publish(running: RunningDemo, *, kills_worker: bool) -> str:
    """Publish the message to the work queue, like the streaming app. Returns the id of its view.
    Raises DemoError.
    """
    from celery import Celery

    from local.deadly_viewer import KILLS_ITS_WORKER
    from streaming_app.recording.broker import BrokerLink
    from streaming_app.recording.errors import BrokerAway, InDoubt

    os.environ["AMQP_URL"] = running.document["broker"]["url"]  # celeryconfig.py reads it when it is imported
    celery = Celery("poison", set_as_current=False)
    celery.config_from_object("celeryconfig")
    view = make_view(KILLS_ITS_WORKER if kills_worker else f"poison{NUL}")
    link = BrokerLink(celery)
    try:
        link.connect()
        link.send([view])
    except (BrokerAway, InDoubt) as error:
        raise DemoError(f"the broker does not answer: {error}") from None
    finally:
        link.discard()
    return str(view.event_id)


def make_view(viewer_id: str) -> ViewEvent:
    """Make a view of this viewer, at the current time."""
    from datetime import UTC, datetime
    from uuid import uuid4

    from view_events.event import ViewEvent, new_event_id

    now = datetime.now(UTC)
    return ViewEvent(
        event_id=new_event_id(),
        viewer_id=viewer_id,
        video_id="poison",
        playback_id=uuid4(),
        kind="progress",
        position_s=1.0,
        played_from_s=0.0,
        at=now,
        received_at=now,
    )
