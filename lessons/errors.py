"""What can end a lesson."""

from __future__ import annotations


class NotProved(AssertionError):
    """The broker did not do what the lesson says. The message holds the claim, what was seen, and what was expected."""


class Skipped(Exception):
    """The lesson needs something that this machine lacks; the message says what."""
