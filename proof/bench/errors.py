"""Errors that end a benchmark. The message is for the person at the terminal."""

from __future__ import annotations


class BenchError(Exception):
    """Nothing can be measured, or the figures are worthless. The message says what to do."""


class NotSafe(BenchError):
    """A server is configured so that it may lose what it has confirmed. So its figures cannot be compared."""


class Lost(BenchError):
    """Accepted events are not in the table, or an answer was not the expected one."""


class UnexpectedAnswer(BenchError):
    """An answer is not the expected one. The message contains it."""
