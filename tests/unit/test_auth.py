"""Who is calling: cookies, tokens, and pages of other sites."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from http.cookies import SimpleCookie
from pathlib import Path
from time import time

import pytest
from click.testing import CliRunner
from flask import Request, Response
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder

from flixtrail.commands.token import command
from local.state import State
from service.settings import SettingsError, read
from streaming_app.access.auth import COOKIE, MAX_AGE_S, PLAIN_COOKIE, AuthError, Caller, Tokens
from streaming_app.settings import StreamingSettings

SECRET = "a-secret-of-enough-length"
TOKENS = Tokens(SECRET)
DAY = timedelta(days=1)


def a_request(
    method: str = "POST",
    cookie: str | None = None,
    *,
    site: str = "http://films.example",
    query: str = "",
    name: str = COOKIE,
    **headers: str,
) -> Request:
    named = Headers({header.replace("_", "-"): value for header, value in headers.items()})
    builder = EnvironBuilder("/api/views", site, method=method, headers=named, query_string=query)
    if cookie:
        builder.headers["Cookie"] = f"{name}={cookie}"
    return Request(builder.get_environ())


def set_cookies(request: Request, *, again: bool = False) -> SimpleCookie:
    """What the browser that opens this page is told to keep."""
    response = Response()
    (TOKENS.page_viewer_without_cookie if again else TOKENS.page_viewer)(request).set_cookie(response)
    return SimpleCookie(response.headers.get("Set-Cookie"))


def a_cookie() -> str:
    morsel = set_cookies(a_request("GET"))[COOKIE]
    assert morsel["httponly"]
    assert morsel["samesite"] == "Lax"
    return morsel.value


def dated(monkeypatch: pytest.MonkeyPatch, when: datetime) -> str:
    """A cookie that was signed then."""
    with monkeypatch.context() as patched:
        patched.setattr("itsdangerous.timed.time.time", when.timestamp)
        return a_cookie()


def viewer(request: Request) -> str | None:
    return TOKENS.caller(request).viewer_id


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


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_what_the_browser_says_counts_whatever_a_proxy_made_of_the_host(site: str) -> None:
    request = a_request(cookie=a_cookie(), Host="127.0.0.1:8400", Origin="https://films.example", Sec_Fetch_Site=site)
    assert viewer(request)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "same-origin,cross-site", "Same-Origin"])
@pytest.mark.parametrize("origin", [{}, {"Origin": "http://films.example"}, {"Origin": "null"}])
def test_a_page_that_the_browser_calls_foreign_is_403_also_without_an_origin(site: str, origin: dict[str, str]) -> None:
    cookie = a_cookie()
    token = TOKENS.page_token(str(viewer(a_request(cookie=cookie))))
    assert status(a_request(cookie=cookie, Sec_Fetch_Site=site, Page_Token=token, **origin)) == 403


@pytest.mark.parametrize("by_query", [False, True])
@pytest.mark.parametrize(
    ("site", "origin"),
    [
        ("http://flixtrail_app:8000", "http://nas:8080"),
        ("http://127.0.0.1:8400", "http://nas.lan"),
        ("http://127.0.0.1:8400", "null"),
        ("http://nas", "http://192.168.1.7:8080"),
    ],
)
def test_a_page_that_knows_its_token_needs_no_host(site: str, origin: str, *, by_query: bool) -> None:
    cookie = a_cookie()
    token = TOKENS.page_token(str(viewer(a_request(cookie=cookie))))
    said = {"query": f"page_token={token}"} if by_query else {"Page_Token": token}
    assert viewer(a_request(cookie=cookie, site=site, Origin=origin, **said))
    assert status(a_request(cookie=cookie, site=site, Origin=origin)) == 403


@pytest.mark.parametrize(
    "token", ["", "é", "0" * 32, TOKENS.page_token("somebody else"), Tokens("x" * 16).page_token("")]
)
def test_a_token_of_another_page_is_worth_nothing(token: str) -> None:
    assert status(a_request(cookie=a_cookie(), Origin="http://evil.example", query=f"page_token={token}")) == 403


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("films.example", "https://films.example"),
        ("films.example:443", "https://films.example"),
        ("Films.Example", "http://films.example"),
        ("[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_tls_in_front_and_a_default_port_change_nothing(host: str, origin: str) -> None:
    assert viewer(a_request(cookie=a_cookie(), Host=host, Origin=origin))


def test_the_host_that_a_proxy_was_asked_for_counts_behind_one_only() -> None:
    cookie, behind = a_cookie(), Tokens(SECRET, behind_proxy=True)
    hosts = {"Host": "127.0.0.1", "X_Forwarded_Host": "films.example, inner", "Origin": "http://films.example"}
    assert behind.caller(a_request(cookie=cookie, **hosts)).viewer_id
    assert status(a_request(cookie=cookie, **hosts)) == 403
    foreign = {**hosts, "Origin": "http://inner"}
    with pytest.raises(AuthError):
        behind.caller(a_request(cookie=cookie, **foreign))


def test_a_refusal_is_logged_once_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    tokens, cookie = Tokens(SECRET), a_cookie()
    for _ in range(3):
        with pytest.raises(AuthError, match="has to pass on the browser's Host"):
            tokens.caller(a_request(cookie=cookie, Origin="http://evil.example"))
    logged = capsys.readouterr().out
    assert logged.count("docs/operations.md") == 1
    assert "http://evil.example" in logged


def test_a_viewer_keeps_the_cookie_it_has() -> None:
    assert not set_cookies(a_request("GET", cookie=a_cookie()))


@pytest.mark.parametrize("age", [2 * DAY, 399 * DAY, -2 * DAY, -900 * DAY])
def test_a_viewer_who_comes_back_stays_the_same_for_ever(monkeypatch: pytest.MonkeyPatch, age: timedelta) -> None:
    """Also one whose cookie was made while the clock was ahead."""
    old = dated(monkeypatch, datetime.now(UTC) - age)
    who = viewer(a_request(cookie=old))
    renewed = set_cookies(a_request("GET", cookie=old))
    if age > DAY:
        assert viewer(a_request(cookie=renewed[COOKIE].value)) == who
        assert int(renewed[COOKIE]["max-age"]) == MAX_AGE_S
        assert not set_cookies(a_request("GET", cookie=renewed[COOKIE].value))
    else:
        assert not renewed


def test_a_viewer_who_was_away_for_longer_is_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    old = dated(monkeypatch, datetime.now(UTC) - 401 * DAY)
    assert status(a_request(cookie=old)) == 401
    assert set_cookies(a_request("GET", cookie=old))[COOKIE].value


def test_a_cookie_that_went_over_http_is_for_https_alone_from_then_on() -> None:
    old = a_cookie()
    over_tls = set_cookies(a_request("GET", cookie=old, site="https://films.example"))[COOKIE]
    assert over_tls["secure"]
    assert viewer(a_request(cookie=over_tls.value)) == viewer(a_request(cookie=old))


def test_over_http_a_viewer_whose_browser_keeps_the_cookie_of_https_gets_another_one() -> None:
    """Browsers do not let http replace a Secure cookie, and do not send it either: every view would be 401 for ever."""
    plain = set_cookies(a_request("GET"), again=True)[PLAIN_COOKIE]
    assert not plain["secure"]
    assert viewer(a_request(cookie=plain.value, name=PLAIN_COOKIE))
    assert not set_cookies(a_request("GET", cookie=plain.value, name=PLAIN_COOKIE))
    assert not set_cookies(a_request("GET", cookie=plain.value, name=PLAIN_COOKIE), again=True)
    assert set_cookies(a_request("GET", site="https://films.example"), again=True)[COOKIE]["secure"]


@pytest.mark.parametrize("viewer_id", ["", "a" * 129, "a\tb", "a\x00"])
def test_nobody_gets_a_token_under_a_name_that_could_not_be_erased(viewer_id: str) -> None:
    with pytest.raises(ValueError, match="is no viewer"):
        TOKENS.viewer(viewer_id)
    # One that an older version made, or somebody else who has the key.
    token = TOKENS._bearer.dumps({"viewer": viewer_id})  # noqa: SLF001
    assert status(a_request(Authorization=f"Bearer {token!s}")) == 401


# -- Bearer tokens -----------------------------------------------------------------------------------


def at(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the clock of whoever makes a token run ahead by so much."""
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: time() + seconds)


