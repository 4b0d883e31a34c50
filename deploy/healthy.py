"""Health check: `python healthy.py URL` exits with 0 if the URL answers 2xx. The slim image has no curl."""

from __future__ import annotations

import sys
from urllib.request import ProxyHandler, build_opener

#: Seconds. Less than the `timeout` of the health checks in docker-compose.yml.
TIMEOUT_S = 2


def main(url: str) -> None:
    """Request the URL. If that fails, exit with the reason."""
    try:
        # Without a proxy: the host's Docker may set HTTP_PROXY in every container's environment.
        build_opener(ProxyHandler({})).open(url, timeout=TIMEOUT_S).close()
    except OSError as error:
        sys.exit(f"{url}: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
