"""Backup and restore: what was stored is back, what was on its way arrives, and who was erased stays erased."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.client import a_view
from tests.compose.asking import BROKER_S, counted_once, stored, wait_until_all_is_stored, watched
from tests.compose.stack import ROOT, Stack
from tests.waiting import until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]


def stored_at_least(stack: Stack, count: int) -> set[str]:
    """The ids that are stored, once they are so many; before, none."""
    ids = set(stored(stack))
    return ids if len(ids) >= count else set()


def make(stack: Stack, target: str, **variables: str) -> str:
    done = subprocess.run(
        ["make", "--no-print-directory", target, *(f"{name}={value}" for name, value in variables.items())],
        cwd=ROOT,
        env={**stack.env, "MAKEFLAGS": "", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_was_stored_is_back_and_what_was_on_its_way_arrives(stack: Stack, tmp_path: Path) -> None:
    heidi, ivan = stack.viewer("heidi"), stack.viewer("ivan")
    heidi.record([a_view() for _ in range(200)])
    ivan.record([a_view() for _ in range(10)])
    before = until(lambda: stored_at_least(stack, 210), BROKER_S, what="all stored")

    said = make(stack, "backup", TO=str(tmp_path), QUIET="1")
    (folder,) = tmp_path.iterdir()
    assert "not in it: 0 messages in the queue, 0 views in outboxes" in said
    about = json.loads((folder / "backup.json").read_text())
    assert about["views"] == len(before)
    definitions = json.loads((folder / "definitions.json").read_text())
    assert {"history", "history.alone", "views.dead"} <= {queue["name"] for queue in definitions["queues"]}

    assert "erased ivan: 10 views" in stack.flixtrail("erase", "ivan", "--yes").out
    of_ivan = before - set(stored(stack))
    assert len(of_ivan) == 10
    # Disaster, and views that wait in the queue meanwhile.
    stack.compose("stop", "history-worker")
    late = heidi.record([a_view()])
    stack.psql("DROP TABLE playbacks; TRUNCATE view_events")

    said = make(stack, "restore", FROM=str(folder), YES="1")
    assert "restored:" in said
    wait_until_all_is_stored(stack, late, within_s=BROKER_S)
    assert set(stored(stack)) == (before - of_ivan) | set(late)
    assert counted_once(stack)
    until(lambda: len(watched(heidi, limit="100")) == 100, BROKER_S, what="the history")
    assert ivan.history() == []
    # Grants and owners are as before: nobody but the services' own roles can use it.
    owners = stack.psql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
    assert owners == ["flixtrail_migrator"]


def test_a_backup_that_is_not_whole_is_refused_before_anything_is_touched(stack: Stack, tmp_path: Path) -> None:
    make(stack, "backup", TO=str(tmp_path))
    (folder,) = tmp_path.iterdir()
    dump = folder / "history.dump"
    dump.write_bytes(dump.read_bytes()[:-100])
    before = stored(stack)
    program = [str(ROOT / ".venv" / "bin" / "flixtrail"), "restore", str(folder), "--yes"]
    done = subprocess.run(program, env=stack.env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "has another size than" in done.stderr
    # One that only looks whole: the database stays as it is, and the workers go on.
    about = json.loads((folder / "backup.json").read_text())
    (folder / "backup.json").write_text(json.dumps({**about, "bytes": dump.stat().st_size}))
    done = subprocess.run(program, env=stack.env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert set(stored(stack)) == set(before)
    wait_until_all_is_stored(stack, stack.viewer("heidi").record([a_view()]), within_s=BROKER_S)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_backup_that_is_broken_off_starts_what_it_had_stopped(
    stack: Stack, tmp_path: Path, number: signal.Signals
) -> None:
    program = [str(ROOT / ".venv" / "bin" / "flixtrail"), "backup", str(tmp_path), "--quiet"]
    with subprocess.Popen(program, env=stack.env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as backup:
        until(lambda: stack.containers("proxy") == [], BROKER_S, what="the proxy to be stopped")
        backup.send_signal(number)
        assert backup.wait(60) != 0
    until(lambda: len(stack.containers("proxy")) == 1, BROKER_S, what="the proxy to run again")
    assert list(tmp_path.iterdir()) == []
    stack.viewer("heidi").record([a_view()])


def test_a_backup_that_fails_leaves_nothing_that_looks_like_one(stack: Stack, tmp_path: Path) -> None:
    stack.compose("stop", "postgres")
    try:
        program = [str(ROOT / ".venv" / "bin" / "flixtrail"), "backup", str(tmp_path)]
        done = subprocess.run(program, env=stack.env, capture_output=True, text=True, timeout=120, check=False)
    finally:
        stack.compose("start", "postgres")
    assert done.returncode == 1
    assert "docker compose" in done.stderr
    assert list(tmp_path.iterdir()) == []
