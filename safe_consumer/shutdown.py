"""Tells a worker's processes that the worker was asked to stop.

Celery's warm shutdown waits for the running tasks. A task that waits for PostgreSQL could run for ever.
"""

from __future__ import annotations

from ctypes import c_double
from multiprocessing import RawValue
from time import monotonic
from typing import Any

from celery.signals import worker_shutting_down

#: When the worker was asked to stop, by the clock that all processes of a machine share; 0 before that. The pool's
#: processes inherit this memory. It has no lock: a killed process might never release it.
_asked_at = RawValue(c_double, 0.0)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def ask(**_: Any) -> None:
    """Note that the worker was asked to stop, and when. Celery calls this in the parent, in its handler of SIGTERM."""
    _asked_at.value = _asked_at.value or monotonic()


def asked() -> bool:
    """Return whether the worker was asked to stop."""
    return bool(_asked_at.value)


def asked_for_s() -> float:
    """Return the seconds since the worker was asked to stop; 0 if it was not."""
    return monotonic() - _asked_at.value if _asked_at.value else 0.0
