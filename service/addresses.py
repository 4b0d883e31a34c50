"""Checks the addresses of the broker and of PostgreSQL once, at the start, and completes them.

An address may come in parts: AMQP_URL without a password, and the password in AMQP_PASSWORD, where no character needs
quoting. The functions here return one URL with all parts. No error message repeats a part: in a malformed address,
every part may belong to the password.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import psycopg
from kombu import Connection
from psycopg.conninfo import conninfo_to_dict

EXPECTED_BROKER = (
    "expected amqp://user:password@host:port/vhost (amqps:// with TLS; pgmq:// in learner mode). In a user name or "
    "password write / ? # % as %2F %3F %23 %25, or leave the password out and set AMQP_PASSWORD"
)
EXPECTED_DATABASE = (
    "expected postgresql://user:password@host:port/database. In a user name or password write / @ % as %2F %40 %25, or "
    "leave the password out and set DATABASE_PASSWORD"
)

_SCHEME = re.compile(r"(?P<scheme>[a-z+]+)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:@%,;\[\]]+)(?::(?P<port>[0-9]{1,5}))?")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
MAX_PORT = 65_535

#: The parameters that may follow the `?` of an amqps:// address: each accepted name, and its standard name.
#: https://www.rabbitmq.com/docs/uri-query-parameters
_TLS_NAMES = {
    "cacertfile": "cacertfile",
    "cafile": "cacertfile",
    "certfile": "certfile",
    "keyfile": "keyfile",
    "server_name_indication": "server_name_indication",
    "verify": "verify",
}

#: libpq's names of files that it reads. They are checked here, because libpq reports a missing file like an outage.
_DATABASE_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
#: Seconds. A worker that waits for longer misses its heartbeats.
MAX_CONNECT_TIMEOUT_S = 8


def broker_url(url: str, password: str | None = None, tls: Mapping[str, str] | None = None) -> str:
    """Return the complete address of the broker, quoted as a URL. `tls`: cacertfile, certfile, keyfile.

    Raises ValueError. Its message repeats no part of the address.
    """
    if url.startswith("pgmq://"):
        return _pgmq_url(url, password)
    addresses = [_one_broker(one, password, tls or {}) for one in url.split(";")]
    if len(addresses) > 1 and any(address.startswith("amqps") for address in addresses):
        raise ValueError("several addresses, separated by semicolons, are for amqp:// only; " + EXPECTED_BROKER)
    return ";".join(addresses)


def _one_broker(url: str, password: str | None, files: Mapping[str, str]) -> str:
    parts = _SCHEME.fullmatch(url)
    if parts is None or parts["scheme"] not in {"amqp", "amqps"}:
        raise ValueError(EXPECTED_BROKER)
    userinfo, has_user, where = parts["authority"].rpartition("@")
    user, has_password, own_password = userinfo.partition(":")
    host = _HOST.fullmatch(where)
    if host is None or (host["port"] and not 1 <= int(host["port"]) <= MAX_PORT):
        raise ValueError("it has no host, or its port is not a number from 1 to 65535; " + EXPECTED_BROKER)
    path = parts["path"] or ""
    if _BAD_PERCENT.search(userinfo + path) or "@" in path or ":" in path:
        raise ValueError("a character in its password or virtual host is not quoted; " + EXPECTED_BROKER)
    if password is not None:
        if not user or (has_password and unquote(own_password) != password):
            raise ValueError(
                "AMQP_PASSWORD is set: expected a user name and no password in this address, "
                "as in amqp://user@host:port/vhost"
            )
        has_password, own_password = ":", quote(password, safe="")
    who = quote(unquote(user), safe="")
    if has_password:
        who += ":" + quote(unquote(own_password), safe="")
    options = _tls(parts["scheme"], parts["query"], files)
    virtual_host = quote(unquote(path[1:]), safe="/")
    return (
        f"{parts['scheme']}://{who}{has_user}{where}/{virtual_host}"
        + ("?" if options else "")
        + urlencode(options, safe="/")
    )


def _tls(scheme: str, query: str | None, files: Mapping[str, str]) -> dict[str, str]:
    """Return the certificate files, from the address and from their own variables. Reads each once, now."""
    try:
        given = parse_qsl(query or "", keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        given = [("", "")]
    if not all(name in _TLS_NAMES and value for name, value in given):
        raise ValueError(
            "after its ? only cacertfile, certfile, keyfile, server_name_indication and verify=verify_peer are known; "
            + EXPECTED_BROKER
        )
    options: dict[str, str] = {}
    for name, value in [*((_TLS_NAMES[name], value) for name, value in given), *files.items()]:
        if options.setdefault(name, value) != value:
            raise ValueError(f"{name} is given twice, with different values")
    if options.pop("verify", "verify_peer") != "verify_peer":
        raise ValueError(
            "the broker's certificate is always verified: expected verify=verify_peer, or no verify. If the broker has "
            "a certificate of your own, give its CA as cacertfile (or AMQP_CA_FILE)"
        )
    if options and scheme != "amqps":
        raise ValueError("AMQP_CA_FILE, AMQP_CERT_FILE and AMQP_KEY_FILE are for an address with amqps://")
    if "keyfile" in options and "certfile" not in options:
        raise ValueError("keyfile (AMQP_KEY_FILE) needs certfile (AMQP_CERT_FILE)")
    _read_certificates(options)
    return options


def _read_certificates(options: Mapping[str, str]) -> None:
    """Check the certificate files. Raises ValueError for a file that is missing, unreadable or not PEM.

    Without this check, every connect fails.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if "cacertfile" in options:
            context.load_verify_locations(options["cacertfile"])
    except OSError as error:
        raise ValueError(f"cacertfile (AMQP_CA_FILE): {_why(error)}") from None
    try:
        if "certfile" in options:
            context.load_cert_chain(options["certfile"], options.get("keyfile"), password=lambda: b"none")
    except OSError as error:
        raise ValueError(f"certfile and keyfile (AMQP_CERT_FILE, AMQP_KEY_FILE): {_why(error)}") from None


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "expected PEM files, a key that belongs to the certificate, and a key without a passphrase"
    return f"cannot read the file: {error.strerror}"


