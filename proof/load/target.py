"""Finds the target of the load, and a token for it. The target is on this machine, unless ALLOW_REMOTE is set."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import urllib3

from local.errors import NotRunning
from local.state import State
from proof.load.receipts import HttpReceipts, NoReceipt, TokenRefused
from service.settings import DEVELOPMENT_SECRET
from streaming_app.access.auth import Tokens

DEFAULT_URL = "http://127.0.0.1:8000"
#: The default SECRET_KEY of docker-compose.yml.
COMPOSE_SECRET = "change-me-secret-key"  # noqa: S105 (it stands in docker-compose.yml)
TIMEOUT_S = 5.0


class NoTarget(click.ClickException):
    """The load cannot start. The message names the address and says what to do. Ends the program with status 1."""


@dataclass(frozen=True, slots=True)
class Target:
    """A streaming app that answers, and an ingest token that it accepts."""

    url: str
    ingest_token: str

    @property
    def receipt_source(self) -> HttpReceipts:
        return HttpReceipts(self.url, self.ingest_token)


def find(environ: Mapping[str, str]) -> Target:
    """Find the target that the environment names: HOST, STATE, INGEST_TOKEN, SECRET_KEY, ALLOW_REMOTE.

    Raises NoTarget if nothing answers, if it is another machine, or if no token is accepted.
    """
    demo = _demo(Path(environ.get("STATE") or "var"))
    url = _url(environ.get("HOST") or demo.get("web", {}).get("url") or DEFAULT_URL)
    local = is_loopback(url)
    if not local and environ.get("ALLOW_REMOTE") != "1":
        raise NoTarget(
            f"{url} is not this machine, and this is a load test. If it is yours and you mean it: ALLOW_REMOTE=1."
        )
    _ready(url)
    demo_key = demo.get("secret_key") if local else None
    return Target(url, _accepted(url, _ingest_tokens(environ, demo_key, local=local)))


def is_loopback(url: str) -> bool:
    """Return whether every address of its host is an address of this machine."""
    try:
        found = socket.getaddrinfo(urlsplit(url).hostname, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)


def _url(host: str) -> str:
    url = host if "://" in host else f"http://{host}"
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise NoTarget(f"HOST: {host!r} is no address; expected something like {DEFAULT_URL}.")
    return f"{parts.scheme}://{parts.netloc}"


def _demo(state: Path) -> dict[str, Any]:
    """Return the addresses and keys of the running demo; {} if none runs."""
    try:
        return State(state).read()
    except NotRunning:
        return {}


def _ready(url: str) -> None:
    try:
        answer = urllib3.request("GET", f"{url}/readyz", timeout=TIMEOUT_S, retries=False)
    except urllib3.exceptions.HTTPError as error:
        raise NoTarget(
            f"Nothing answers at {url} ({type(error).__name__}). Start it with `make demo`, or name another with HOST."
        ) from None
    if answer.status != HTTPStatus.OK:
        said = answer.data[:200].decode(errors="replace").strip()
        raise NoTarget(f"{url}/readyz says that no views can be recorded: status {answer.status}, {said}")


def _ingest_tokens(environ: Mapping[str, str], demo_key: str | None, *, local: bool) -> Iterator[str]:
    """Yield tokens to try, the most specific first. Tokens that are only for this machine are never sent to another."""
    if token := environ.get("INGEST_TOKEN"):
        yield token
        return
    keys = [demo_key, environ.get("SECRET_KEY")]
    if local:
        keys += [_dotenv("SECRET_KEY"), COMPOSE_SECRET, DEVELOPMENT_SECRET]
    for key in filter(None, keys):
        yield Tokens(key).ingest()


def _dotenv(name: str) -> str | None:
    """Read a value from the file .env, which compose uses for its variables."""
    try:
        lines = Path(".env").read_text().splitlines()
    except OSError:
        return None
    values = [line.partition("=")[2].strip().strip("'\"") for line in lines if line.startswith(f"{name}=")]
    return values[-1] if values else None


def _accepted(url: str, tokens: Iterator[str]) -> str:
    """Return the first token that the app accepts as an ingest token."""
    refusal = "there is none"
    for token in tokens:
        try:
            HttpReceipts(url, token).ask([])
        except TokenRefused as reason:
            refusal = str(reason)
            continue
        except NoReceipt:
            pass  # the history is away: recording works without it, and it may be back later
        return token
    raise NoTarget(
        f"No ingest token for {url}: {refusal}. "
        "Set INGEST_TOKEN (`flixtrail token --ingest` prints one), or SECRET_KEY."
    )
