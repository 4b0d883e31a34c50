"""Python's search for reference cycles, made rare: it took a tenth of all CPU that a batch of views cost.

Whatever is not in a cycle goes at once, as always. A batch of views is thousands of objects that live for some
milliseconds; each few hundred of them made Python look at all objects for cycles, and there are none among views.
"""

from __future__ import annotations

import gc

#: New objects between two searches; Python's own is 700. Twice as many as a large batch has, a megabyte: what is in a
#: cycle (an exception and its frames) goes a little later. With 50,000 a web process took 10 MB more.
OBJECTS = 10_000


def look_rarely() -> None:
    """Call it once a process, when everything that will stay has been made: that is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS, *gc.get_threshold()[1:])
