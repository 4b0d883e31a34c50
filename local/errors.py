"""Errors of the demo. The command line catches DemoError, prints its message and exits with its `exit_status`."""

from __future__ import annotations


class DemoError(Exception):
    """An error that the user has to know about and may be able to fix. It is printed without a traceback."""

    exit_status = 1


class WrongSetting(DemoError):
    """An option or a variable has an unusable value. The message names it and says what was expected."""

    exit_status = 2


class AlreadyRunning(DemoError):
    """Another `flixtrail demo` uses the state folder."""


class NotRunning(DemoError):
    """No demo runs on the state folder. The message says how to start one."""


class PortTaken(DemoError):
    """Another program listens on the streaming app's port."""


class PartFailed(DemoError):
    """A part did not start. The message has the end of its log, and says where the rest is."""


class ServerUnreachable(DemoError):
    """A configured broker or database refuses the connection. The message has the server's words, and no password."""


class SupervisorUnreachable(DemoError):
    """supervisord does not answer: it has not started yet, or it is gone."""


class BrokerUnreachable(DemoError):
    """The broker does not answer at the moment. Ask again later."""


class StopNow(DemoError):
    """Ctrl-C was pressed a second time. A step of the shutdown raises it; the remaining parts are then killed."""


class Interrupted(DemoError):
    """Ctrl-C or SIGTERM arrived while the demo waited for something."""

    exit_status = 0