@pytest.mark.parametrize("ahead_s", [2, 290])
def test_a_token_of_a_machine_whose_clock_runs_ahead_a_little_is_good(
    monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    at(monkeypatch, ahead_s)
    assert Tokens(SECRET).read(TOKENS.viewer("alice")) == Caller("alice")


@pytest.mark.parametrize("ahead_s", [400, -401 * 86_400])
def test_a_token_of_another_day_is_not(monkeypatch: pytest.MonkeyPatch, ahead_s: float) -> None:
    at(monkeypatch, ahead_s)
    assert status(a_request(Authorization=f"Bearer {TOKENS.viewer('alice')}")) == 401


def test_a_token_may_end_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(SECRET)
    token, ingest = tokens.viewer("alice", timedelta(hours=1)), tokens.ingest(timedelta(hours=1))
    assert tokens.read(token) == Caller("alice")
    assert tokens.read(ingest).ingest
    monkeypatch.setattr("streaming_app.access.auth.time", lambda: time() + 3_601)
    for expired in (token, ingest):
        with pytest.raises(AuthError, match="has expired"):
            tokens.read(expired)


def test_tokens_are_revoked_one_by_one_also_old_ones() -> None:
    old = str(TOKENS._bearer.dumps({"viewer": "alice"}))  # noqa: SLF001
    first, second = TOKENS.viewer("alice"), TOKENS.viewer("alice")
    for token in (old, first):
        tokens = Tokens(SECRET, revoked=f"{'0' * 12},{TOKENS.token_id(token)}")
        with pytest.raises(AuthError, match="was revoked"):
            tokens.read(token)
        assert tokens.read(second) == Caller("alice")


def test_a_list_in_a_file_is_read_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "revoked"
    tokens, token = Tokens(SECRET, revoked=str(path)), TOKENS.viewer("alice")
    monkeypatch.setattr("streaming_app.access.revocation.CHECK_EVERY_S", 0)
    assert tokens.read(token) == Caller("alice")
    path.write_text(f"# lost on a train\n{TOKENS.token_id(token)}  # alice's\nnonsense\n")
    with pytest.raises(AuthError, match="was revoked"):
        tokens.read(token)
    path.write_text("")
    assert tokens.read(token) == Caller("alice")
    path.unlink()
    assert tokens.read(token) == Caller("alice")


def test_the_setting_says_what_it_expects() -> None:
    assert read(StreamingSettings, {"REVOKED_TOKENS": "0123456789ab, ba9876543210"}).revoked_tokens
    assert read(StreamingSettings, {"REVOKED_TOKENS": "/etc/flixtrail/revoked"}).revoked_tokens
    with pytest.raises(SettingsError, match=r"REVOKED_TOKENS.*12 digits"):
        read(StreamingSettings, {"REVOKED_TOKENS": "alice"})


def test_the_command_makes_and_revokes(tmp_path: Path) -> None:
    run = partial(CliRunner().invoke, command)
    key = ["--secret-key", SECRET]
    made = run(["--viewer", "alice", "--expires", "1h", *key]).output
    assert TOKENS.read(made.strip()) == Caller("alice")
    assert TOKENS._read(made.strip(), 0).until == pytest.approx(time() + 3_600, abs=60)  # noqa: SLF001
    assert TOKENS.token_id(made.strip()) in run(["--revoke", made.strip(), *key]).output
    for wrong in (["--expires", "soon"], ["--expires", "0s"], ["--expires", "401d"], ["--ingest"]):
        assert run(["--viewer", "alice", *wrong, *key]).exit_code == 2
    state = State(tmp_path)
    state.write({"secret_key": SECRET, "web": {}, "broker": {}})
    assert run(["--revoke", made.strip(), "--state", str(tmp_path)]).exit_code == 0
    with pytest.raises(AuthError, match="was revoked"):
        Tokens(SECRET, revoked=str(state.revoked_tokens)).read(made.strip())
