"""The connection to the history database under its old name, for scripts outside of this project.

`service.database` makes it.
"""

from __future__ import annotations

from service.database import connect

__all__ = ["connect"]
