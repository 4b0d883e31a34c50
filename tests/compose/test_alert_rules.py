"""The alert rules, as promtool judges them: what fires each, and what does not (deploy/prometheus/alerts_test.yml)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.compose.stack import missing

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"
IMAGE = os.environ.get("PROMETHEUS_IMAGE", "prom/prometheus:v3.5.3")

pytestmark = pytest.mark.compose


@pytest.fixture(autouse=True)
def _engine() -> None:
    if reason := missing():
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.mark.parametrize("what", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")])
def test_promtool_has_nothing_to_say(what: tuple[str, str, str]) -> None:
    *command, file = what
    promtool = ["docker", "run", "--rm", "--network=none", "--entrypoint=promtool"]
    volume = ["--volume", f"{PROMETHEUS}:/etc/prometheus:ro"]
    done = subprocess.run(
        [*promtool, *volume, IMAGE, *command, f"/etc/prometheus/{file}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
