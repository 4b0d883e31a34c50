"""`flixtrail tour`: shows and explains a redelivery in one terminal, with a real fault and real figures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import click

from local.errors import DemoError
from local.pasteable_commands import flixtrail_command
from local.printable import quantity
from local.state_option import state_option
from service.waiting import wait_until

if TYPE_CHECKING:
    from rich.console import Console

    from local.queue import QueueFigures
    from local.running_demo import RunningDemo, Worker
    from local.unacknowledged import Unacknowledged

#: Views per second, one per message.
RATE = 20
#: Unacknowledged messages that a worker should have when it is killed, so that there is something to see.
WANTED = 5
#: If no worker has WANTED unacknowledged messages after this many seconds, one message is enough.
WANTED_TIMEOUT_S = 10
#: Seconds after which the tour gives up waiting for one thing on a busy machine.
TIMEOUT_S = 60
POLL_INTERVAL_S = 0.25
FIGURES_LAG_S = 5
#: Columns of a line in a pipe, and at most on a terminal: longer lines are hard to read.
WIDTH = 90


@click.command()
@click.option("--auto", is_flag=True, help="Do not wait for Enter. If there is no terminal, the tour never waits.")
@click.option("--freeze", is_flag=True, help="Freeze a worker instead of killing it: half a minute longer.")
@state_option
def command(state: Path, *, auto: bool, freeze: bool) -> None:
    """See a redelivery, step by step: a worker dies while it has unacknowledged messages, and another worker gets them.

    Press Enter to go on. Everything is real: the views, the worker that is killed with -9, and the figures from the
    broker and the database. Exit status 1: one of the views was not stored. It takes less than a minute.

    \b
    flixtrail tour
    flixtrail tour --freeze    a worker that hangs instead of one that dies
    """  # noqa: D301 (click's \b)
    from local.running_demo import RunningDemo
    from local.state import State

    tour = Tour(RunningDemo(State(state)), auto=auto or not (sys.stdin.isatty() and sys.stdout.isatty()))
    try:
        tour.run(freeze=freeze)
    finally:
        tour.views.stop()


class ViewSender:
    """Sends views of made-up viewers in the background, slowly, until it is stopped."""

    def __init__(self, running: RunningDemo) -> None:
        self._running = running
        self._stopping = Event()
        self._thread: Thread | None = None
        self._error: BaseException | None = None
        #: When sending began.
        self.began = monotonic()
        #: The accepted ids (answered with 202), in order.
        self.accepted: list[str] = []

    def start(self) -> None:
        self.began = monotonic()
        self._thread = Thread(target=self._send, name="views", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sending, and release the locks of the views that were sent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(TIMEOUT_S)

    def check(self) -> None:
        """Raise DemoError if the views could not be sent."""
        if self._error is not None:
            raise DemoError(f"the views could not be sent: {self._error}")

    def _send(self) -> None:
        from flixtrail.commands.send import Sender, one_view_per_viewer
        from local.slow_views import send_slowly

        sender = Sender(self._running.web_url, self._running.document["secret_key"])
        try:
            views = takewhile(lambda _: not self._stopping.is_set(), one_view_per_viewer(sender.videos()))
            send_slowly(self._running.database_url, sender.post, views, RATE, self.accepted)
        except Exception as error:  # noqa: BLE001 (`check` raises it, whatever it is)
            self._error = error


class Tour:
    """One run of the tour."""

    def __init__(self, running: RunningDemo, *, auto: bool) -> None:
        from local.view_counts import History

        self._running = running
        self._auto = auto
        self._history = History(running.database_url)
        self._console = _console()
        #: Unacknowledged messages of the worker, as it reported them before it was killed.
        self._unacknowledged = 0
        #: Messages that were delivered again.
        self._redelivered = 0
        self.views = ViewSender(running)

    def run(self, *, freeze: bool) -> None:
        """Run the whole tour. Raises DemoError. Exits with status 1 if a view is missing."""
        self._explain_the_parts()
        self._start_views()
        before = self._figures().redelivered
        worker, unacknowledged = self._wait_for(self._busiest, "a worker to have unacknowledged messages")
        if freeze:
            self._freeze(worker)
        else:
            self._kill(worker, unacknowledged)
        self._show_redelivery(list(self.views.accepted), before, worker, frozen=freeze)
        self._show_totals()

    # -- the steps ----------------------------------------------------------------------------------------

    def _explain_the_parts(self) -> None:
        from flixtrail.commands.workers import addresses
        from local import service_parts

        learner = self._running.learner_mode
        workers = self._workers()
        names = {worker.name for worker in self._running.workers()}
        if len(workers) < 2:  # noqa: PLR2004 (one to lose, one to take over)
            name = next(one for n in range(1, 10_000) if (one := f"{service_parts.WORKER}{n}") not in names)
            self._running.supervisor.add(service_parts.worker(self._running.state, name, addresses(self._running)))
            self._print_paragraph(
                f"A redelivery needs two workers, so {name} was started. It keeps running after the tour."
            )
        self._wait_for(lambda: len(self._workers()) >= 2, "two workers to run")  # noqa: PLR2004 (as above)
        self._print_title("1. The parts")
        self._print_paragraph("Somebody watches a video. The player sends a view to the streaming app.")
        if learner:
            self._print_paragraph(
                "The streaming app does not write it to the history itself. It puts the view into a message and the "
                "message into a queue. This demo runs in learner mode: the queue is a table of PostgreSQL (pgmq)."
            )
        else:
            self._print_paragraph(
                "The streaming app does not write it to the history itself. It puts the view into a message and hands "
                "that to RabbitMQ, a broker: a post office for programs. RabbitMQ keeps it in a queue, `history`."
            )
        self._print_paragraph(
            "History workers get messages from the queue and write the views to PostgreSQL. A worker acknowledges a "
            "message after its views are committed. Until then the broker keeps it."
        )
        for worker in self._workers():
            self._print_line(f"{worker.name}  process {worker.pid}")
        self._wait_for_enter()

    def _start_views(self) -> None:
        self._print_title("2. Views arrive")
        self._print_paragraph(
            f"{RATE} views a second are being sent now, one in a message. Another transaction in PostgreSQL locks "
            "their rows for a few seconds, so that you have time to watch. The workers wait for it, as for a slow "
            "disk. Meanwhile they do not acknowledge their messages."
        )
        self.views.start()
        self._wait_for(self._busiest, "a worker to have unacknowledged messages")
        self._wait_for(lambda: self._figures().unacked, "the broker's figures")
        self._print_figures()
        self._print_paragraph(
            "`unacked`: delivered to a worker, and not acknowledged yet. No other worker gets these meanwhile. (The "
            "broker's figures are a second older than those of the workers.)"
        )
        self._wait_for_enter()

    def _kill(self, worker: Worker, unacknowledged: Unacknowledged) -> None:
        import signal

        from flixtrail.commands.workers import signal_worker
        from local.unacknowledged import last_read_by, still_unacknowledged

        read = last_read_by(worker)
        signal_worker(worker, signal.SIGKILL)
        if self._running.learner_mode:
            unacknowledged = still_unacknowledged(self._running, read) or unacknowledged
            self._redelivered = unacknowledged.messages
        self._unacknowledged = unacknowledged.messages
        self._print_title("3. A worker dies")
        self._print_paragraph(f"{worker.name} was killed (kill -9 of process {worker.pid}); it had {unacknowledged}.")
        self._print_paragraph("It had no time to report anything. The views in these messages are not stored yet.")

    def _freeze(self, worker: Worker) -> None:
        import signal

        from flixtrail.commands.workers import frozen_text, signal_worker
        from local.unacknowledged import Unacknowledged, record_frozen

        note = record_frozen(self._running, worker)
        signal_worker(worker, signal.SIGSTOP)
        self._print_title("3. A worker hangs")
        unacknowledged = Unacknowledged(note.messages, note.views)
        self._redelivered = self._unacknowledged = note.messages
        self._print_paragraph(f"{worker.name} was frozen (SIGSTOP to process {worker.pid}); it had {unacknowledged}.")
        self._print_paragraph(frozen_text(self._running, note))
        printed = note.left_s + 1
        while (left := note.left_s) > 0:
            if left <= printed - 5 or left < printed < 5:  # noqa: PLR2004 (every five seconds, then each)
                self._print_line(f"{left} s left")
                printed = left
            sleep(POLL_INTERVAL_S)

    def _show_redelivery(self, accepted: list[str], before: int, worker: Worker, *, frozen: bool) -> None:
        from local.queue import VISIBILITY_TIMEOUT_S

        learner = self._running.learner_mode
        self._wait_for_enter()
        self._print_title("4. Another worker gets its messages")
        if learner and not frozen:
            self._print_paragraph(
                f"In learner mode, other workers do not see a message for {VISIBILITY_TIMEOUT_S} s after it was read. "
                "If it is not acknowledged by then, PostgreSQL shows it again, and another worker reads it."
            )
        elif not learner:
            self._print_paragraph(
                "RabbitMQ sees that the connection is closed. It delivers the messages again, to another worker."
            )
        self._wait_until_stored(accepted, before)
        if not learner:
            self._wait_for(lambda: self._figures().redelivered > before, "RabbitMQ's figures")
            self._redelivered = self._figures().redelivered - before
        self._print_paragraph(
            f"{quantity(self._redelivered, 'message')} delivered again: those of {worker.name}{self._difference()}."
        )
        self._print_paragraph(f"All {len(accepted):,} views that were accepted before are stored.")
        if frozen:
            self._thaw(worker)
        else:
            back = self._wait_for(lambda: self._restarted(worker), f"{worker.name} to be back")
            self._print_paragraph(f"The supervisor has started {worker.name} again: it is process {back.pid} now.")
        self._wait_for_enter()

    def _difference(self) -> str:
        """Explain why this is not the number that the worker reported a moment before it was killed."""
        more = self._redelivered - self._unacknowledged
        if more > 0:
            return f", and {quantity(more, 'message')} that arrived in its last moment"
        return f", less {quantity(-more, 'message')} that it acknowledged in its last moment" if more else ""

    def _wait_until_stored(self, accepted: list[str], before: int) -> None:
        """Wait until all of these are stored. Prints how many are missing whenever that changes."""
        printed = left = -1

        def missing() -> int:
            nonlocal printed, left
            self.views.check()
            stored = self._history.stored_of(accepted)
            left = len(accepted) - (stored or 0)
            if left != printed and stored is not None:
                again = (
                    "" if self._running.learner_mode else f", {self._figures().redelivered - before} delivered again"
                )
                self._print_line(
                    f"views accepted before it: {len(accepted):,}, of these not stored yet: {left:,}{again}"
                )
                printed = left
            return left

        if not wait_until(lambda: not missing(), TIMEOUT_S, poll_interval_s=1):
            raise DemoError(f"{left} views are not stored yet. This shows more: {flixtrail_command()} watch")

    def _thaw(self, worker: Worker) -> None:
        import signal

        from flixtrail.commands.workers import signal_worker

        signal_worker(worker, signal.SIGCONT)
        self._print_paragraph(
            f"{worker.name} continues now. Its connection is closed, so it connects again and gets new messages. The "
            "views that it still writes are stored already. Their ids are known, so nothing counts twice."
        )

    def _show_totals(self) -> None:
        self._print_title("5. Nothing is lost, nothing counts twice")
        self.views.stop()
        self.views.check()
        ids = self.views.accepted
        self._wait_for(lambda: self._history.stored_of(ids) == len(ids), "all views to be stored")
        stored = self._history.stored_of(ids) or 0
        self._wait_for_current_figures()
        self._print_figures()
        self._print_paragraph(
            f"{len(ids):,} views were accepted (answered 202), and {stored:,} are stored. Every view has an id, which "
            "is the key of its row: a view that is written a second time changes nothing."
        )
        self._print_paragraph("Delivered at least once, stored exactly once. That is what this project is about.")
        self._print_paragraph("What to try next:")
        self._print_line(f"{flixtrail_command()} watch           the same figures, live")
        self._print_line(f"{flixtrail_command()} tour --freeze   a worker that hangs instead of dying")
        self._print_line(f"{flixtrail_command()} poison          a message that cannot be stored")
        self._console.print(
            f"tour: accepted={len(ids)} stored={stored} redelivered={self._redelivered}", soft_wrap=True
        )
        if stored != len(ids):
            sys.exit(1)

    # -- the figures ----------------------------------------------------------------------------------------

    def _workers(self) -> list[Worker]:
        return [worker for worker in self._running.workers() if worker.state == "running"]

    def _busiest(self) -> tuple[Worker, Unacknowledged] | None:
        """Return the worker with the most unacknowledged messages, if these are enough to see."""
        from local.unacknowledged import reported_by

        found = [
            (worker, unacknowledged)
            for worker in self._workers()
            if (unacknowledged := reported_by(self._running, worker))
        ]
        best = max(found, key=lambda one: one[1].messages, default=None)
        wanted = WANTED if monotonic() - self.views.began < WANTED_TIMEOUT_S else 1
        return best if best and best[1].messages >= wanted else None

    def _restarted(self, worker: Worker) -> Worker | None:
        now = self._running.worker(worker.name)
        return now if now.state == "running" and now.pid != worker.pid else None

    def _figures(self) -> QueueFigures:
        from local.errors import BrokerUnreachable

        reason = ""

        def ask() -> QueueFigures | None:
            nonlocal reason
            try:
                return self._running.queue().figures()
            except BrokerUnreachable as error:
                reason = str(error)
                return None

        figures = wait_until(ask, TIMEOUT_S, poll_interval_s=POLL_INTERVAL_S)
        if figures is None:
            raise DemoError(f"the broker does not answer: {reason}")
        return figures

    def _wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        """Call `condition` until it returns a true value, and return that. Raises DemoError after TIMEOUT_S."""

        def checked() -> Any:
            self.views.check()
            return condition()

        found = wait_until(checked, TIMEOUT_S, poll_interval_s=POLL_INTERVAL_S)
        if not found:
            raise DemoError(f"{what}: not within {TIMEOUT_S} s. This shows more: {flixtrail_command()} status")
        return found

    def _wait_for_current_figures(self) -> None:
        """Wait until the broker's figures are up to date: they lag by a second or two. Others may use the demo, too."""
        wait_until(lambda: not self._figures().unacked, FIGURES_LAG_S, poll_interval_s=POLL_INTERVAL_S)

    # -- the output -----------------------------------------------------------------------------------------

    def _print_figures(self) -> None:
        figures = self._figures()
        for line in self._figures_table(figures):
            self._print_line(line)

    def _figures_table(self, figures: QueueFigures) -> Iterator[str]:
        from local.unacknowledged import reported_by

        ids = list(self.views.accepted)
        yield f"accepted {len(ids):,} views, stored {self._history.stored_of(ids) or 0:,}"
        yield f"queue `history`: {figures.ready:,} ready, {figures.unacked:,} unacked"
        for worker in self._workers():
            unacknowledged = reported_by(self._running, worker)
            yield f"{worker.name}: process {worker.pid}, has {'?' if unacknowledged is None else unacknowledged}"

    def _print_title(self, text: str) -> None:
        self._console.print(f"\n[bold]{text}[/bold]\n")

    def _print_paragraph(self, text: str) -> None:
        self._console.print(text, markup=False)

    def _print_line(self, text: str) -> None:
        self._console.print(f"  {text}", markup=False, soft_wrap=True)

    def _wait_for_enter(self) -> None:
        if not self._auto:
            click.prompt("\nEnter goes on, Ctrl-C ends", default="", show_default=False, prompt_suffix=" ")


def _console() -> Console:
    from rich.console import Console

    if not sys.stdout.isatty():
        return Console(highlight=False, force_terminal=False, color_system=None, width=WIDTH)
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH)
    return console
