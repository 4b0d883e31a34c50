"""What others may not see: metrics from afar, and files that say who watched what."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from local.state import State
from service.settings import SettingsError, read
from streaming_app import create_app
from streaming_app.__main__ import check_folder
from streaming_app.recording.outbox_file import OutboxFile
from streaming_app.routes.health import FORWARDED
from streaming_app.settings import StreamingSettings

TOKEN = "a-token-of-enough-length"
Ask = Callable[..., int]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """The status of the answer to somebody at this address who asks for the metrics."""

    def asked(address: str, headers: dict[str, str] | None = None, **settings: Any) -> int:
        values = {"videos": tmp_path, "cache": tmp_path, "outbox": tmp_path / "outbox", **settings}
        client: FlaskClient = create_app(StreamingSettings.model_validate(values)).test_client()
        return client.get("/metrics", headers=headers, environ_base={"REMOTE_ADDR": address}).status_code

    return asked


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_this_machine_sees_the_metrics(ask: Ask, address: str) -> None:
    assert ask(address) == 200


@pytest.mark.parametrize("address", ["192.168.1.7", "10.0.0.1", "2001:db8::1", "::ffff:192.168.1.7", "", "nonsense"])
def test_others_do_not_unless_they_are_listed_or_have_the_token(ask: Ask, address: str) -> None:
    assert ask(address) == 403
    assert ask(address, {"Authorization": f"Bearer {TOKEN}"}) == 403
    assert ask(address, {"Authorization": f"Bearer {TOKEN}"}, metrics_token=TOKEN) == 200
    assert ask(address, {"Authorization": "Bearer \xe9"}, metrics_token=TOKEN) == 403
    known = address.count(".") == 3
    assert ask(address, metrics_from="192.168.0.0/16, 10.0.0.0/8") == (200 if known else 403)


@pytest.mark.parametrize("header", [*FORWARDED, "X-Forwarded-Proto", "X-Real-IP"])
def test_who_comes_by_way_of_a_proxy_on_this_machine_does_not(ask: Ask, header: str) -> None:
    assert ask("127.0.0.1", {header: "127.0.0.1"}) == 403


def test_behind_our_proxy_this_machine_does_as_long_as_nobody_else_reaches_it(ask: Ask) -> None:
    by_proxy = {"X-Real-IP": "172.18.0.1", "X-Forwarded-Proto": "http"}
    compose = {"behind_proxy": True, "metrics_from": "172.16.0.0/12"}
    assert ask("172.18.0.5", by_proxy, **compose, published_on="127.0.0.1") == 200
    assert ask("172.18.0.5", by_proxy, **compose, published_on="0.0.0.0") == 403
    assert ask("172.18.0.5", {**by_proxy, "X-Forwarded-For": "1.2.3.4"}, **compose, published_on="127.0.0.1") == 403
    assert ask("172.18.0.9", **compose, published_on="0.0.0.0") == 200, "Prometheus asks directly"


def test_the_setting_names_networks() -> None:
    with pytest.raises(SettingsError, match="METRICS_FROM"):
        read(StreamingSettings, {"METRICS_FROM": "everybody"})


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """Files are readable by all unless somebody sees to it."""
    previous = os.umask(0o022)
    yield
    os.umask(previous)


@pytest.mark.usefixtures("usual_umask")
def test_an_outbox_is_for_its_owner_only_also_one_from_before(tmp_path: Path) -> None:
    folder = tmp_path / "outbox"
    folder.mkdir()
    for suffix in ("sqlite", "lock"):
        (folder / f"before.{suffix}").touch()
    check_folder("OUTBOX", folder, private=True)
    old = OutboxFile.adopt(folder / "before.sqlite")
    new = OutboxFile.create(folder / "new.sqlite", max_bytes=1024 * 1024)
    found = modes(folder)
    for file in (old, new):
        assert file
        file.close()
    assert folder.stat().st_mode & 0o777 == 0o700
    kinds = {"sqlite", "sqlite-wal", "sqlite-shm"}
    assert set(found) == {f"{name}.{kind}" for name in ("before", "new") for kind in (*kinds, "lock")}
    assert {name for name, mode in found.items() if mode != 0o600} <= {"before.lock"}, "a lock has nothing in it"


@pytest.mark.usefixtures("usual_umask")
def test_the_logs_of_the_demo_are_for_their_owner_only_also_those_from_before(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.logs.mkdir(mode=0o755)
    state.log("web").touch(mode=0o644)
    state.make_subfolders()
    with state.open_log("flower"):
        pass
    assert state.logs.stat().st_mode & 0o777 == 0o700
    assert set(modes(state.logs).values()) == {0o600}
