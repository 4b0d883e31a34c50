"""`python -m proof.load`: runs the load test and judges it. `make load` starts it.

Exit status 1: an accepted event was lost or counted twice, none was accepted, or nothing answers at HOST.
"""

from __future__ import annotations

import locust  # first: it replaces sockets and clocks by gevent's, in this process only

# isort: split

import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from time import monotonic, sleep
from types import FrameType

import click
from locust.argument_parser import get_parser
from locust.env import Environment
from locust.html import get_html_report
from locust.runners import LocalRunner
from locust.stats import stats_history
from locust.util.timespan import parse_timespan
from rich.console import Console

from proof.load import receipts, target
from proof.load.locustfile import Client, Ingest, Viewer
from proof.load.receipts import POLL_INTERVAL_S, NoReceipt
from proof.load.screen import Screen, last_line, print_result
from proof.load.tally import Tally, Verdict

#: Seconds until all users have started. Short, so that most of a short run is at full load.
SPAWN_S = 2.0
#: One user out of this many is a service. There is always at least one.
USERS_PER_INGEST = 10
#: Seconds for users to finish what they have begun. Then it is cancelled, and what it has sent is in doubt.
STOP_S = 1.0
SHOW_EVERY_S = 0.2
UI_ADDRESS, UI_PORT = "127.0.0.1", 8089
SPEED = "How many times faster than people viewers are: a clip of 20 s is played in 2."


class Duration(click.ParamType[int]):
    """Seconds, written as `30`, `30s` or `1m30s`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_timespan(str(value))
        except ValueError:
            self.fail(f"{value!r} is no duration; expected something like 30s or 1m30s", param, ctx)


@click.command()
@click.option("--users", envvar="USERS", default=20, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--duration", envvar="DURATION", default="30s", show_default=True, type=Duration())
@click.option("--ui", envvar="UI", is_flag=True, help="Start and stop the load on a page of locust's.")
@click.option("--state", envvar="STATE", default="var", type=click.Path(path_type=Path), help="The report goes here.")
@click.option("--speed", envvar="SPEED", default=10.0, show_default=True, type=click.FloatRange(0.1, 1000), help=SPEED)
def main(users: int, duration: int, state: Path, speed: float, *, ui: bool) -> None:
    """Put load on the demo (or HOST). Then check that nothing was lost and nothing was counted twice.

    You may kill any part meanwhile.
    """
    # The table has each cancelled request already; locust prints a dozen lines about each.
    logging.getLogger("locust").setLevel(logging.ERROR)
    console = Console(highlight=False)
    Client.target = target.find(os.environ)
    Client.speed = speed
    Ingest.fixed_count = max(1, users // USERS_PER_INGEST) if users > 1 else 0
    environment = Environment(user_classes=[Viewer, Ingest], events=locust.events, stop_timeout=STOP_S)
    environment.host = Client.target.url
    runner = environment.create_local_runner()
    screen = Screen(console, Client.tally, environment.stats)
    runner.greenlet.spawn(stats_history, runner)
    runner.greenlet.spawn(_check_continuously)
    with screen.live_line():
        _run_until_stopped(runner, users, console) if ui else _run(runner, screen, users, duration)
        runner.quit()
        report = _write_report(environment, state / "load" / "report.html")
        verdict = _judge(Client.tally, screen)
    print_result(console, verdict, runner)
    console.print(f"report: {report}", soft_wrap=True)
    click.echo(last_line(verdict, environment.stats))
    sys.exit(1 if verdict.faults else 0)


def _run(runner: LocalRunner, screen: Screen, users: int, duration_s: int) -> None:
    """Run the load for this many seconds. Ctrl-C ends it early; the verdict follows."""
    stopped, deadline = _asked_to_stop(), monotonic() + duration_s
    runner.start(users, spawn_rate=max(1, users / SPAWN_S))
    while monotonic() < deadline and not stopped.wait(SHOW_EVERY_S):
        screen.show("running", runner.user_count)


def _run_until_stopped(runner: LocalRunner, users: int, console: Console) -> None:
    """Run until locust's own page stops it, or Ctrl-C. The verdict follows."""
    stopped = _asked_to_stop()
    runner.environment.parsed_options = get_parser().parse_args(["--users", str(users), "--spawn-rate", str(users)])
    try:
        socket.create_server((UI_ADDRESS, UI_PORT)).close()
    except OSError as error:
        raise click.ClickException(f"No page on {UI_ADDRESS}, port {UI_PORT}: {error.strerror}.") from None
    runner.environment.create_web_ui(host=UI_ADDRESS, port=UI_PORT)
    console.print(f"Load at will: http://{UI_ADDRESS}:{UI_PORT}. Ctrl-C here ends it with the verdict.")
    while not stopped.wait(1):
        pass


def _asked_to_stop() -> threading.Event:
    """Return an event that the first Ctrl-C or SIGTERM sets. The second Ctrl-C ends the program as usual."""
    stopped = threading.Event()

    def stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.default_int_handler)
        stopped.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return stopped


def _check_continuously() -> None:
    """Check what is stored while the load runs. While the history is away, nothing changes."""
    receipt_source = Client.target.receipt_source
    while True:
        try:
            receipts.check_stored(Client.tally, receipt_source)
        except NoReceipt as reason:
            logging.getLogger(__name__).debug("no receipt: %s", reason)
        sleep(POLL_INTERVAL_S)


def _judge(tally: Tally, screen: Screen) -> Verdict:
    """Wait until the fate of everything that was sent is known."""
    try:
        proof = receipts.wait_until_stored(tally, Client.target.receipt_source, lambda: screen.show("waiting", 0))
    except NoReceipt as reason:
        raise click.ClickException(
            f"{tally.accepted:,} events accepted, {tally.seen:,} of them seen stored, and the history does not say "
            f"what became of the others: {reason}"
        ) from None
    return tally.verdict(proof)


def _write_report(environment: Environment, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(get_html_report(environment, show_download_link=False))  # type: ignore[no-untyped-call]
    return path


if __name__ == "__main__":
    main()
