"""One stack for all tests of docker-compose.yml. Who breaks something in it mends it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.compose.stack import Stack, missing


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine; skips without one, and where REQUIRE_ALL=1 (CI) fails."""
    if reason := missing():
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    request.getfixturevalue("engine")
    stack = Stack()
    try:
        stack.up()
        yield stack
    finally:
        stack.down()
