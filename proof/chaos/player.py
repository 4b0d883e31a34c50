"""Runs the faults of a schedule, each at its time, and records when they really happened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from proof.chaos.errors import PartMissing
from proof.chaos.faults import Scene, cause, describe
from proof.chaos.schedule import Planned

#: Minimum duration in seconds. A fault that began late, because its part was not there, still lasts this long.
LEAST_S = 0.5
#: Seconds for healing. After this, it has failed.
JOIN_S = 120

#: Called with the seconds since the beginning, a sign (`!`: begins, `+`: is healed, `-`: did not happen), and a line of
#: text.
ReportFault = Callable[[float, str, str], None]


@dataclass
class FaultRecord:
    """A fault as it happened, in seconds since the beginning. `healed_s` is None if it was never healed."""

    planned: Planned
    text: str
    began_s: float
    healed_s: float | None = None


class FaultRunner:
    """Runs one schedule. `happened` lists the faults so far, `failures` what could not be done or healed."""

    def __init__(self, scene: Scene, plan: Sequence[Planned], report: ReportFault, stopped: threading.Event) -> None:
        self._scene = scene
        self._plan = plan
        self._report = report
        self._stopped = stopped
        self._threads: list[threading.Thread] = []
        self._began = monotonic()
        self.happened: list[FaultRecord] = []
        self.failures: list[str] = []

    def play(self, seconds: float) -> None:
        """Run all faults until this many seconds have passed or `stopped` is set. Then heal everything."""
        self._began = monotonic()
        for planned in self._plan:
            if self._wait_until(planned.start_s):
                break
            thread = threading.Thread(target=self._run_fault, args=(planned,), name=planned.name, daemon=True)
            thread.start()
            self._threads.append(thread)
        self._wait_until(seconds)
        for thread in self._threads:
            thread.join(JOIN_S)
        self.failures += [f"{record.text}: not healed" for record in self.happened if record.healed_s is None]

    def _now(self) -> float:
        return monotonic() - self._began

    def _wait_until(self, at_s: float, *, at_least_s: float = 0) -> bool:
        """Wait. Returns whether the run was stopped meanwhile."""
        return self._stopped.wait(max(at_s - self._now(), at_least_s, 0))

    def _run_fault(self, planned: Planned) -> None:
        text = describe(planned)
        lasts = planned.duration_s > 0
        try:
            with cause(self._scene, planned):
                record = FaultRecord(planned, text, self._now())
                self.happened.append(record)
                self._report(record.began_s, "!", text)
                self._wait_until(planned.end_s, at_least_s=LEAST_S if lasts else 0)
            record.healed_s = self._now()
            if lasts:
                self._report(record.healed_s, "+", text)
        except PartMissing as reason:
            self._report(self._now(), "-", f"{text}: did not happen, {reason}")
        except Exception as error:  # noqa: BLE001 (whatever it is, this run proves nothing any more)
            self.failures.append(f"{text}: {type(error).__name__}: {error}")
            self._report(self._now(), "-", self.failures[-1])
