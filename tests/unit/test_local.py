"""The small decisions behind `flixtrail demo`."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import shlex
import socket
import subprocess
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
from psycopg.conninfo import conninfo_to_dict

from flixtrail.commands.demo import demo_command
from flixtrail.commands.send import playbacks
from local import connection_check, ports, rabbitmq_programs, service_parts
from local.errors import AlreadyRunning, DemoError, NotRunning
from local.postgres import Postgres
from local.rabbitmq import password_hash
from local.settings import DemoSettings
from local.state import MAX_SAFE_PATH, SAFE_PATH, State
from local.terminal_output import TerminalOutput
from service.settings import read
from streaming_app.settings import StreamingSettings
from tests.demo import HARD_NAME
from view_events import topology


@pytest.fixture
def state(tmp_path: Path) -> State:
    one = State(tmp_path / "var")
    one.make()
    one.make_subfolders()
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

    monkeypatch.setattr(rabbitmq_programs, "MORE_FOLDERS", (str(wrapper.parent),))
    monkeypatch.setenv("PATH", str(sbin))
    assert rabbitmq_programs.server_script() == real.resolve()

    monkeypatch.setattr(rabbitmq_programs, "MORE_FOLDERS", ())
    assert rabbitmq_programs.server_script() is None


@pytest.mark.parametrize("folder", ["x" * 300, "", "/proc/1/root", "/dev/null", "no\x01such"])
def test_a_folder_in_path_that_cannot_be_looked_into_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setenv("PATH", f"/{folder}:{os.environ['PATH']}" if folder else f":{os.environ['PATH']}")
    rabbitmq_programs.is_installed()


def test_rabbitmq_is_found_also_where_path_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    there = rabbitmq_programs.is_installed()
    monkeypatch.setenv("PATH", "")
    assert rabbitmq_programs.is_installed() == there


def test_a_password_is_hashed_as_rabbitmq_does() -> None:
    stored = base64.b64decode(password_hash("secret"))
    salt, digest = stored[:4], stored[4:]
    assert digest == hashlib.sha256(salt + b"secret").digest()
    assert password_hash("secret") != password_hash("secret")


@pytest.mark.parametrize("name", ["long" * 60, HARD_NAME, "käse", "a\nb"])
def test_a_long_or_odd_state_folder_has_a_short_plain_name(tmp_path: Path, name: str) -> None:
    state = State(tmp_path / name)
    state.make()
    state.make_subfolders()
    assert SAFE_PATH.fullmatch(str(state.safe_path))
    assert len(str(state.safe_path)) < MAX_SAFE_PATH
    assert state.safe_path.samefile(state.folder)
    assert State(state.folder).safe_path == state.safe_path, "every command finds it"
    folder = state.socket_folder("supervisor")
    assert folder.stat().st_mode & 0o777 == 0o700
    state.remove_runtime_files()
    assert not state.safe_path.parent.joinpath("run").exists()
    state.remove_runtime_files()
    assert not folder.exists()


def test_somebody_elses_short_name_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, ours = tmp_path / "taken", tmp_path / "ours"
    state = State(tmp_path / HARD_NAME)
    for folder in (taken, ours, state.folder):
        folder.mkdir()
    (taken / state.safe_path.parent.name).symlink_to(ours)
    state.remove_runtime_files()
    monkeypatch.setattr("local.state.SHORT_PLACES", ("/nowhere", str(taken), str(ours)))
    assert state.safe_path.parent.parent == ours
    monkeypatch.setattr("local.state.SHORT_PLACES", ("/nowhere", str(taken)))
    with pytest.raises(DemoError, match="Choose a STATE"):
        _ = State(state.folder).safe_path


@pytest.mark.parametrize("name", ["file/state", "file", "loop/state", "x" * 300, "a\0b"])
def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DemoError, match=r"^STATE: "):
        State(tmp_path / name).make()


def test_a_folder_on_a_disk_that_is_read_only_or_nearly_full_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "tmpabc"))

    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=3_000_000))
    with pytest.raises(DemoError, match="3 MB are free"):
        State(tmp_path).make()
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(DemoError, match="Read-only file system"):
        State(tmp_path).make()


def test_the_next_free_port_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert "taken" in (ports.bind_error(taken) or "")
        assert ports.next_free(taken - 1) != taken
        assert ports.is_free(ports.next_free(taken - 1))
    assert ports.next_free(65_535) < 65_535


def test_a_suggested_command_is_to_be_pasted_where_the_person_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / HARD_NAME
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("MAKELEVEL", raising=False)
    monkeypatch.setattr("sys.prefix", str(here / ".venv"))
    settings = DemoSettings(state=Path("a b"), workers=3, amqp_url="amqp://a:secret@h/x")
    assert demo_command(settings, port=8101) == "STATE='a b' PORT=8101 WORKERS=3 .venv/bin/flixtrail demo"
    monkeypatch.setenv("MAKELEVEL", "1")
    for stands, command in ((here, "make demo"), (tmp_path, f"make -C {shlex.quote(str(here))} demo")):
        monkeypatch.setenv("CALLED_FROM", str(stands))
        assert demo_command(DemoSettings(), port=8101) == f"PORT=8101 {command}"


def test_a_private_program_can_be_found_by_the_user_that_postgresql_runs_as(tmp_path: Path) -> None:
    """Below /root, mode 0700: access(2), by which PostgreSQL's programs look for each other, has to say yes."""
    if os.geteuid() != 0:
        return
    state = State(tmp_path / "state")
    state.make()
    state.make_subfolders()
    program = a_program(tmp_path / "private" / "initdb")
    program.parent.chmod(0o700)
    find = [*Postgres(state).as_ordinary_user(program), "/bin/sh", "-c", f"test -x {program} && id -un"]
    assert subprocess.run(find, capture_output=True, text=True, check=False).stdout == "nobody\n"
    state.remove_runtime_files()


