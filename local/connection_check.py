"""Checks that the configured broker and database can be reached, before anything is started. Takes seconds.

Without this check, a demo on your own servers waits for them forever, as a service in production does.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

from local.errors import ServerUnreachable
from local.settings import DemoSettings

#: Seconds for one attempt to connect. A server on another continent answers within one.
CONNECT_TIMEOUT_S = 3
#: Seconds for all attempts: a name may have several addresses, and a server may accept a connection and never answer.
TOTAL_TIMEOUT_S = 4.5


def check(settings: DemoSettings) -> None:
    """Connect to the servers that the demo does not start. Raises ServerUnreachable."""
    if settings.amqp_url:
        broker(settings.amqp_url)
    if settings.database_url:
        database("DATABASE_URL", settings.database_url.replace("postgresql+psycopg:", "postgresql:", 1))


def broker(url: str) -> None:
    """Connect, and declare what every worker declares, so that missing permissions are found now.

    Raises ServerUnreachable.
    """
    from celery import Celery

    from service import connection_advice
    from service.addresses import connection_options
    from view_events import topology

    if not topology.is_amqp(url):
        database("AMQP_URL", url, topology.messages_database(url))
        return
    celery = Celery(set_as_current=False)
    celery.config_from_object("celeryconfig")
    address, tls = connection_options(url)
    connection = celery.connection_for_write(
        address,
        ssl=tls,
        heartbeat=0,
        connect_timeout=CONNECT_TIMEOUT_S,
        transport_options={"read_timeout": CONNECT_TIMEOUT_S, "write_timeout": CONNECT_TIMEOUT_S},
    )

    def ask() -> None:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
            topology.declare(connection)
        except Exception as error:
            if connection_advice.advice(error, tls=bool(tls)):
                raise ConnectionError(connection_advice.why(error, tls=bool(tls))) from error
            raise
        finally:
            connection.collect(socket_timeout=0.1)

    _within(ask, "AMQP_URL", address)


def database(variable: str, url: str, conninfo: str = "") -> None:
    """Connect. `conninfo`: the address for PostgreSQL's library. Raises ServerUnreachable."""
    import psycopg

    def ask() -> None:
        psycopg.connect(conninfo or url, connect_timeout=CONNECT_TIMEOUT_S).close()

    _within(ask, variable, url)


def _within(ask: Callable[[], None], variable: str, url: str) -> None:
    """Run the check. Raises ServerUnreachable with the server's own words, at the latest after TOTAL_TIMEOUT_S."""
    failed: list[BaseException] = []

    def asking() -> None:
        try:
            ask()
        except Exception as error:  # noqa: BLE001 (the caller reports it, whatever it is)
            failed.append(error)

    thread = threading.Thread(target=asking, daemon=True)
    thread.start()
    thread.join(TOTAL_TIMEOUT_S)
    if thread.is_alive():
        raise ServerUnreachable(f"{variable}: {without_password(url)} does not answer within {TOTAL_TIMEOUT_S} s")
    if failed:
        raise ServerUnreachable(f"{variable}: {without_password(url)}: {reason(failed[0], url)}") from None


def reason(error: BaseException, url: str) -> str:
    """Return what the server or the system said, on one line, without a password."""
    message: Any = getattr(error, "reply_text", None)  # RabbitMQ's own words
    if not message and isinstance(error, TimeoutError):
        message = f"no answer within {CONNECT_TIMEOUT_S} s"
    if not message and isinstance(error, OSError):
        message = error.strerror
    text = " ".join(str(message or error or type(error).__name__).split())
    return _hidden(text, url)


def without_password(url: str) -> str:
    """Return the address without any part of the password, even if the password contains forbidden characters."""
    url = re.sub(r"//(?:[^:@/]*:)?.*@", lambda found: _user_only(found[0]), url)
    return re.sub(r"(password=)[^&]*", r"\1***", url)


def _user_only(authority: str) -> str:
    user, colon, _ = authority.removesuffix("@").removeprefix("//").partition(":")
    return f"//{user}:***@" if colon else f"//{user}@"


def _hidden(text: str, url: str) -> str:
    """Hide the password. A library may have misread one with reserved characters, and repeat a part of it as a host."""
    secrets = re.findall(r"//[^:@/]*:(.*)@|password=([^&]*)", url)
    whole = {secret for found in secrets for secret in found}
    pieces = {piece for secret in whole for piece in re.split(r"[@/?#:]", secret)}
    for piece in sorted((whole | pieces) - {""}, key=len, reverse=True):
        if len(piece) > 2:  # noqa: PLR2004 (a letter is in every word)
            text = text.replace(piece, "***")
    return text
