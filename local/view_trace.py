"""Collects what the logs say about one view. It finds the lines by the view's id, its trace id, and its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from local.log_lines import Line, Log

#: Characters of an id that are shown. The whole id is in the JSON.
SHORT_ID = 8


@dataclass(frozen=True)
class Step:
    """One thing that happened."""

    time: datetime
    service: str
    what: str
    details: str
    task_id: str | None = None


@dataclass
class ViewTrace:
    """Everything that the logs say about a view, in order of time."""

    event_id: str
    trace_ids: list[str] = field(default_factory=list)
    #: Tasks that carried the view. Found by its id, or only by its trace id, as for a message whose confirm never came.
    task_ids: list[str] = field(default_factory=list)
    maybe_task_ids: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def last(self, *what: str) -> Step | None:
        """Return the latest step of one of these kinds."""
        return next((step for step in reversed(self.steps) if step.what in what), None)


def trace_view(event_id: str, logs: Sequence[Log]) -> ViewTrace:
    """Read the logs three times: for lines with the view's id, for lines with its trace id, and for what happened to
    its tasks.
    """
    trace = ViewTrace(event_id)
    for line in _lines(logs, [event_id]):
        _collect_ids(trace, line)
    about = _follow_trace(trace, logs) if trace.trace_ids else []
    words = [event_id, *trace.task_ids, *trace.maybe_task_ids]
    about += [line for line in _lines(logs, words) if _is_about(trace, line)]
    trace.steps = sorted((_step(trace, line) for line in about), key=lambda step: step.time)
    return trace


def _lines(logs: Sequence[Log], words: Sequence[str]) -> Iterator[Line]:
    for log in logs:
        yield from log.lines_with(words)


def _collect_ids(trace: ViewTrace, line: Line) -> None:
    trace_ids = [trace_id for trace_id, ids in _views(line).items() if trace.event_id in ids]
    if line.fields.get("event_id") == trace.event_id:
        trace_ids.append(line.fields.get("trace_id") or "")
    trace.trace_ids += [one for one in trace_ids if len(one) > 1 and one not in trace.trace_ids]
    trace.task_ids += [task_id for task_id in _task_ids(line) if task_id not in trace.task_ids]


def _follow_trace(trace: ViewTrace, logs: Sequence[Log]) -> list[Line]:
    """Find the tasks that carried views of the same trace, except tasks that are known to have carried only others.

    Returns the lines of the proxy in front. It knows no event, only the trace id of a request.
    """
    requests: list[Line] = []
    found: dict[str, None] = {}
    others: set[str] = set()
    for line in _lines(logs, trace.trace_ids):
        if line.event == REQUEST:
            requests.append(line)
        task_ids = [task_id for task_id in _task_ids(line) if task_id not in trace.task_ids]
        if "views" in line.fields:
            others.update(task_ids)
        elif _mentions(line.fields.get("trace_ids"), trace.trace_ids):
            found.update(dict.fromkeys(task_ids))
    trace.maybe_task_ids = [task_id for task_id in found if task_id not in others]
    return requests


def _task_ids(line: Line) -> list[str]:
    """Return the task ids of a line: one message's, or all that a worker wrote together."""
    several = line.fields.get("task_ids")
    found = several if isinstance(several, list) else [line.fields.get("task_id")]
    return [task_id for task_id in found if isinstance(task_id, str)]


def _mentions(found: object, wanted: Sequence[str]) -> bool:
    return isinstance(found, list) and any(one in found for one in wanted)


def _is_about(trace: ViewTrace, line: Line) -> bool:
    """Return whether a line is about this view, and not about another view of the same message."""
    if "views" in line.fields:
        return any(trace.event_id in ids for ids in _views(line).values())
    if line.event == REFUSED:
        return line.fields.get("event_id") == trace.event_id
    return True


def _views(line: Line) -> Mapping[str, Sequence[str]]:
    views = line.fields.get("views")
    return views if isinstance(views, dict) else {}


# -- in words ------------------------------------------------------------------------------------------------

REFUSED = "event refused, dead-lettered"
REQUEST = "request"


def _step(trace: ViewTrace, line: Line) -> Step:
    what, details = DESCRIPTIONS.get(line.event, _other_line)(line)
    task_ids = _task_ids(line)
    known = [task_id for task_id in task_ids if task_id in (*trace.task_ids, *trace.maybe_task_ids)]
    task_id = next(iter(known or task_ids), None)
    if task_id:
        details = f"{details}, task {task_id[:SHORT_ID]}" if details else f"task {task_id[:SHORT_ID]}"
    if task_id in trace.maybe_task_ids:
        details += " (by its trace)"
    return Step(line.time, line.service, what, details, task_id)


def _published(line: Line) -> tuple[str, str]:
    what = "sent from the outbox" if line.fields.get("from_outbox") else "published"
    return what, f"{_number(line.fields.get('events'))} in one message, confirmed in {line.fields.get('ms')} ms"


def _stored_in_outbox(line: Line) -> tuple[str, str]:
    return "stored in the outbox", f"{_number(line.fields.get('events'))} in one commit"


def _committed(line: Line) -> tuple[str, str]:
    fields = line.fields
    details = (
        f"batch of {fields.get('events')}, {fields.get('stored')} new, in {fields.get('ms')} ms, "
        f"{fields.get('age_ms')} ms old"
    )
    return "redelivered, committed" if fields.get("redelivered") is True else "committed", details


def _request(line: Line) -> tuple[str, str]:
    fields = line.fields
    return f"answered {fields.get('status')}", f"{fields.get('method')} {fields.get('path')}, {fields.get('seconds')} s"


def _dead_lettered(line: Line) -> tuple[str, str]:
    return line.event.removeprefix("event "), f"{line.fields.get('kind')}: {line.fields.get('reason')}"


def _other_line(line: Line) -> tuple[str, str]:
    """Describe a line with its own text, such as `PostgreSQL is away; ...`."""
    hidden = {"task_id", "task_ids", "level", "views", "trace_ids"}
    rest = ", ".join(f"{name} {value}" for name, value in line.fields.items() if name not in hidden)
    first = (line.event.splitlines() or [""])[0]
    return first, rest


DESCRIPTIONS: Mapping[str, Callable[[Line], tuple[str, str]]] = {
    REQUEST: _request,
    "published": _published,
    "stored in the outbox": _stored_in_outbox,
    "committed": _committed,
    REFUSED: _dead_lettered,
    "given up, dead-lettered": _dead_lettered,
}


def _number(count: Any) -> str:
    return f"{count} view" if count == 1 else f"{count} views"
