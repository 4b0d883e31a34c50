"""Addresses: any password works, also in pieces; what is malformed is named, and no piece of a secret is repeated."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kombu import Connection
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import make_url

from history_worker.settings import ApiSettings, DatabaseSettings, WorkerSettings
from local.settings import DemoSettings
from service import database
from service.addresses import broker_url, connection_options, database_url, settings_in
from service.settings import BrokerSettings, Settings, SettingsError, read
from streaming_app.settings import StreamingSettings
from view_events.event import Kind

ROOT = Path(__file__).parents[2]
PRINTABLE = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"]) | st.sampled_from("/@:?#%$'\"\\ ,;&=+[]"), min_size=1, max_size=40
)


@given(PRINTABLE)
def test_any_password_reaches_the_broker_and_the_database(password: str) -> None:
    url = read(BrokerSettings, {"AMQP_URL": "amqp://me@rabbitmq:5672//", "AMQP_PASSWORD": password}).amqp_url
    with Connection(url) as connection:
        assert (connection.userid, connection.password) == ("me", password)
        assert (connection.hostname, connection.port, connection.virtual_host) == ("rabbitmq", 5672, "/")
    url = read(DatabaseSettings, {"DATABASE_URL": "postgresql://me@h:1/x", "DATABASE_PASSWORD": password}).database_url
    assert conninfo_to_dict(url) == {"user": "me", "password": password, "host": "h", "port": "1", "dbname": "x"}
    assert make_url(url).password == password


SECRET = "Summer2026"
MODELS: dict[str, tuple[type[Settings], dict[str, str]]] = {
    "AMQP_URL": (BrokerSettings, {}),
    "DATABASE_URL": (DatabaseSettings, {}),
    "HISTORY_API_URL": (StreamingSettings, {}),
}


@pytest.mark.parametrize("variable", MODELS)
@pytest.mark.parametrize(
    "address",
    [
        "amqp://me:Summer2026/x@h:5672//",
        "amqp://me:#Summer2026@h//",
        "amqp://me:1?Summer2026@h//",
        "amqp://me:1/Summer2026@h//",
        "amqp://me:100%Summer2026@h//",
        "amqp://me:Summer2026",
        "amqp:/me:Summer2026@h",
        "me:Summer2026@h",
        "amqps://me:Summer2026@h:x//",
        "amqp://me:Summer2026@/",
        "amqp://me:Summer2026@h:0/",
        "amqp://me:Summer2026@h:65536/",
        "amqp://me:Summer2026@h//?heartbeat=3",
        "pgmq://me:Summer2026@h:x/y",
        "postgresql://me:Summer2026/x@h/d",
        "postgresql://me:1/Summer2026@h/d",
        "postgresql://me:1@Summer2026@h/d",
        "postgresql://me:100%Summer2026@h/d",
        "postgresql://me:Summer2026@h:x/d",
        "postgresql://me:Summer2026@h/d?nonsense=1",
        "http://me:Summer2026@h",
        "http://",
        "http://h:0",
    ],
)
def test_a_malformed_address_is_named_and_nothing_of_it_is_repeated(variable: str, address: str) -> None:
    model, more = MODELS[variable]
    with pytest.raises(SettingsError) as refused:
        read(model, {variable: address, **more})
    said = str(refused.value)
    assert said.startswith(f"{variable}: ")
    assert "expected" in said
    assert SECRET not in said
    assert len(said.splitlines()) == 1


@given(st.text("/@:?#%[];,&= a1", max_size=30))
@example("@ [")
def test_whatever_stands_in_an_address_it_starts_or_is_named(text: str) -> None:
    for variable, scheme in (("AMQP_URL", "amqp"), ("DATABASE_URL", "postgresql"), ("HISTORY_API_URL", "http")):
        model, more = MODELS[variable]
        try:
            settings = read(model, {variable: f"{scheme}://me:{SECRET}{text}", **more})
        except SettingsError as error:
            assert str(error).startswith(variable)
            assert SECRET not in str(error)
        else:
            url = getattr(settings, variable.lower())
            if variable == "AMQP_URL":
                Connection(url)
            elif variable == "DATABASE_URL":
                database.connect(url, pool_size=1).dispose()


@pytest.mark.parametrize(
    ("variable", "value", "model"),
    [
        ("HISTORY_API_TOKEN", "x" * 20 + "\nX: y", StreamingSettings),
        ("HISTORY_API_TOKEN", "비밀" * 20, ApiSettings),
        ("SECRET_KEY", "x" * 20 + "\udcff", StreamingSettings),
        ("HOLD_S", "inf", WorkerSettings),
        ("HOLD_S", "nan", WorkerSettings),
        ("HOLD_S", "1e308", WorkerSettings),
        ("TOGETHER_BYTES", "9" * 30, WorkerSettings),
        ("OUTBOX_BYTES", "9" * 30, StreamingSettings),
        ("BEHIND_PROXY", "perhaps", StreamingSettings),
        ("METRICS_HOST", "a b", WorkerSettings),
        ("HOST", "127.0.0.1/8", StreamingSettings),
        ("PORT", "0", StreamingSettings),
        ("PORT", "65536", StreamingSettings),
        ("PORT", "-1", DemoSettings),
        ("AMQP_PASSWORD", "x", BrokerSettings),  # beside a password in the address
        ("AMQP_CA_FILE", "/nowhere", BrokerSettings),
    ],
)
def test_a_value_that_cannot_work_stops_the_start(variable: str, value: str, model: type[Settings]) -> None:
    database = {"DATABASE_URL": "postgresql://localhost/x", "AMQP_URL": "amqp://a:b@h//"}
    with pytest.raises(SettingsError, match=variable):
        read(model, {**database, variable: value})


@pytest.mark.parametrize("model", [StreamingSettings, WorkerSettings, ApiSettings, BrokerSettings, DemoSettings])
@given(data=st.data())
def test_every_setting_takes_a_value_or_is_named(model: type[Settings], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(model.model_fields))).upper()
    value = data.draw(
        st.text(max_size=40)
        | st.sampled_from(["nan", "inf", "-1", "0", "65536", " ", "1e400", "9" * 5_000, "\x00", "true", "/etc/passwd"])
    )
    required = {"DATABASE_URL": "postgresql:///x"} if model in {WorkerSettings, ApiSettings} else {}
    try:
        read(model, {**required, name: value})
    except SettingsError as error:
        # A password or a certificate may be what is wrong with the address that it belongs to.
        assert name in str(error) or name in {"PUBLISHED_ON", "HOST", "HISTORY_API_HOST"}


def test_blanks_around_a_value_are_dropped_but_not_those_of_a_password() -> None:
    assert read(StreamingSettings, {"PORT": " 8100 "}).port == 8100
    url = read(BrokerSettings, {"AMQP_URL": " amqp://me@h// ", "AMQP_PASSWORD": " x "}).amqp_url
    assert Connection(url).password == " x "


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ("postgres://me@h/x", "postgresql://me@h/x"),
        ("postgresql://me@h1:5432,h2:5433/x?target_session_attrs=read-write",
         "postgresql://me@/x?host=h1%2Ch2&port=5432%2C5433&target_session_attrs=read-write"),
        ("postgresql://me@%2Frun%2Fpg/x", "postgresql://me@/x?host=/run/pg"),
        ("postgresql://m%40e:p%2Fw@[::1]:5/d%20b?sslmode=require", "postgresql://m%40e:p%2Fw@[::1]:5/d%20b?sslmode=require"),
    ],
)  # fmt: skip
def test_a_database_is_named_as_libpq_does(given: str, whole: str) -> None:
    assert database_url(given) == whole
    assert conninfo_to_dict(database_url(given)) == conninfo_to_dict(given)
    database.connect(given, pool_size=1).dispose()


def test_options_of_an_address_are_settings() -> None:
    given = r"-c search_path=a,b -cwork_mem=8MB --lock-timeout=5 -c DateStyle=ISO,\ MDY"
    assert settings_in(given) == {
        "search_path": "a,b", "work_mem": "8MB", "lock_timeout": "5", "DateStyle": "ISO, MDY"
    }  # fmt: skip
    with pytest.raises(ValueError, match="expected settings"):
        settings_in("-W 5")


def test_certificates_need_tls_and_verification_stays_on() -> None:
    assert connection_options(broker_url("amqp://a:b@h//")) == ("amqp://a:b@h//", False)
    address, tls = connection_options(broker_url("amqps://a:b@rabbit.example:5671//"))
    assert address == "amqps://a:b@rabbit.example:5671//"
    assert isinstance(tls, dict)
    assert tls["server_hostname"] == "rabbit.example"
    for url in ("amqp://a:b@h//?cacertfile=/x", "amqps://a:b@h//?verify=verify_none", "amqps://a@h//?keyfile=/x"):
        with pytest.raises(ValueError, match=r"amqps|verify|certfile"):
            broker_url(url)


def test_the_streaming_app_may_publish_every_kind_in_compose() -> None:
    definitions = json.loads((ROOT / "deploy/rabbitmq/definitions.json").read_text())
    (permission,) = definitions["topic_permissions"]
    kinds = re.fullmatch(r"\^view\(\\\.\((.*)\)\)\+\$", permission["write"])
    assert kinds is not None
    assert sorted(kinds[1].split("|")) == sorted(get_args(Kind))


def test_no_secret_of_compose_is_pasted_into_an_address_and_images_are_pinned() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"://[^\s]*\$\{[A-Z_]*PASSWORD", compose)
    images = re.findall(r"^    image: (.*)$", compose, re.MULTILINE)
    assert images
    for image in images:
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-management)?\}?$", image), image
