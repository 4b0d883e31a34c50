"""Says who is calling: a viewer with a signed cookie or a bearer token, or a service that records for any viewer."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from time import time
from uuid import uuid4

import structlog
from flask import Request, Response
from itsdangerous import BadData, URLSafeTimedSerializer

from streaming_app.access.csrf import is_cross_site, is_same_site, page_token
from streaming_app.access.revocation import ID_DIGITS, Revoked, id_of_old_token
from view_events.event import is_viewer

log = structlog.get_logger(__name__)

COOKIE = "flixtrail_viewer"
#: A second name for the cookie over plain http. If a browser has a Secure cookie named COOKIE from https, it refuses a
#: cookie of that name over http.
PLAIN_COOKIE = "flixtrail_viewer_http"
#: Browsers keep a cookie for at most 400 days. Tokens expire after the same time.
MAX_AGE_S = 400 * 86_400
#: Opening a page renews a cookie that is older than this. So a viewer who comes back stays the same viewer.
RENEW_AFTER = timedelta(days=1)
#: Seconds that the clock of the machine that made a token may run ahead of ours.
CLOCK_SKEW_S = 300
#: A token that does not expire is valid until this time.
LATEST = float("inf")
#: Seconds for which the result of checking a token is cached. The cache keeps the tokens that are used most.
CHECKED_EVERY_S = 60
CACHED_TOKENS = 4_096
#: Hexadecimal digits of a page's token: 128 bits.
PAGE_TOKEN_DIGITS = 32
#: At most this many characters of a header are logged.
LOGGED_CHARACTERS = 200
#: Shown to a viewer by the page.
NOT_OUR_PAGE = (
    "The server does not recognise this page as its own, so it recorded nothing. Open the page again. If that does not "
    "help and you use a proxy: it has to pass on the browser's Host header. See 'Behind a proxy of your own' in "
    "docs/operations.md."
)


class AuthError(Exception):
    """The caller may not do this. `status` is 401 (unknown caller) or 403 (known, but not permitted). Answered as a
    problem.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. An ingest caller has no viewer id of its own; each of its events names a viewer."""

    viewer_id: str | None
    ingest: bool = False
    by_cookie: bool = False  #: True: a cookie. False: a bearer token, which the operator hands out

    def viewer(self) -> str:
        """The caller's own viewer id. Raises AuthError (403) for an ingest caller, which has none."""
        if self.viewer_id is None:
            raise AuthError(403, "An ingest token records for viewers; it has no history of its own.")
        return self.viewer_id


