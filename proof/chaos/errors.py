"""Errors of a chaos run. They are DemoErrors, so the program prints the message and exits with status 1."""

from __future__ import annotations

from local.errors import DemoError


class ChaosError(DemoError):
    """The run proves nothing. The message says why."""


class NotHealed(ChaosError):
    """A fault could not be healed, so the rest of the run proves nothing."""


class PartMissing(ChaosError):
    """The part of a fault was not there for `faults.PART_TIMEOUT_S`, so the fault did not happen."""


class LoadFailed(ChaosError):
    """The load cannot continue: there is no viewer to erase, or no library."""


class ProxyFailed(ChaosError):
    """The proxy's process did not execute a command, or is gone."""


class UnexpectedDeadLetters(ChaosError):
    """A message was dead-lettered in a run that sends only good views."""
