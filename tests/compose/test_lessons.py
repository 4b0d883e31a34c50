"""The lessons on the RabbitMQ of docker-compose.yml: what differs there is told, and everything can be proved."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lessons.harness import book

pytestmark = pytest.mark.compose

ROOT = Path(__file__).parents[2]
IMAGE = "rabbitmq:4.3.6-management"
LIMIT_S = 300


@pytest.mark.timeout(2 * LIMIT_S)
def test_every_lesson_passes_on_the_newest_broker(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lessons", "--image", IMAGE],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "STATE": str(tmp_path)},
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"lessons: {len(book.NAMES)} passed, 0 failed"