class Tokens:
    """Signs and reads viewers' cookies and bearer tokens. They are signed but not encrypted: they
    contain a viewer id.
    """

    def __init__(self, secret_key: str, *, behind_proxy: bool = False, revoked: str = "") -> None:
        self._bearer = URLSafeTimedSerializer(secret_key, salt="flixtrail.bearer")
        self._cookie = URLSafeTimedSerializer(secret_key, salt="flixtrail.cookie")
        self._page_key = sha256(b"flixtrail.page\0" + secret_key.encode()).digest()
        self._behind_proxy = behind_proxy
        self._revoked = Revoked(revoked)
        self._warned = False
        self._cached_read = lru_cache(CACHED_TOKENS)(self._read)

    def viewer(self, viewer_id: str, expires_in: timedelta | None = None) -> str:
        """Make a bearer token that records and reads for one viewer. Raises ValueError if the viewer id is invalid."""
        if not is_viewer(viewer_id):
            raise ValueError(f"{viewer_id[:128]!r} is no viewer: expected 1 to 128 characters, no control characters")
        return self._signed_token({"viewer": viewer_id}, expires_in)

    def ingest(self, expires_in: timedelta | None = None) -> str:
        """Make a bearer token that records for any viewer and reads for none."""
        return self._signed_token({"ingest": True}, expires_in)

    def _signed_token(self, claims: dict[str, object], expires_in: timedelta | None) -> str:
        claims["id"] = secrets.token_hex(ID_DIGITS // 2)
        if expires_in is not None:
            claims["until"] = int(time() + expires_in.total_seconds())
        return _text(self._bearer.dumps(claims))

    def read(self, token: str) -> Caller:
        """Read a bearer token and return its caller. Raises AuthError (401) if it is invalid."""
        found = self._cached_read(token, int(time()) // CHECKED_EVERY_S)
        if time() > found.until:
            raise AuthError(401, "The bearer token has expired. `flixtrail token` makes one.")
        if found.token_id in self._revoked:
            raise AuthError(401, "The bearer token was revoked. `flixtrail token` makes one.")
        return found.caller

    def token_id(self, token: str) -> str:
        """Return the id by which a token is revoked. Raises AuthError (401) if the token was not made by us."""
        return self._read(token, 0).token_id

    def _read(self, token: str, _period: int) -> Token:
        try:
            claims, signed_at = self._bearer.loads(token, return_timestamp=True)
        except BadData:
            raise AuthError(401, "The bearer token is not valid. `flixtrail token` makes one.") from None
        if signed_at.timestamp() > time() + CLOCK_SKEW_S:
            raise AuthError(401, f"The bearer token is dated {signed_at}, which is ahead of this server's clock.")
        if not claims.get("ingest") and not is_viewer(claims.get("viewer")):
            raise AuthError(401, "The bearer token names nobody: expected 1 to 128 characters, no control characters.")
        until = min(claims.get("until", LATEST), signed_at.timestamp() + MAX_AGE_S)
        caller = Caller(claims.get("viewer"), bool(claims.get("ingest")))
        return Token(caller, claims.get("id") or id_of_old_token(token), until)

    def caller(self, request: Request) -> Caller:
        """Return who sent this request. Raises AuthError: 401 if unknown, 403 if a cookie came from another site's
        page.
        """
        if authorization := request.headers.get("Authorization"):
            return self.read(bearer(authorization))
        cookie = self._cookie_of(request)
        if cookie is None:
            raise AuthError(401, "Send a bearer token, or open a page first to get a viewer's cookie.")
        if request.method not in {"GET", "HEAD"} and not self._is_own_page(request, cookie.viewer_id):
            self._warn_of_refusal(request)
            raise AuthError(403, NOT_OUR_PAGE)
        return Caller(cookie.viewer_id, by_cookie=True)

    def page_viewer(self, request: Request, allow_new: Callable[[Request], None] = lambda _: None) -> PageViewer:
        """Return the viewer who opens a page. Makes a new viewer if there is no cookie, and renews an old cookie.

        `allow_new` is called before a new viewer is made. To forbid it, it raises an exception, which the caller gets.
        """
        cookie = self._cookie_of(request)
        if cookie is None:
            allow_new(request)
        # Over https the cookie is renewed every time: the request does not say whether the browser would also send it
        # over http.
        if cookie and not request.is_secure and datetime.now(UTC) - cookie.signed_at < RENEW_AFTER:
            return PageViewer(cookie.viewer_id, None)
        viewer_id = cookie.viewer_id if cookie else str(uuid4())
        name = cookie.name if cookie and not request.is_secure else COOKIE
        return PageViewer(viewer_id, name, self._signed(viewer_id), is_secure=request.is_secure)

    def page_viewer_without_cookie(
        self, request: Request, allow_new: Callable[[Request], None] = lambda _: None
    ) -> PageViewer:
        """Return the viewer of a page whose cookie did not come back. The browser may have refused it (see
        PLAIN_COOKIE).
        """
        viewer = self.page_viewer(request, allow_new)
        if request.is_secure or self._cookie_of(request):
            return viewer
        return PageViewer(viewer.viewer_id, PLAIN_COOKIE, viewer.value)

    def page_token(self, viewer_id: str) -> str:
        """Make the token that a page of this viewer sends with its requests. It is useless without the
        viewer's cookie.
        """
        return hmac.digest(self._page_key, viewer_id.encode(), "sha256").hex()[:PAGE_TOKEN_DIGITS]

    def _is_own_page(self, request: Request, viewer_id: str) -> bool:
        if is_same_site(request, behind_proxy=self._behind_proxy):
            return True
        token = page_token(request).encode()
        return not is_cross_site(request) and hmac.compare_digest(token, self.page_token(viewer_id).encode())

    def _warn_of_refusal(self, request: Request) -> None:
        """Log, once in each process, that a request was refused, and what to do about it."""
        if self._warned:
            return
        self._warned = True
        log.warning(
            "refused a request with a viewer's cookie: it does not come from a page of this site. If viewers use a "
            "proxy of yours, see 'Behind a proxy of your own' in docs/operations.md. This is said once",
            **{
                name.lower().replace("-", "_"): request.headers.get(name, "")[:LOGGED_CHARACTERS]
                for name in ("Origin", "Host", "X-Forwarded-Host", "Sec-Fetch-Site")
            },
        )

    def _cookie_of(self, request: Request) -> Cookie | None:
        return next((found for name in (COOKIE, PLAIN_COOKIE) if (found := self._read_cookie(request, name))), None)

    def _read_cookie(self, request: Request, name: str) -> Cookie | None:
        try:
            viewer_id, signed_at = self._cookie.loads(request.cookies.get(name, ""), return_timestamp=True)
        except BadData:
            return None
        # We also made a cookie that is dated ahead, while our clock was wrong.
        is_old = datetime.now(UTC) - signed_at > timedelta(seconds=MAX_AGE_S)
        return None if is_old else Cookie(name, str(viewer_id), signed_at)

    def _signed(self, viewer_id: str) -> str:
        return _text(self._cookie.dumps(viewer_id))


@dataclass(frozen=True, slots=True)
class Token:
    """The content of a valid bearer token. `until`: seconds since 1970."""

    caller: Caller
    token_id: str
    until: float


@dataclass(frozen=True, slots=True)
class Cookie:
    """A valid viewer's cookie of a request."""

    name: str
    viewer_id: str
    signed_at: datetime


@dataclass(frozen=True, slots=True)
class PageViewer:
    """The viewer of a page, and the cookie to set. `name` is None if the browser has a fresh cookie."""

    viewer_id: str
    name: str | None
    value: str = ""
    is_secure: bool = False

    def set_cookie(self, response: Response) -> None:
        """Add the cookie to the answer, if there is one to set."""
        if self.name is not None:
            response.set_cookie(
                self.name, self.value, max_age=MAX_AGE_S, httponly=True, samesite="Lax", secure=self.is_secure
            )


def bearer(authorization: str) -> str:
    """Return the token of an Authorization header. Raises AuthError (401) for another scheme."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise AuthError(401, "Expected `Authorization: Bearer <token>`.")
    return token.strip()


def _text(signed: str | bytes) -> str:
    return signed if isinstance(signed, str) else signed.decode()
