"""Who is calling: cookies, tokens, and pages of other sites."""

from __future__ import annotations

from http.cookies import SimpleCookie

import pytest
from flask import Request, Response
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder

from streaming_app.auth import COOKIE, AuthError, Caller, Tokens

TOKENS = Tokens("a-secret-of-enough-length")


def a_request(method: str = "POST", cookie: str | None = None, **headers: str) -> Request:
    builder = EnvironBuilder("/api/views", "http://films.example", method=method, headers=Headers(headers))
    if cookie:
        builder.headers["Cookie"] = f"{COOKIE}={cookie}"
    return Request(builder.get_environ())


def a_cookie() -> str:
    response = Response()
    TOKENS.welcome(a_request("GET"), response)
    header = response.headers["Set-Cookie"]
    assert "HttpOnly" in header
    assert "SameSite=Lax" in header
    return SimpleCookie(header)[COOKIE].value


def status(request: Request) -> int:
    with pytest.raises(AuthError) as refused:
        TOKENS.caller(request)
    return refused.value.status


def test_a_viewers_token_names_the_viewer() -> None:
    assert TOKENS.caller(a_request(Authorization=f"Bearer {TOKENS.viewer('alice')}")) == Caller("alice")


def test_an_ingest_token_has_no_history_of_its_own() -> None:
    caller = TOKENS.caller(a_request(Authorization=f"bearer {TOKENS.ingest()}"))
    assert caller == Caller(None, ingest=True)
    with pytest.raises(AuthError, match="no history"):
        caller.viewer()


@pytest.mark.parametrize("header", ["Bearer", "Bearer x.y.z", "Basic YWxpY2U6eA==", "nonsense"])
def test_a_bad_authorization_is_401(header: str) -> None:
    assert status(a_request(Authorization=header)) == 401


def test_a_token_of_another_secret_is_401() -> None:
    assert status(a_request(Authorization=f"Bearer {Tokens('another-secret-altogether').viewer('alice')}")) == 401


def test_a_cookie_is_no_bearer_token() -> None:
    assert status(a_request(Authorization=f"Bearer {a_cookie()}")) == 401


def test_nobody_is_401() -> None:
    assert status(a_request()) == 401
    assert status(a_request(cookie="forged")) == 401


def test_a_cookie_names_a_viewer_for_this_sites_own_pages() -> None:
    cookie = a_cookie()
    assert TOKENS.caller(a_request(cookie=cookie, Origin="http://films.example")).viewer_id
    assert TOKENS.caller(a_request(cookie=cookie)).viewer_id


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://films.example.evil", "http://films.example:81"]
)
def test_a_cookie_from_another_sites_page_is_403(origin: str) -> None:
    assert status(a_request(cookie=a_cookie(), Origin=origin)) == 403


def test_a_viewer_keeps_the_cookie_it_has() -> None:
    response = Response()
    TOKENS.welcome(a_request("GET", cookie=a_cookie()), response)
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("viewer_id", ["", "a" * 129, "a\tb", "a\x00"])
def test_nobody_gets_a_token_under_a_name_that_could_not_be_erased(viewer_id: str) -> None:
    with pytest.raises(ValueError, match="is no viewer"):
        TOKENS.viewer(viewer_id)
    # One that an older version made, or somebody else who has the key.
    token = TOKENS._bearer.dumps({"viewer": viewer_id})  # noqa: SLF001
    assert status(a_request(Authorization=f"Bearer {token!s}")) == 401
