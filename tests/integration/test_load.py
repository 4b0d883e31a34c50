"""The load test itself, against the demo: it ends with nothing lost and nothing counted twice."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.conftest import Demo
from tests.demo import ROOT, environment

LAST_LINE = re.compile(
    r"load: accepted=(?P<accepted>\d+) stored=(?P<stored>\d+) lost=(?P<lost>\d+) duplicated=(?P<duplicated>\d+) "
    r"p50=\d+ms p95=\d+ms p99=\d+ms"
)


@pytest.mark.slow
@pytest.mark.rabbitmq
def test_the_load_test_finds_every_view_stored_once(rabbitmq_demo: Demo) -> None:
    """It finds the demo, and the key to it, by STATE alone."""
    done = subprocess.run(
        [sys.executable, "-m", "proof.load"],
        cwd=ROOT,
        env=environment(STATE=str(rabbitmq_demo.state), USERS="5", DURATION="10s", INGEST_TOKEN=""),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = LAST_LINE.fullmatch(done.stdout.splitlines()[-1])
    assert last, done.stdout
    assert int(last["accepted"]) == int(last["stored"]) > 500
    assert int(last["lost"]) == int(last["duplicated"]) == 0
    assert (rabbitmq_demo.state / "load" / "report.html").stat().st_size > 10_000
