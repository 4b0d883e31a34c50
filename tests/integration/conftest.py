"""A database for the tests that need nothing else, and a demo with either broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.demo import Demo
from tests.integration.database import a_database, an_empty


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """One migrated database for all tests. Those that change its shape make their own."""
    with a_database() as url:
        yield url


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """An engine on it, with empty tables."""
    engine = an_empty(url)
    yield engine
    engine.dispose()


@pytest.fixture(params=["rabbitmq_demo", "embedded_demo"])
def demo(request: pytest.FixtureRequest) -> Demo:
    """The shared demo with RabbitMQ, then the one in learner mode."""
    one: Demo = request.getfixturevalue(request.param)
    one.settled()
    return one


@pytest.fixture
def rabbitmq(rabbitmq_demo: Demo) -> Iterator[Demo]:
    """The shared demo with RabbitMQ, settled before the test and after it."""
    rabbitmq_demo.settled()
    yield rabbitmq_demo
    rabbitmq_demo.settled()