def connection_options(url: str) -> tuple[str, dict[str, Any] | bool]:
    """Return what kombu and Celery need: the address without its `?` and the rest, and their `ssl` option.

    The broker's certificate must be for the host of the address, and a known CA must have signed it. `url` is a result
    of `broker_url`.
    """
    if not url.startswith("amqps://"):
        return url, False
    address, _, query = url.partition("?")
    options = dict(parse_qsl(query))
    parts = _SCHEME.fullmatch(address)
    assert parts is not None  # noqa: S101 (`broker_url` has checked that)
    host = _HOST.fullmatch(parts["authority"].rpartition("@")[2])
    assert host is not None  # noqa: S101
    return address, {
        "ca_certs": options.get("cacertfile"),  # None: the system's CAs
        "certfile": options.get("certfile"),
        "keyfile": options.get("keyfile"),
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": options.get("server_name_indication") or host["host"].strip("[]"),
    }


def broker_connection(url: str, **options: Any) -> Connection:
    """Make a kombu connection; it is not open yet. `url` is a result of `broker_url`."""
    address, tls = connection_options(url)
    return Connection(address, ssl=tls, **options)


def _pgmq_url(url: str, password: str | None) -> str:
    parts = _SCHEME.fullmatch(url)
    host = parts and _HOST.fullmatch(unquote(parts["authority"].rpartition("@")[2]))
    if password is not None:
        raise ValueError("AMQP_PASSWORD is for amqp:// only; a pgmq:// address has its own password")
    if parts is None or host is None or parts["query"] or not 1 <= int(host["port"] or 1) <= MAX_PORT:
        raise ValueError("expected pgmq://user:password@host:port/database")
    return url


