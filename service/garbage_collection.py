"""Makes Python's search for reference cycles rare: it used a tenth of the CPU time of a batch of views.

Python frees an object that is not in a cycle at once, as always. A batch of views is thousands of objects that live for
some milliseconds. After each few hundred new objects Python searched all objects for cycles, and views have none.
"""

from __future__ import annotations

import gc

#: New objects between two searches; Python's default is 700. This is twice as many as a large batch has, about a
#: megabyte. Objects in a cycle (an exception and its frames) are freed a little later. With 50,000, a web process took
#: 10 MB more.
THRESHOLD_OBJECTS = 10_000


def collect_rarely() -> None:
    """Make the search rare from now on.

    Call it once in a process, after all permanent objects exist: those are not searched again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD_OBJECTS, *gc.get_threshold()[1:])
