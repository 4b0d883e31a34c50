"""Settings: a wrong one stops the start with its name and what was expected."""

from __future__ import annotations

import pytest

from history_worker.settings import ApiSettings, DatabaseSettings
from service.settings import BrokerSettings, SettingsError, read
from streaming_app.settings import StreamingSettings

SECRETS = {"SECRET_KEY": "x" * 32, "HISTORY_API_TOKEN": "y" * 32}


@pytest.mark.parametrize(
    ("model", "environ", "expected"),
    [
        (StreamingSettings, {"PORT": "abc"}, "PORT: 'abc'"),
        (StreamingSettings, {"PORT": "70000"}, "PORT: '70000'"),
        (StreamingSettings, {"WEB_THREADS": "0"}, "WEB_THREADS: '0'"),
        (StreamingSettings, {"VIDEOS": "/nowhere/at/all"}, "VIDEOS: '/nowhere/at/all'"),
        (StreamingSettings, {"LOG_FORMAT": "xml"}, "LOG_FORMAT: 'xml'"),
        (StreamingSettings, {"HISTORY_API_URL": "localhost:1"}, "HISTORY_API_URL: its value"),
        (BrokerSettings, {"AMQP_URL": "redis://localhost"}, "AMQP_URL: .*expected amqp://"),
        (DatabaseSettings, {"DATABASE_URL": "mysql://x"}, "DATABASE_URL: .*expected postgresql://"),
        (DatabaseSettings, {}, "DATABASE_URL is not set"),
    ],
)
def test_a_wrong_setting_is_named(model: type, environ: dict[str, str], expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        read(model, environ)


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        read(StreamingSettings, {"PORT": "x", "WEB_PROCESSES": "y"})
    assert "PORT" in str(refused.value)
    assert "WEB_PROCESSES" in str(refused.value)


def test_a_secret_is_never_repeated() -> None:
    with pytest.raises(SettingsError) as refused:
        read(StreamingSettings, {"SECRET_KEY": "hunter2"})
    assert "SECRET_KEY" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("model", "environ"), [(StreamingSettings, {"HOST": "0.0.0.0"}), (ApiSettings, {"HISTORY_API_HOST": "0.0.0.0"})]
)
def test_the_development_secret_is_refused_outside_loopback(model: type, environ: dict[str, str]) -> None:
    database = {"DATABASE_URL": "postgresql://localhost/x"}
    with pytest.raises(SettingsError, match="must be set to listen on"):
        read(model, {**environ, **database})
    read(model, {**environ, **database, **SECRETS})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SECRET_KEY", "change-me-secret-key"),
        ("AMQP_URL", "amqp://streaming-app:change-me-streaming-app@rabbitmq:5672//"),
        ("FLOWER_BASIC_AUTH", "flixtrail:change-me-flower"),  # read by Flower, and by no setting of ours
    ],
)
def test_a_development_default_is_refused_once_it_can_be_reached_from_elsewhere(variable: str, value: str) -> None:
    environ = {**SECRETS, "HOST": "0.0.0.0", variable: value}
    with pytest.raises(SettingsError, match=f"{variable} must be set to listen on 192.0.2.1") as refused:
        read(StreamingSettings, {**environ, "PUBLISHED_ON": "192.0.2.1"})
    assert "change-me" not in str(refused.value)
    # In a container it listens on 0.0.0.0, and only this machine reaches it.
    read(StreamingSettings, {**environ, "PUBLISHED_ON": "127.0.0.1"})


def test_a_service_without_a_page_refuses_development_defaults_too() -> None:
    url = "postgresql://writer:change-me-writer@postgres/flixtrail"
    with pytest.raises(SettingsError, match="DATABASE_URL must be set"):
        read(DatabaseSettings, {"DATABASE_URL": url, "PUBLISHED_ON": "0.0.0.0"})
    read(DatabaseSettings, {"DATABASE_URL": url})


def test_a_database_url_is_taken_as_postgresql_writes_it() -> None:
    url = read(DatabaseSettings, {"DATABASE_URL": "postgresql://me@/x?host=/run/pg"}).database_url
    assert url == "postgresql://me@/x?host=/run/pg"


def test_an_empty_variable_counts_as_absent() -> None:
    assert read(StreamingSettings, {"PORT": "", "VIDEOS": ""}).port == 8000