def database_url(url: str, password: str | None = None) -> str:
    """Return the complete address of PostgreSQL for libpq: `postgresql://`, with libpq's parameters behind the `?`.

    Raises ValueError. Its message repeats no part of the address.
    """
    scheme, found, rest = url.partition("://")
    if not found or scheme not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ValueError(EXPECTED_DATABASE)
    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(f"postgresql://{rest}").items()}
    except (psycopg.Error, UnicodeError):
        raise ValueError(
            "PostgreSQL's client does not understand it (a stray %, or a parameter that it does not know); "
            + EXPECTED_DATABASE
        ) from None
    _check_database(parts)
    if password is not None:
        if parts.setdefault("password", password) != password:
            raise ValueError("DATABASE_PASSWORD is set: expected no other password in this address")
        if "user" not in parts:
            raise ValueError("DATABASE_PASSWORD is set: expected a user name in this address, postgresql://user@host/…")
    return _database_uri(parts)


def _check_database(parts: Mapping[str, str]) -> None:
    hosts = parts.get("host", "").split(",")
    ports = parts.get("port", "").split(",")
    if not all(not port or (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= MAX_PORT) for port in ports):
        raise ValueError("a port in it is not a number from 1 to 65535; " + EXPECTED_DATABASE)
    if len(ports) not in {1, len(hosts)}:
        raise ValueError("it has more ports than hosts, or fewer: expected one for each, or one for all")
    if any(re.search(r"[@\s\[\]]", host) for host in hosts if not host.startswith("/")):
        raise ValueError("its host has an @, a blank or a stray bracket; " + EXPECTED_DATABASE)
    if re.search("[/@]", parts.get("dbname", "")) or "://" in parts.get("dbname", ""):
        raise ValueError("the name of its database has a / or an @; " + EXPECTED_DATABASE)
    for name in _DATABASE_FILES:
        file = parts.get(name)
        if file and not (name == "sslrootcert" and file == "system") and not Path(file).is_file():
            raise ValueError(f"{name}: expected a file that is there")
    timeout = parts.get("connect_timeout", "2")
    if not (timeout.isascii() and timeout.isdigit() and 1 <= int(timeout[:6]) <= MAX_CONNECT_TIMEOUT_S):
        raise ValueError(f"connect_timeout: expected whole seconds, from 1 to {MAX_CONNECT_TIMEOUT_S}")
    choices = {
        "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
        "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    }
    for name, known in choices.items():
        if parts.get(name, known[0]) not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}")
    settings_in(parts.get("options", ""))


def _database_uri(parts: dict[str, str]) -> str:
    """Make the URI. One host and its port come before the path; several hosts, or a socket, come behind the `?`."""
    rest = dict(parts)
    user, password, database = (rest.pop(name, "") for name in ("user", "password", "dbname"))
    who = (
        quote(user, safe="") + (f":{quote(password, safe='')}" if password else "") + ("@" if user or password else "")
    )
    where = ""
    host = rest.get("host", "")
    if host and not re.search("[,/@%]", host):
        del rest["host"]
        where = f"[{host}]" if ":" in host else host
        port = rest.pop("port", "")
        where += f":{port}" if port else ""
    query = urlencode(rest, safe="/", quote_via=quote)
    return f"postgresql://{who}{where}/{quote(database, safe='')}" + (f"?{query}" if query else "")


_OPTION = re.compile(r"(?:-c\s*|--)(?P<name>[A-Za-z_][\w.-]*)=(?P<value>.*)", re.DOTALL)


def settings_in(options: str) -> dict[str, str]:
    """Return the server settings in libpq's `options`: `-c name=value`, `-cname=value` or `--name=value`.

    In a value, a backslash comes before a blank. Raises ValueError for anything else.
    """
    words = [re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL) for word in re.findall(r"(?:\\.|\S)+", options)]
    settings: dict[str, str] = {}
    while words:
        word = words.pop(0)
        if word == "-c" and words:
            word += words.pop(0)
        option = _OPTION.fullmatch(word)
        if option is None:
            raise ValueError("options: expected settings of the server, as in options=-c%20search_path%3Dname")
        settings[option["name"].replace("-", "_")] = option["value"]
    return settings
