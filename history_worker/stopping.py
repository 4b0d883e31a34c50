"""Lets a worker's processes know that it has been asked to stop.

Celery's warm shutdown waits for the tasks that are under way, and one that waits for PostgreSQL might do so for ever.
"""

from __future__ import annotations

from ctypes import c_double
from multiprocessing import RawValue
from time import monotonic
from typing import Any

from celery.signals import worker_shutting_down

#: When the worker was asked to stop, on the clock that all processes of a machine share; 0 while it was not. In memory
#: that the processes of the pool inherit, and without a lock, since one that is killed might never give it back.
_asked_at = RawValue(c_double, 0.0)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def ask(**_: Any) -> None:
    """In the parent, in its handler of SIGTERM."""
    _asked_at.value = _asked_at.value or monotonic()


def asked() -> bool:
    """Whether the worker is to stop."""
    return bool(_asked_at.value)


def asked_for_s() -> float:
    """Seconds since it was asked to stop; 0 while it was not."""
    return monotonic() - _asked_at.value if _asked_at.value else 0.0
