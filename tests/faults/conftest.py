"""The demo that the faults happen to, and a viewer of it."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.client import Client
from tests.demo import Demo


@pytest.fixture
def demo(rabbitmq_demo: Demo) -> Demo:
    """The shared demo with RabbitMQ, settled."""
    rabbitmq_demo.settled()
    return rabbitmq_demo


@pytest.fixture
def viewer_id() -> str:
    return f"viewer-{uuid4()}"


@pytest.fixture
def client(demo: Demo, viewer_id: str) -> Client:
    """The viewer's client."""
    return Client(demo.url, demo.token(viewer_id))
