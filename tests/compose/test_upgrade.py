"""From one version to the next, service by service, as docs/operations.md says: nobody waits, and no view is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.compose.asking import BROKER_S, RECONNECT_S, consumers, counted_once, stored, wait_until_all_is_stored
from tests.compose.load import Load
from tests.compose.stack import ROOT, Stack
from tests.waiting import until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def before(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The same stack as the commit before this one describes it, or the one that UPGRADE_FROM names; its image."""
    folder = tmp_path_factory.mktemp("before")
    try:
        commit = os.environ.get("UPGRADE_FROM", "HEAD~1")
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    except (subprocess.CalledProcessError, FileNotFoundError):
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail("there is no commit before this one here (a shallow clone?)")
        pytest.skip("there is no commit before this one here")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    old = Stack(folder)
    old.env.update(stack.env, FLIXTRAIL_IMAGE=f"{stack.project}-before:latest")
    old.compose("build", timeout_s=600)
    yield old
    remove = ["docker", "image", "rm", "--force", old.env["FLIXTRAIL_IMAGE"]]
    subprocess.run(remove, check=False, capture_output=True, timeout=60)


def images(stack: Stack, service: str) -> set[str]:
    return {stack.inspect(container)["Config"]["Image"] for container in stack.containers(service)}


def test_old_and_new_work_side_by_side_and_the_old_go_without_a_lost_view(stack: Stack, before: Stack) -> None:
    old, new = before.env["FLIXTRAIL_IMAGE"], stack.env["FLIXTRAIL_IMAGE"]
    known = set(stored(stack))
    before.compose("up", "--detach", "--wait", "--no-deps", "history-worker", "streaming-app", "history-api")
    assert images(stack, "history-worker") == images(stack, "streaming-app") == {old}

    with Load(stack.ingest) as load:
        # The database first: what it brings, the old ones bear.
        stack.compose("run", "--rm", "--no-deps", "-T", "migrate")
        for service in ("history-worker", "streaming-app"):
            left = stack.containers(service)
            stack.scale(**{service.replace("-", "_"): 2 * len(left)})
            assert images(stack, service) == {old, new}
            accepted = len(load.accepted)
            until(lambda n=accepted: len(load.accepted) > n + 300, 60, what="views while both work")  # type: ignore[misc]
            subprocess.run(["docker", "stop", *left], check=True, capture_output=True, timeout=120)
            subprocess.run(["docker", "rm", *left], check=True, capture_output=True, timeout=60)
            assert images(stack, service) == {new}
        stack.compose("up", "--detach", "--wait", "--no-deps", "history-api", "flower")
        stack.compose("exec", "-T", "proxy", "nginx", "-c", "/etc/flixtrail/nginx.conf", "-s", "reload")
        until(lambda: len(load.accepted) >= 2_000, 60, what="2,000 accepted views")

    wait_until_all_is_stored(stack, load.accepted)
    assert set(stored(stack)) - known == set(load.accepted)
    until(lambda: consumers(stack) == len(stack.workers()), RECONNECT_S, what="the new workers alone")
    # Both were at work, and said the same of what they did.
    assert {line["event"] for line in stack.logs("history-worker")} >= {"committed"}
    assert counted_once(stack)
    until(lambda: stack.viewer("alice").get("/api/history").status == 200, BROKER_S, what="the history")
