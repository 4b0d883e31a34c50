"""The streaming app's settings."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, DirectoryPath, Field

from service.logs import LogSettings
from service.settings import DEVELOPMENT_SECRET, Host, HttpUrl, Port, Token
from streaming_app.access.revocation import ID
from streaming_app.videos.video_reader import MEMORY_BYTES

#: A number. 0 means "no limit".
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
HOST_NAME = re.compile(r"\*|\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def _host_names(value: object) -> object:
    names = value.replace(",", " ").split() if isinstance(value, str) else value
    if isinstance(names, list) and not all(HOST_NAME.fullmatch(name) for name in names):
        raise ValueError("expected names without scheme, port or path, such as films.example.org,.example.net")
    return names


HostNames = Annotated[tuple[str, ...], BeforeValidator(_host_names)]


def _revoked_tokens(value: str) -> str:
    wrong = [] if "/" in value else [word for word in value.replace(",", " ").split() if not ID.fullmatch(word)]
    if wrong:
        raise ValueError("expected ids of tokens (12 digits 0-9a-f, separated by commas), or the path of a file")
    return value


def _networks(value: object) -> object:
    return value.replace(",", " ").split() if isinstance(value, str) else value


Network = IPv4Network | IPv6Network
Networks = Annotated[tuple[Network, ...], BeforeValidator(_networks)]
RevokedTokens = Annotated[str, AfterValidator(_revoked_tokens)]
#: An address that is shown on a public page, so it must not contain a password.
PageAddress = Annotated[str, Field(pattern=r"^https?://[^\s/@?#]+(/[^\s@]*)?$")]


class StreamingSettings(LogSettings):
    """The settings, read once at the start of `python -m streaming_app`."""

    host: Host = "127.0.0.1"
    port: Port = 8000
    web_processes: Annotated[int, Field(ge=1, le=64)] = 2
    #: Threads of one process that run Flask. Sending video bytes needs none.
    web_threads: Annotated[int, Field(ge=1, le=512)] = 32
    videos: DirectoryPath | None = None  #: None: sample clips are made below `cache`
    cache: Path = Path("var/cache")
    #: Address space, in bytes, that reading one video file may take (streaming_app/videos/video_reader.py). While there
    #: are files to read, each web process has up to two such reader processes.
    reader_memory_bytes: Annotated[int, Field(ge=192 * 1024 * 1024)] = MEMORY_BYTES
    #: The folder where views wait while the broker is away. The disk must outlive the process. One folder serves all
    #: processes (and replicas) of one machine.
    outbox: Path = Path("var/outbox")
    #: Bytes that all files in that folder may take together. If the folder is full, the answer is 503.
    outbox_bytes: Annotated[int, Field(ge=1024 * 1024, le=2**50)] = 1024 * 1024 * 1024
    secret_key: Annotated[str, Field(min_length=16)] = DEVELOPMENT_SECRET
    #: Ids of revoked tokens, separated by commas. Or the path of a file with one id per line: it contains a `/`, and is
    #: read again when it changes.
    revoked_tokens: RevokedTokens = ""
    #: Networks that may read /metrics, such as 172.16.0.0/12. This machine and requests with the token always may.
    metrics_from: Networks = ()
    metrics_token: Token | None = None
    history_api_url: HttpUrl = "http://127.0.0.1:8001"
    history_api_token: Token = DEVELOPMENT_SECRET

    #: Whether nginx is in front (deploy/nginx). It then sends the video bytes, and its headers say how it was reached.
    behind_proxy: bool = False

    #: Public host names of the site, separated by commas. `.example.org`: all names below it. `*`: any name. Private
    #: names and addresses need not be listed (service/host_header.py).
    allowed_hosts: HostNames = ()

    #: A video counts as finished from this share of its length on, and is no longer offered to continue. 1: at its very
    #: end.
    finished_at: Annotated[float, Field(ge=0.5, le=1)] = 0.95

    # Limits of recording (streaming_app/recording/rate_limits.py). 0 removes a limit. `..._burst`: how much at once.
    viewer_events_per_s: NotNegative = 10
    viewer_burst: NotNegative = 300
    #: The operator has handed out the token, so its client may send a large batch now and then.
    token_burst: NotNegative = 10_000
    #: Events in one request with a cookie. With a token: 1,000.
    cookie_request_events: Annotated[int, Field(ge=0)] = 100
    #: All cookies of one address together: 500 players, or the players of an office that come back at once.
    address_events_per_s: NotNegative = 50
    address_burst: NotNegative = 3_000
    #: New cookies for one address, for browsers that have none.
    new_viewers_per_minute: NotNegative = 10
    new_viewers_burst: NotNegative = 200
    #: All ingest tokens together.
    ingest_events_per_s: NotNegative = 0
    ingest_burst: NotNegative = 10_000
    #: A file in which the replicas of one host count together, best in memory (tmpfs). None: each replica counts alone.
    limits_file: Path | None = None

    #: Addresses of Flower and RabbitMQ's pages, for the page "About". The demo sets them, because its viewer is its
    #: operator.
    flower_page: PageAddress | None = None
    rabbitmq_page: PageAddress | None = None

    def listens_on(self) -> str:
        """The address where viewers connect."""
        return self.host
