"""Settings: the environment, read once at the start and checked; a wrong value stops the start with its name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from kombu.utils.url import maybe_sanitize_url
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

#: Good for one machine that talks to itself, as `docker run rabbitmq` and RabbitMQ itself come.
DEFAULT_AMQP_URL = "amqp://guest:guest@127.0.0.1:5672//"


LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
#: The default outside of containers. Known to everybody who has read this line, so it is refused as soon as a service
#: can be reached from beyond this machine; so is whatever has the mark of docker-compose.yml's defaults.
DEVELOPMENT_SECRET = "development-only-secret"  # noqa: S105 (see above)
DEVELOPMENT_MARK = "change-me-"
#: Variables whose value no message repeats.
SECRET_ENDINGS = ("_KEY", "_TOKEN", "PASSWORD")


class SettingsError(Exception):
    """An environment variable has a value that cannot be used: names it, the value and what was expected.

    Raised by `read` at the start of a program, which prints it and exits with status 2.
    """


class Settings(BaseModel):
    """Base of every service's settings: frozen; the field `amqp_url` is read from the variable AMQP_URL."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    #: From where the service can be reached, when that is not what it listens on: a container listens on 0.0.0.0 and is
    #: published on an address of its host.
    published_on: str | None = None

    def listens_on(self) -> str:
        """The address that the service itself listens on."""
        return "127.0.0.1"


S = TypeVar("S", bound=Settings)


def read(model: type[S], environ: Mapping[str, str] | None = None) -> S:
    """The settings of one service from the environment (an empty variable counts as absent).

    Raises SettingsError that names every variable that is missing or wrong.
    """
    environ = os.environ if environ is None else environ
    names = {name: name.upper() for name in model.model_fields}
    values = {name: environ[var] for name, var in names.items() if environ.get(var)}
    try:
        settings = model.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(map(_sentence, error.errors()))) from None
    where = settings.published_on or settings.listens_on()
    if where not in LOOPBACK and (known := sorted(_development_secrets(settings, environ))):
        raise SettingsError(
            f"{' and '.join(known)} must be set to listen on {where}: everybody knows the development default. "
            "`make secrets` writes random ones into .env"
        )
    return settings


def _development_secrets(settings: Settings, environ: Mapping[str, str]) -> set[str]:
    """The variables that have a development default, wherever in their value: also a password in a URL.

    All of the environment is looked through, since a library may read what no setting of ours names.
    """
    named = {name.upper(): str(value) for name, value in settings}
    return {
        name for name, value in {**environ, **named}.items() if DEVELOPMENT_SECRET in value or DEVELOPMENT_MARK in value
    }


def _sentence(error: Any) -> str:
    name = str(error["loc"][0]).upper() if error["loc"] else "settings"
    if error["type"] == "missing":
        return f"{name} is not set: {error['msg'].lower()}"
    shown = "its value" if name.endswith(SECRET_ENDINGS) else repr(maybe_sanitize_url(error["input"]))
    return f"{name}: {shown} is not usable: {error['msg'].removeprefix('Value error, ')}"


def _broker_url(url: str) -> str:
    if url.split("://", 1)[0] not in {"amqp", "amqps", "pgmq"} or "://" not in url:
        raise ValueError("expected amqp://user:password@host:port/vhost (or pgmq://... in learner mode)")
    return url


def _database_url(url: str) -> str:
    scheme, found, rest = url.partition("://")
    if not found or scheme not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ValueError("expected postgresql://user:password@host:port/database")
    return f"postgresql+psycopg://{rest}"


BrokerUrl = Annotated[str, AfterValidator(_broker_url)]
#: Written as PostgreSQL writes it, kept as SQLAlchemy wants it.
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
Port = Annotated[int, Field(ge=1, le=65535)]


class BrokerSettings(Settings):
    """Where the messages go; read by `celeryconfig.py` for every service."""

    amqp_url: BrokerUrl = DEFAULT_AMQP_URL
