"""What can go wrong around the demo. The message is for the person at the terminal; `exit_status` is the program's."""

from __future__ import annotations


class DemoError(Exception):
    """Something that a person has to know and may do something about: printed in one piece, without a traceback."""

    exit_status = 1


class WrongSetting(DemoError):
    """An option or a variable has a value that cannot be used. Names it and says what was expected."""

    exit_status = 2


class AlreadyRunning(DemoError):
    """Another `flixtrail demo` holds the state folder."""


class NotRunning(DemoError):
    """No demo runs on the state folder; the message says how to start one."""


class PortTaken(DemoError):
    """Somebody else listens where the streaming app should."""


class PartFailed(DemoError):
    """A part did not come up: the message holds the end of its log and where the rest is."""


class Interrupted(DemoError):
    """Ctrl-C or SIGTERM arrived while something was waited for."""

    exit_status = 0