def test_files_of_postgresql_that_root_has_copied_are_given_back(state: State) -> None:
    if os.geteuid() != 0:
        return
    postgres = Postgres(state)
    (postgres.data / "base").mkdir(parents=True)
    for name in ("PG_VERSION", "base/1"):
        (postgres.data / name).touch()
    postgres.initialise()
    owners = {path.owner() for path in (postgres.data, *postgres.data.rglob("*"))}
    assert owners == {"nobody"}
    state.remove_runtime_files()


def test_who_tells_is_silent_when_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, writes = os.pipe()
    with os.fdopen(writes, "w", encoding="ascii") as out:
        monkeypatch.setattr("sys.stdout", out)
        output = TerminalOutput()
        output.print("✓ there is no tick in ASCII")
        os.close(reads)
        for _ in range(3):
            output.print("nobody reads")
        with output.waiting_for("more"):
            pass
    monkeypatch.setattr("sys.stdout", None)
    TerminalOutput().print("closed")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://a:b@h:1/x", "amqp://a:***@h:1/x"),
        ("amqp://a:p@ss/w:rd@h/x", "amqp://a:***@h/x"),
        ("postgresql://a@h/x", "postgresql://a@h/x"),
        ("postgresql://h/x", "postgresql://h/x"),
        ("amqps://:secret@h", "amqps://:***@h"),
        (
            "postgresql://h/x?user=a&password=s@h&sslmode=require",
            "postgresql://h/x?user=a&password=***&sslmode=require",
        ),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert connection_check.without_password(url) == shown


def test_a_piece_of_a_password_that_a_library_took_for_a_host_is_hidden() -> None:
    said = connection_check.reason(
        OSError(-2, 'could not translate host name "secret@h"'), "postgresql://a:my@secret@h/x"
    )
    assert said == 'could not translate host name "***@h"'


def test_the_messages_database_survives_the_broker_url(state: State) -> None:
    postgres = Postgres(state)
    found = conninfo_to_dict(topology.messages_database(postgres.broker_url()))
    assert found["host"] == str(postgres.sockets)
    assert found["dbname"] == "queue"
    assert found["user"] == "postgres"
    state.remove_runtime_files()


def test_ports_are_kept_until_somebody_else_has_them(state: State) -> None:
    first = ports.allocate(state, ("amqp", "epmd"))
    assert ports.allocate(state, ("amqp", "epmd")) == first
    assert len(set(first.values())) == 2
    with socket.create_server(("127.0.0.1", first["amqp"])):
        second = ports.allocate(state, ("amqp", "epmd"))
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


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"web": 1}', b"\xff"])
def test_a_damaged_state_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    """The disk was full, or the power went."""
    state = State(tmp_path)
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(DemoError, match=r"state\.json is damaged \(.+\)\. Remove it"):
        state.read()


def test_damaged_ports_are_chosen_anew(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text('{"amqp": "many", "web": -1, "api": [2]}')
    chosen = ports.allocate(State(tmp_path), ("amqp", "web", "api"))
    assert all(port in ports.RANGE for port in chosen.values())


def test_made_up_playbacks_start_go_on_and_finish() -> None:
    views = list(islice(playbacks([{"id": "clip-1", "duration_s": 25.0}]), 8))
    assert [view["kind"] for view in views[:4]] == ["started", "progress", "progress", "finished"]
    assert [view["position_s"] for view in views[:4]] == [0.0, 10.0, 20.0, 25.0]
    assert [view["played_from_s"] for view in views[:4]] == [0.0, 0.0, 10.0, 20.0]
    assert len({view["playback_id"] for view in views}) == 2
    assert len({view["event_id"] for view in views}) == 8


@pytest.mark.parametrize("learner", [False, True])
def test_the_app_is_told_the_pages_of_the_broker_and_no_password(state: State, *, learner: bool) -> None:
    addresses = service_parts.Addresses(
        web_port=1,
        history_api_port=2,
        flower_port=3,
        broker_url="pgmq://x@127.0.0.1:5/x" if learner else "amqp://a:b@127.0.0.1:5//",
        management_url=None if learner else "http://flixtrail:secret@127.0.0.1:4",
        database_url="postgresql://x@/x",
    )
    environment = service_parts.web(state, addresses, None).environment
    pages = {name: environment[name] for name in ("FLOWER_PAGE", "RABBITMQ_PAGE")}
    assert set(pages.values()) == ({""} if learner else {"http://127.0.0.1:3", "http://127.0.0.1:4"})
    assert read(StreamingSettings, pages).rabbitmq_page == (None if learner else "http://127.0.0.1:4")
