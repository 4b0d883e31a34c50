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

from flixtrail.commands.options import state_option
from local.errors import DemoError
from local.pasteable_commands import program
from service.waiting import wait_until

if TYPE_CHECKING:
    from rich.console import Console

    from local.queue import Figures
    from local.running_demo import Running, Worker
    from local.unacknowledged import Held

#: Views per second, one per message.
RATE = 20
#: Unacknowledged messages that a worker should have when it is killed, so that there is something to see.
WANTED = 5
#: If no worker has WANTED messages after this many seconds, one message is enough.
PATIENT_S = 10
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
    from local.running_demo import Running
    from local.state import State

    tour = Tour(Running(State(state)), auto=auto or not (sys.stdin.isatty() and sys.stdout.isatty()))
    try:
        tour.run(freeze=freeze)
    finally:
        tour.views.stop()


class Views:
    """Sends views of made-up viewers in the background, slowly, until it is stopped."""

    def __init__(self, running: Running) -> None:
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
        from flixtrail.commands.send import Sender, one_each
        from local.slow_views import send_slowly

        sender = Sender(self._running.web_url, self._running.document["secret_key"])
        try:
            views = takewhile(lambda _: not self._stopping.is_set(), one_each(sender.videos()))
            send_slowly(self._running.database_url, sender.post, views, RATE, self.accepted)
        except Exception as error:  # noqa: BLE001 (told by the tour, whatever it is)
            self._error = error


