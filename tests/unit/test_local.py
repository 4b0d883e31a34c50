"""The small decisions behind `flixtrail demo`."""

from __future__ import annotations

import base64
import hashlib
import socket
from itertools import islice
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from flixtrail.commands.send import playbacks
from flixtrail.local import installed, ports
from flixtrail.local.errors import AlreadyRunning, NotRunning
from flixtrail.local.postgres import Postgres
from flixtrail.local.rabbitmq import password_hash
from flixtrail.local.state import LONGEST_SOCKET_FOLDER, State
from view_events import topology


@pytest.fixture
def state(tmp_path: Path) -> State:
    one = State(tmp_path / "var")
    one.make()
    one.prepare()
    return one


def a_program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    return path


def test_debians_wrapper_is_not_taken_for_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrapper lies beside `rabbitmq-env` as well. Started under its own name it calls itself without end."""
    real = a_program(tmp_path / "lib" / "rabbitmq_server-1" / "sbin" / "rabbitmq-server")
    a_program(real.with_name("rabbitmq-env"))
    wrapper = a_program(tmp_path / "lib" / "bin" / "rabbitmq-script-wrapper")
    (wrapper.parent / "rabbitmq-server").symlink_to(real)
    (wrapper.parent / "rabbitmq-env").symlink_to(real.with_name("rabbitmq-env"))
    sbin = tmp_path / "sbin"
    sbin.mkdir()
    (sbin / "rabbitmq-server").symlink_to(wrapper)

    monkeypatch.setattr(installed, "MORE_FOLDERS", (str(wrapper.parent),))
    monkeypatch.setenv("PATH", str(sbin))
    assert installed.server_script() == real.resolve()

    monkeypatch.setattr(installed, "MORE_FOLDERS", ())
    assert installed.server_script() is None


def test_a_password_is_hashed_as_rabbitmq_does() -> None:
    stored = base64.b64decode(password_hash("secret"))
    salt, digest = stored[:4], stored[4:]
    assert digest == hashlib.sha256(salt + b"secret").digest()
    assert password_hash("secret") != password_hash("secret")


def test_a_long_or_odd_state_folder_gets_its_sockets_elsewhere(tmp_path: Path) -> None:
    for name in ("long" * 30, "with space", "käse"):
        state = State(tmp_path / name)
        state.make()
        state.prepare()
        folder = state.socket_folder("supervisor")
        assert folder.is_relative_to("/tmp")
        assert len(str(folder)) < LONGEST_SOCKET_FOLDER
        assert folder.stat().st_mode & 0o777 == 0o700
        state.forget()
        assert not folder.exists()


def test_the_messages_database_survives_the_broker_url(state: State) -> None:
    postgres = Postgres(state)
    found = conninfo_to_dict(topology.messages_database(postgres.broker_url()))
    assert found["host"] == str(postgres.sockets)
    assert found["dbname"] == "queue"
    assert found["user"] == "postgres"
    state.forget()


def test_ports_are_kept_until_somebody_else_has_them(state: State) -> None:
    first = ports.keep(state, ("amqp", "epmd"))
    assert ports.keep(state, ("amqp", "epmd")) == first
    assert len(set(first.values())) == 2
    with socket.create_server(("127.0.0.1", first["amqp"])):
        second = ports.keep(state, ("amqp", "epmd"))
    assert second["amqp"] != first["amqp"]
    assert second["epmd"] == first["epmd"]


def test_a_secret_is_made_once_and_read_by_its_owner_only(state: State) -> None:
    assert state.secret("key") == state.secret("key") != state.secret("other")
    assert (state.folder / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_one_demo_holds_a_state_folder(state: State) -> None:
    with state.lock(), pytest.raises(AlreadyRunning, match="is running on"), State(state.folder).lock():
        pass
    with State(state.folder).lock():
        pass
    assert not (state.folder / "demo.lock").exists()
    with pytest.raises(NotRunning, match="No demo is running"):
        state.read()


def test_made_up_playbacks_start_go_on_and_finish() -> None:
    views = list(islice(playbacks([{"id": "clip-1", "duration_s": 25.0}]), 8))
    assert [view["kind"] for view in views[:4]] == ["started", "progress", "progress", "finished"]
    assert [view["position_s"] for view in views[:4]] == [0.0, 10.0, 20.0, 25.0]
    assert [view["played_from_s"] for view in views[:4]] == [0.0, 0.0, 10.0, 20.0]
    assert len({view["playback_id"] for view in views}) == 2
    assert len({view["event_id"] for view in views}) == 8
