"""What can end a benchmark. The message is for the person at the terminal."""

from __future__ import annotations


class BenchError(Exception):
    """Nothing can be measured, or what was measured counts for nothing; the message says what to do."""


class NotSafe(BenchError):
    """A server is set so that it may lose what it has confirmed: figures of it would compare nothing."""


class Lost(BenchError):
    """Events that were accepted are not in the table, or something was answered that was not expected."""
