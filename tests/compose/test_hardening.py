"""What a container may do beyond its work: as good as nothing. And defaults that everybody knows stop the start."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from flixtrail.commands.secrets import SECRET
from tests.compose.stack import ROOT, SOURCES, Stack, copy_of_sources

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

RUNNING = ("proxy", "streaming-app", "history-worker", "history-api", "flower", "rabbitmq", "postgres")


@pytest.mark.parametrize("service", RUNNING)
def test_a_container_has_no_more_than_it_needs(stack: Stack, service: str) -> None:
    (container, *_) = stack.containers(service)
    about = stack.inspect(container)
    host = about["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert host["LogConfig"]["Config"]["max-size"]
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    # PostgreSQL is an init by itself.
    assert host["Init"] is (service != "postgres")
    status = stack.compose("exec", "-T", service, "cat", "/proc/self/status")
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert "0" not in lines["Uid"].split()
    assert int(lines["CapEff"], 16) == 0
    assert int(lines["CapPrm"], 16) == 0
    refused = stack.run("exec", "-T", service, "sh", "-c", "touch /etc/mine")
    assert refused.status != 0
    for bindings in (about["NetworkSettings"]["Ports"] or {}).values():
        assert all(binding["HostIp"] == "127.0.0.1" for binding in bindings or ())


def test_there_is_no_compiler_in_the_image_and_no_secret(stack: Stack) -> None:
    found = stack.run("exec", "-T", "streaming-app", "sh", "-c", "command -v cc gcc c++ ld make; command -v git")
    assert found.out == ""
    image = stack.inspect(stack.env["FLIXTRAIL_IMAGE"])
    assert not any(secret in str(image["Config"]) for secret in stack.secrets.values())
    assert stack.run("exec", "-T", "streaming-app", "ls", ".env", "tests", "deploy/rabbitmq").out == ""


def test_sources_that_only_their_owner_may_read_make_an_image_that_works(tmp_path: Path, engine: None) -> None:  # noqa: ARG001 (skips)
    """As a clone has them that was made with the umask 077."""
    copy_of_sources(tmp_path)
    for name in SOURCES:
        for path in [tmp_path / name, *(tmp_path / name).rglob("*")]:
            path.chmod(path.stat().st_mode & 0o700)
    private = Stack(tmp_path)
    try:
        private.compose("build", "migrate")
        starts = "import celeryconfig, streaming_app.rsgi, history_worker.store.writer"
        run = ["docker", "run", "--rm", private.env["FLIXTRAIL_IMAGE"], "python", "-c", starts]
        subprocess.run(run, check=True, timeout=60)
    finally:
        private.down()


@pytest.mark.parametrize(
    ("service", "secret"),
    [
        ("streaming-app", "SECRET_KEY"),
        ("history-worker", "DATABASE_PASSWORD"),
        ("history-api", "HISTORY_API_TOKEN"),
        ("roles", "POSTGRES_PASSWORD"),
        ("migrate", "DATABASE_PASSWORD"),
        ("flower", "FLOWER_PASSWORD"),
        ("rabbitmq", "RABBITMQ_PASSWORD"),
    ],
)
def test_a_development_default_stops_the_start_once_others_can_reach_it(
    stack: Stack, service: str, secret: str
) -> None:
    settings = {"BIND": "0.0.0.0", **dict.fromkeys(stack.secrets, "")}
    refused = stack.run("run", "--rm", "--no-deps", "-T", service, settings=settings)
    assert refused.status not in (0, None)
    said = refused.out + refused.err
    assert secret in said
    assert "must be set to listen on 0.0.0.0" in said
    assert "make secrets" in said
    assert "change-me" not in said


def test_with_secrets_of_its_own_it_may_listen_elsewhere(stack: Stack) -> None:
    checked = stack.run("run", "--rm", "--no-deps", "-T", "migrate", settings={"BIND": "0.0.0.0"})
    assert checked.status == 0, checked.err


def test_a_folder_of_videos_that_is_not_there_is_refused(stack: Stack) -> None:
    refused = stack.run("run", "--rm", "--no-deps", "-T", "streaming-app", settings={"VIDEOS": "/nowhere/at/all"})
    assert refused.status != 0
    assert "/nowhere/at/all" in refused.err


def test_how_many_there_are_can_be_set_for_good(stack: Stack) -> None:
    shown = stack.compose("config", "--format", "json", settings={"HISTORY_WORKERS": "4", "STREAMING_APPS": "2"})
    services = json.loads(shown)["services"]
    assert (services["history-worker"]["scale"], services["streaming-app"]["scale"]) == (4, 2)


def test_a_command_of_the_host_says_so_in_the_container(stack: Stack) -> None:
    assert "docker compose run" in stack.flixtrail("--help").out
    refused = stack.flixtrail("status")
    assert refused.status == 2
    assert "is for the host" in refused.err


def test_make_secrets_writes_one_for_each_default_and_leaves_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text((ROOT / "docker-compose.yml").read_text())
    (tmp_path / ".env").write_text("SECRET_KEY=mine-and-it-stays")  # without an end of line
    program = ROOT / ".venv" / "bin" / "flixtrail"
    said = subprocess.run([program, "secrets"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    values = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines())
    assert values["SECRET_KEY"] == "mine-and-it-stays"
    assert set(values) == set(SECRET.findall((ROOT / "docker-compose.yml").read_text()))
    assert len(set(values.values())) == len(values)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert not any(value in said for value in values.values())
    environment = {name: value for name, value in os.environ.items() if name not in values}
    shown = subprocess.run(
        ["docker", "compose", "config"], cwd=tmp_path, check=True, capture_output=True, text=True, env=environment
    ).stdout
    assert "change-me" not in shown
