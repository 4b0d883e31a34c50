"""Who is calling: a viewer known by a signed cookie or a bearer token, or a service that records for any viewer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from time import time
from uuid import uuid4

from flask import Request, Response
from itsdangerous import BadData, URLSafeTimedSerializer

from view_events.event import is_viewer

COOKIE = "flixtrail_viewer"
#: Browsers keep a cookie no longer than 400 days; tokens end with it.
MAX_AGE_S = 400 * 86_400
#: A token is checked again after so many seconds, and remembered meanwhile, as many as there are of the busiest.
CHECKED_EVERY_S = 60
REMEMBERED = 4_096


class AuthError(Exception):
    """The caller may not do this. `status` is 401 (who are you?) or 403 (not you). Answered as a problem."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. An ingest caller has no viewer of its own and names one in each event."""

    viewer_id: str | None
    ingest: bool = False

    def viewer(self) -> str:
        """The caller's own viewer id. Raises AuthError (403) for an ingest caller, who has none."""
        if self.viewer_id is None:
            raise AuthError(403, "An ingest token records for viewers; it has no history of its own.")
        return self.viewer_id


class Tokens:
    """Signs and reads viewers' cookies and bearer tokens. They are signed, not secret: they hold a viewer id."""

    def __init__(self, secret_key: str) -> None:
        self._bearer = URLSafeTimedSerializer(secret_key, salt="flixtrail.bearer")
        self._cookie = URLSafeTimedSerializer(secret_key, salt="flixtrail.cookie")
        self._remembered = lru_cache(REMEMBERED)(self._read)

    def viewer(self, viewer_id: str) -> str:
        """A bearer token that records and reads for one viewer. Raises ValueError for what nobody can be called."""
        if not is_viewer(viewer_id):
            raise ValueError(f"{viewer_id[:128]!r} is no viewer: expected 1 to 128 characters, no control characters")
        return _text(self._bearer.dumps({"viewer": viewer_id}))

    def ingest(self) -> str:
        """A bearer token that records for any viewer and reads for none."""
        return _text(self._bearer.dumps({"ingest": True}))

    def read(self, token: str) -> Caller:
        """Whose bearer token this is. Raises AuthError (401)."""
        return self._remembered(token, int(time()) // CHECKED_EVERY_S)

    def _read(self, token: str, _period: int) -> Caller:
        try:
            claims = self._bearer.loads(token, max_age=MAX_AGE_S)
        except BadData:
            raise AuthError(401, "The bearer token is not valid. `flixtrail token` makes one.") from None
        if not claims.get("ingest") and not is_viewer(claims.get("viewer")):
            raise AuthError(401, "The bearer token names nobody: expected 1 to 128 characters, no control characters.")
        return Caller(claims.get("viewer"), bool(claims.get("ingest")))

    def caller(self, request: Request) -> Caller:
        """Who sent this request. Raises AuthError: 401 unknown; 403 a cookie that came from another site's page."""
        if authorization := request.headers.get("Authorization"):
            return self.read(bearer(authorization))
        viewer_id = self._viewer_of_cookie(request)
        if viewer_id is None:
            raise AuthError(401, "Send a bearer token, or open a page first to get a viewer's cookie.")
        if request.method not in {"GET", "HEAD"} and not _same_origin(request):
            raise AuthError(403, "A cookie is taken from this site's own pages only.")
        return Caller(viewer_id)

    def welcome(self, request: Request, response: Response) -> None:
        """Give somebody who opens a page for the first time a viewer's cookie."""
        if self._viewer_of_cookie(request) is None:
            response.set_cookie(
                COOKIE,
                _text(self._cookie.dumps(str(uuid4()))),
                max_age=MAX_AGE_S,
                httponly=True,
                samesite="Lax",
                secure=request.is_secure,
            )

    def _viewer_of_cookie(self, request: Request) -> str | None:
        try:
            viewer_id = self._cookie.loads(request.cookies.get(COOKIE, ""), max_age=MAX_AGE_S)
        except BadData:
            return None
        return str(viewer_id)


def bearer(authorization: str) -> str:
    """The token in an Authorization header. Raises AuthError (401) for another scheme."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise AuthError(401, "Expected `Authorization: Bearer <token>`.")
    return token.strip()


def _same_origin(request: Request) -> bool:
    # Browsers send Origin with every POST (sendBeacon too) and no page can change it. Without it: no browser.
    origin = request.headers.get("Origin")
    return origin is None or origin.partition("://")[2] == request.host


def _text(signed: str | bytes) -> str:
    return signed if isinstance(signed, str) else signed.decode()