class Tour:
    """One run of the tour."""

    def __init__(self, running: Running, *, auto: bool) -> None:
        from local.view_counts import History

        self._running = running
        self._auto = auto
        self._history = History(running.database_url)
        self._console = _console()
        #: How many messages the worker said it had, before it was killed.
        self._held = 0
        #: Messages that were delivered again.
        self._again = 0
        self.views = Views(running)

    def run(self, *, freeze: bool) -> None:
        """Run the whole tour. Raises DemoError. Exits with status 1 if a view is missing."""
        self._introduce()
        self._let_views_flow()
        before = self._figures().redelivered
        worker, held = self._until(self._busiest, "a worker to hold messages")
        if freeze:
            self._freeze(worker)
        else:
            self._kill(worker, held)
        self._come_back(list(self.views.accepted), before, worker, frozen=freeze)
        self._count()

    # -- the steps ----------------------------------------------------------------------------------------

    def _introduce(self) -> None:
        from flixtrail.commands.workers import addresses
        from local import service_parts

        learner = self._running.learner_mode
        workers = self._workers()
        names = {worker.name for worker in self._running.workers()}
        if len(workers) < 2:  # noqa: PLR2004 (one to lose, one to take over)
            name = next(one for n in range(1, 10_000) if (one := f"{service_parts.WORKER}{n}") not in names)
            self._running.supervisor.add(service_parts.worker(self._running.state, name, addresses(self._running)))
            self._say(f"A redelivery needs two workers. {name} was started; it stays.")
        self._until(lambda: len(self._workers()) >= 2, "two workers to run")  # noqa: PLR2004 (as above)
        self._title("1. Who takes part")
        self._say("Somebody watches a video. The player reports that to the streaming app: a view.")
        if learner:
            self._say(
                "The streaming app does not write it to the history itself. It puts the view into a message and the "
                "message into a queue. This demo runs in learner mode: the queue is a table of PostgreSQL (pgmq)."
            )
        else:
            self._say(
                "The streaming app does not write it to the history itself. It puts the view into a message and hands "
                "that to RabbitMQ, a broker: a post office for programs. RabbitMQ keeps it in a queue, `history`."
            )
        self._say(
            "History workers take messages from the queue and write the views to PostgreSQL. A worker acknowledges a "
            "message after its views are committed. Until then the broker keeps it."
        )
        for worker in self._workers():
            self._line(f"{worker.name}  process {worker.pid}")
        self._next()

    def _let_views_flow(self) -> None:
        self._title("2. Views arrive")
        self._say(
            f"{RATE} views a second are being sent now, one in a message. To have time to look, another transaction "
            "in PostgreSQL locks their rows for a few seconds. The workers wait for it, as for a slow disk, and "
            "hold messages that they have not acknowledged."
        )
        self.views.start()
        self._until(self._busiest, "a worker to hold messages")
        self._until(lambda: self._figures().unacked, "the broker's figures")
        self._show()
        self._say(
            "`unacked`: delivered to a worker, and not acknowledged yet. Nobody else gets these meanwhile. (The "
            "broker's figures are a second older than what the workers say.)"
        )
        self._next()

    def _kill(self, worker: Worker, held: Held) -> None:
        import signal

        from flixtrail.commands.workers import signal_all
        from local.unacknowledged import hidden, read_by

        read = read_by(worker)
        signal_all(worker, signal.SIGKILL)
        if self._running.learner_mode:
            held = hidden(self._running, read) or held
            self._again = held.messages
        self._held = held.messages
        self._title("3. A worker dies")
        self._say(f"{worker.name} was killed (kill -9 of process {worker.pid}); it held {held}.")
        self._say("It had no time to say anything to anybody. What it held is written nowhere yet.")

    def _freeze(self, worker: Worker) -> None:
        import signal

        from flixtrail.commands.workers import signal_all, what_follows
        from local.unacknowledged import Held, note_frozen

        note = note_frozen(self._running, worker)
        signal_all(worker, signal.SIGSTOP)
        self._title("3. A worker hangs")
        held = Held(note.messages, note.views)
        self._again = self._held = note.messages
        self._say(f"{worker.name} was frozen (SIGSTOP to process {worker.pid}); it held {held}.")
        self._say(what_follows(self._running, note))
        said = note.left_s + 1
        while (left := note.left_s) > 0:
            if left <= said - 5 or left < said < 5:  # noqa: PLR2004 (every five seconds, then each)
                self._line(f"{left} s left")
                said = left
            sleep(POLL_INTERVAL_S)

    def _come_back(self, accepted: list[str], before: int, worker: Worker, *, frozen: bool) -> None:
        from local.queue import VISIBILITY_S
        from local.unacknowledged import number

        learner = self._running.learner_mode
        self._next()
        self._title("4. Another worker gets its messages")
        if learner and not frozen:
            self._say(
                f"In learner mode a message that was read is hidden from others for {VISIBILITY_S} s. Was it not "
                "acknowledged by then, PostgreSQL shows it again, and another worker reads it."
            )
        elif not learner:
            self._say("RabbitMQ saw that the connection is gone and delivers the messages again, to another worker.")
        self._follow(accepted, before)
        if not learner:
            self._until(lambda: self._figures().redelivered > before, "RabbitMQ's figures")
            self._again = self._figures().redelivered - before
        self._say(f"{number(self._again, 'message')} delivered again: what {worker.name} held{self._difference()}.")
        self._say(f"All {len(accepted):,} views that were accepted before are stored.")
        if frozen:
            self._thaw(worker)
        else:
            back = self._until(lambda: self._back(worker), f"{worker.name} to be back")
            self._say(f"{worker.name} itself was started again by the supervisor: process {back.pid} now.")
        self._next()

    def _difference(self) -> str:
        """Explain why this is not the number that the worker said a moment before it was killed."""
        from local.unacknowledged import number

        more = self._again - self._held
        if more > 0:
            return f", and {number(more, 'message')} that arrived in its last moment"
        return f", less {number(-more, 'message')} that it acknowledged in its last moment" if more else ""

    def _follow(self, accepted: list[str], before: int) -> None:
        """Wait until all of these are stored. Prints how many are missing whenever that changes."""
        printed = -1

        def missing() -> int:
            nonlocal printed
            self.views.check()
            stored = self._history.stored_of(accepted)
            left = len(accepted) - (stored or 0)
            if left != printed and stored is not None:
                again = (
                    "" if self._running.learner_mode else f", {self._figures().redelivered - before} delivered again"
                )
                self._line(f"views accepted before it: {len(accepted):,}, of these not stored yet: {left:,}{again}")
                printed = left
            return left

        if not wait_until(lambda: not missing(), TIMEOUT_S, poll_interval_s=1):
            raise DemoError(f"{missing()} views are not stored yet. This shows more: {program()} watch")

    def _thaw(self, worker: Worker) -> None:
        import signal

        from flixtrail.commands.workers import signal_all

        signal_all(worker, signal.SIGCONT)
        self._say(
            f"{worker.name} goes on now. It finds its connection closed, connects again, and takes new messages. What "
            "it still writes is stored already: the ids are known, and nothing counts twice."
        )

    def _count(self) -> None:
        self._title("5. Nothing is lost, nothing counts twice")
        self.views.stop()
        self.views.check()
        ids = self.views.accepted
        self._until(lambda: self._history.stored_of(ids) == len(ids), "all views to be stored")
        stored = self._history.stored_of(ids) or 0
        self._settle()
        self._show()
        self._say(
            f"{len(ids):,} views were accepted (answered 202), and {stored:,} are stored. Every view has an id, which "
            "is the key of its row: a view that is written a second time changes nothing."
        )
        self._say("At least once delivered, exactly once in effect. That is what this project is about.")
        self._say("Go on with:")
        self._line(f"{program()} watch           everything that you saw, live")
        self._line(f"{program()} tour --freeze   a worker that hangs instead of dying")
        self._line(f"{program()} poison          a message that nobody can store")
        self._console.print(f"tour: accepted={len(ids)} stored={stored} redelivered={self._again}", soft_wrap=True)
        if stored != len(ids):
            sys.exit(1)

    # -- what is looked at --------------------------------------------------------------------------------

    def _workers(self) -> list[Worker]:
        return [worker for worker in self._running.workers() if worker.state == "running"]

    def _busiest(self) -> tuple[Worker, Held] | None:
        """Return the worker with the most unacknowledged messages, if these are enough to see."""
        from local.unacknowledged import told_by

        found = [(worker, held) for worker in self._workers() if (held := told_by(self._running, worker))]
        best = max(found, key=lambda one: one[1].messages, default=None)
        wanted = WANTED if monotonic() - self.views.began < PATIENT_S else 1
        return best if best and best[1].messages >= wanted else None

    def _back(self, worker: Worker) -> Worker | None:
        now = self._running.worker(worker.name)
        return now if now.state == "running" and now.pid != worker.pid else None

    def _figures(self) -> Figures:
        from local.queue import QueueAway

        reason = ""

        def ask() -> Figures | None:
            nonlocal reason
            try:
                return self._running.queue().figures()
            except QueueAway as error:
                reason = str(error)
                return None

        figures = wait_until(ask, TIMEOUT_S, poll_interval_s=POLL_INTERVAL_S)
        if figures is None:
            raise DemoError(f"the broker does not answer: {reason}")
        return figures

    def _until(self, condition: Callable[[], Any], what: str) -> Any:
        """Call `condition` until it returns a true value, and return that. Raises DemoError after TIMEOUT_S."""

        def checked() -> Any:
            self.views.check()
            return condition()

        found = wait_until(checked, TIMEOUT_S, poll_interval_s=POLL_INTERVAL_S)
        if not found:
            raise DemoError(f"{what}: not within {TIMEOUT_S} s. This shows more: {program()} status")
        return found

    def _settle(self) -> None:
        """Wait until the broker's figures are up to date: they lag by a second or two. Others may use the demo, too."""
        wait_until(lambda: not self._figures().unacked, FIGURES_LAG_S, poll_interval_s=POLL_INTERVAL_S)

    # -- how it is told -----------------------------------------------------------------------------------

    def _show(self) -> None:
        figures = self._figures()
        for line in self._table(figures):
            self._line(line)

    def _table(self, figures: Figures) -> Iterator[str]:
        from local.unacknowledged import told_by

        ids = list(self.views.accepted)
        yield f"accepted {len(ids):,} views, stored {self._history.stored_of(ids) or 0:,}"
        yield f"queue `history`: {figures.ready:,} ready, {figures.unacked:,} unacked"
        for worker in self._workers():
            held = told_by(self._running, worker)
            yield f"{worker.name}: process {worker.pid}, holds {held if held is not None else '?'}"

    def _title(self, text: str) -> None:
        self._console.print(f"\n[bold]{text}[/bold]\n")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def _line(self, text: str) -> None:
        self._console.print(f"  {text}", markup=False, soft_wrap=True)

    def _next(self) -> None:
        if not self._auto:
            click.prompt("\nEnter goes on, Ctrl-C ends", default="", show_default=False, prompt_suffix=" ")


def _console() -> Console:
    from rich.console import Console

    if not sys.stdout.isatty():
        return Console(highlight=False, force_terminal=False, color_system=None, width=WIDTH)
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH)
    return console
