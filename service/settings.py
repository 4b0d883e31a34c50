"""Reads settings from the environment once, at the start, and checks them.

A wrong value stops the start with its name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from service import addresses

#: RabbitMQ's own default, as `docker run rabbitmq` has it: for one machine that talks to itself.
DEFAULT_AMQP_URL = "amqp://guest:guest@127.0.0.1:5672//"

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
#: The default outside of containers. Everybody who has read this line knows it. So it is refused if a service can be
#: reached from another machine. The same holds for every value with the mark of docker-compose.yml's defaults.
DEVELOPMENT_SECRET = "development-only-secret"  # noqa: S105 (see above)
DEVELOPMENT_MARK = "change-me-"
#: Endings of the variables whose value no message repeats.
SECRET_ENDINGS = ("_KEY", "_TOKEN", "PASSWORD")
#: A line break adds a header or a line. The last range is how Python represents bytes that are not UTF-8.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: How much of a wrong value a message shows.
SHOWN_CHARACTERS = 100
HTTP_URL = re.compile(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?(?:/[^\s?#@\\]*)?")
HOST = re.compile(r"[A-Za-z0-9._:%-]{1,253}")
TOKEN = re.compile(r"[\x21-\x7e]+")


class SettingsError(Exception):
    """An environment variable has an invalid value. The message has its name, the value and what was expected.

    `read` raises it at the start of a program. The program prints it and exits with status 2.
    """


class Settings(BaseModel):
    """The base of every service's settings. Frozen. The field `amqp_url` is read from the variable AMQP_URL."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    #: The address at which the service can be reached, if it is not the one that it listens on. A container listens on
    #: 0.0.0.0 and is published on an address of its host.
    published_on: str | None = None

    def listens_on(self) -> str:
        """Return the address that the service itself listens on."""
        return "127.0.0.1"


S = TypeVar("S", bound=Settings)


def read(model: type[S], environ: Mapping[str, str] | None = None) -> S:
    """Read the settings of one service from the environment. An empty variable counts as absent.

    Spaces around a value are dropped, except in a secret. Raises SettingsError, which names every variable that is
    missing or wrong.
    """
    environ = os.environ if environ is None else environ
    values, wrong = {}, []
    for name in model.model_fields:
        variable = name.upper()
        value = environ.get(variable) or ""
        if not is_secret(variable):
            value = value.strip()
        if UNPRINTABLE.search(value):
            wrong.append(f"{variable}: its value is not usable: expected UTF-8 without control characters")
        elif value:
            values[name] = value
    if wrong:
        raise SettingsError("\n".join(wrong))
    try:
        settings = model.model_validate(values)
    except ValidationError as error:
        # If a value may be one of several types, there is an error for each type. The first one is enough.
        first: dict[object, Any] = {}
        for fault in error.errors():
            first.setdefault(fault["loc"][:2], fault)
        raise SettingsError("\n".join(map(_sentence, first.values()))) from None
    except OSError as error:  # a path that the system refuses: a name of more than 255 bytes
        named = next((name.upper() for name, value in values.items() if value == error.filename), "settings")
        raise SettingsError(f"{named}: its value is not usable: {error.strerror}") from None
    where = settings.published_on or settings.listens_on()
    if where not in LOOPBACK and (known := sorted(_development_secrets(settings, environ))):
        raise SettingsError(
            f"{' and '.join(known)} must be set to listen on {where}: everybody knows the development default. "
            "`make secrets` writes random ones into .env"
        )
    return settings


def is_secret(variable: str) -> bool:
    """Return whether messages must not repeat the variable's value."""
    return variable.endswith(SECRET_ENDINGS)


def _development_secrets(settings: Settings, environ: Mapping[str, str]) -> set[str]:
    """Return the variables whose value contains a development default, for example as the password in a URL.

    Checks the whole environment, because a library may read a variable that is not one of our settings.
    """
    named = {name.upper(): str(value) for name, value in settings}
    return {
        name for name, value in {**named, **environ}.items() if DEVELOPMENT_SECRET in value or DEVELOPMENT_MARK in value
    }


def _sentence(error: Any) -> str:
    name = str(error["loc"][0]).upper() if error["loc"] else "settings"
    if error["type"] == "missing":
        return f"{name} is not set: {error['msg'].lower()}"
    value = str(error["input"])
    # In a malformed address, every part behind a colon or before an @ may belong to the password.
    hidden = is_secret(name) or "@" in value or (name.endswith("_URL") and ":" in value.replace("://", "", 1))
    shown = "its value" if hidden else repr(value if len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + "…")
    return f"{name}: {shown} is not usable: {error['msg'].removeprefix('Value error, ')}"


def _broker_url(url: str, info: ValidationInfo) -> str:
    files = {
        parameter: str(info.data[name])
        for parameter, name in (
            ("cacertfile", "amqp_ca_file"),
            ("certfile", "amqp_cert_file"),
            ("keyfile", "amqp_key_file"),
        )
        if info.data.get(name)
    }
    return addresses.broker_url(url, info.data.get("amqp_password"), files)


def _database_url(url: str, info: ValidationInfo) -> str:
    # The administrator's address has its own password.
    own = info.field_name == "database_url"
    return addresses.database_url(url, info.data.get("database_password") if own else None)


def _http_url(url: str) -> str:
    parts = HTTP_URL.fullmatch(url)
    if parts is None or not 1 <= int(parts["port"] or 1) <= addresses.MAX_PORT:
        raise ValueError("expected http://host:port (or https://), without user, password and query")
    return url


def _host(host: str) -> str:
    if not HOST.fullmatch(host):
        raise ValueError("expected a name or an address of this machine, such as 127.0.0.1 or 0.0.0.0, without a port")
    return host


def _token(token: str) -> str:
    if not TOKEN.fullmatch(token):
        raise ValueError("expected letters, digits and signs of ASCII, without blanks: it is sent in an HTTP header")
    return token


#: The complete address, also if it came in parts. In a class, the fields for its password and files must come first.
BrokerUrl = Annotated[str, AfterValidator(_broker_url)]
#: An address that libpq accepts.
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
#: The address that a service listens on.
Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[int, Field(ge=1, le=addresses.MAX_PORT)]
#: A secret that two of our services share. It is sent in a header.
Token = Annotated[str, Field(min_length=16, max_length=1_000), AfterValidator(_token)]


class BrokerParts(Settings):
    """The parts of the broker's address that need no quoting here. Subclasses have `amqp_url`."""

    amqp_password: str | None = None
    #: For amqps://: the CA of the broker's certificate (None: the CAs that the system knows), and a certificate of
    #: ours.
    amqp_ca_file: Path | None = None
    amqp_cert_file: Path | None = None
    amqp_key_file: Path | None = None


class BrokerSettings(BrokerParts):
    """The broker's address. `celeryconfig.py` reads it for every service."""

    amqp_url: Annotated[BrokerUrl, Field(validate_default=True)] = DEFAULT_AMQP_URL
