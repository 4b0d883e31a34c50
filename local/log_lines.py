"""Reads log lines of our services (service/logs.py): for people or as JSON, with or without Compose's prefix."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

#: Characters of one line that are read. A message of 1,000 views needs 80,000; a longer line is not ours.
MAX_LINE_CHARACTERS = 1_000_000
#: The prefix of `docker compose logs`: `history-worker-1  | `.
PREFIX = re.compile(r"(?P<service>[A-Za-z0-9][A-Za-z0-9._-]*) +\| ")
#: Control sequences of a terminal: colours, and the erasing of a line, which docker compose writes even to a pipe.
TERMINAL_SEQUENCE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
CONSOLE = re.compile(
    r"(?P<timestamp>\d{4}-\d\d-\d\dT[\d:.]+Z) \[\w+ *\] (?P<event>.*?) +\[(?P<logger>[\w.]+)\](?: (?P<fields>.*))?"
)
#: The key of a value. `structlog.dev.ConsoleRenderer` writes every value that contains a space as a Python literal.
KEY = re.compile(r" *(?P<key>\w+)=")
BRACKETS = {"{": "}", "[": "]", "(": ")"}
#: Packages that are no service, and the service in whose logs their lines are.
SERVICE_OF_PACKAGE = {"safe_consumer": "history_worker"}


@dataclass(frozen=True)
class Line:
    """A log line: time, service, event and values."""

    time: datetime
    service: str
    event: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Log:
    """A log file. `service`: which service wrote it. None: each line says it, by its prefix or its logger."""

    path: Path
    service: str | None = None

    def lines_with(self, words: Collection[str]) -> Iterator[Line]:
        """Yield the readable lines that contain one of the words. One at a time, because the file may be large."""
        with self.path.open(errors="replace") as file:
            for text in iter(partial(file.readline, MAX_LINE_CHARACTERS), ""):
                if any(word in text for word in words) and (line := parse(text, self.service)):
                    yield line


def logs_in(folder: Path) -> Sequence[Log]:
    """Return the log files of a demo, with the rotated ones: NAME.log, NAME.log.1."""
    return [Log(path, path.name.partition(".log")[0]) for path in sorted(folder.glob("*.log*"))]


def parse(text: str, service: str | None = None) -> Line | None:
    """Parse a line. None if it is not ours or is incomplete."""
    text = TERMINAL_SEQUENCE.sub("", text).strip()
    if prefix := PREFIX.match(text):
        text, service = text[prefix.end() :], prefix["service"]
    fields = _of_json(text) if text.startswith("{") else _of_console(text)
    try:
        time = datetime.fromisoformat(str(fields.pop("timestamp")))
        event, logger = str(fields.pop("event")), str(fields.pop("logger", ""))
    except (KeyError, ValueError):
        return None
    if time.tzinfo is None:
        return None
    package = logger.partition(".")[0]
    return Line(time, service or SERVICE_OF_PACKAGE.get(package, package).replace("_", "-"), event, fields)


def _of_json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return dict(found) if isinstance(found, dict) else {}


def _of_console(text: str) -> dict[str, Any]:
    found = CONSOLE.fullmatch(text)
    if found is None:
        return {}
    head = {name: found[name] for name in ("timestamp", "event", "logger")}
    return dict(_pairs(found["fields"] or "")) | head


def _pairs(text: str) -> Iterator[tuple[str, Any]]:
    """Yield the pairs of `a=1 b='x y' c={'d': ['e']}`. Stops where the text cannot be parsed."""
    at = 0
    while key := KEY.match(text, at):
        at = _end_of_value(text, key.end())
        yield key["key"], _value(text[key.end() : at])


def _end_of_value(text: str, start: int) -> int:
    """Return the position after the value: after its closing quote or bracket, or else at the next space."""
    if text[start : start + 1] not in {*BRACKETS, "'", '"'}:
        space = text.find(" ", start)
        return len(text) if space < 0 else space
    closing: list[str] = []
    quote, at = "", start
    while at < len(text):
        character = text[at]
        if quote:
            at += character == "\\"  # the next character is escaped
            quote = "" if character == quote else quote
        elif character in {"'", '"'}:
            quote = character
        elif character in BRACKETS:
            closing.append(BRACKETS[character])
        elif closing and character == closing[-1]:
            closing.pop()
        at += 1
        if not quote and not closing:
            break
    return at


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
