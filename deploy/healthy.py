"""`python healthy.py URL`: status 0 when the URL answers 2xx. The slim image has no curl."""
# ruff: noqa: INP001 (a script beside the files it serves)

from __future__ import annotations

import sys
from urllib.request import urlopen

#: Below the `timeout` of the health checks in docker-compose.yml.
TIMEOUT_S = 2


def main(url: str) -> None:
    """Exit with what is wrong, if anything is."""
    try:
        urlopen(url, timeout=TIMEOUT_S).close()  # noqa: S310 (the address stands in docker-compose.yml)
    except OSError as error:
        sys.exit(f"{url}: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
