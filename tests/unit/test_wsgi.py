"""A WSGI application for one RSGI request."""

from typing import Any, cast

import pytest
from flask import Flask, Response, request
from werkzeug.datastructures import Headers

from streaming_app.wsgi import Deferral, environ, has_parameter, run
from tests.rsgi_client import Scope

app = Flask(__name__)


@app.route("/echo/<path:name>", methods=["GET", "POST"])
def echo(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "args": request.args,
        "cookies": request.cookies,
        "type": request.content_type,
        "body": request.get_data(as_text=True),
        "url": request.url,
        "from": request.remote_addr,
        "accept": request.headers.get("Accept"),
    }


@app.get("/closed")
def closed() -> Response:
    response = Response(iter([b"a", b"b"]))
    response.call_on_close(lambda: CLOSED.append(True))
    return response


CLOSED: list[bool] = []


def answer(body: bytes = b"", **fields: Any) -> Any:
    status, _, content = run(app, cast(Any, Scope(**fields)), body, Deferral(may_block=True))
    assert status == 200, content
    return app.json.loads(content)


def test_path_query_headers_and_body_arrive() -> None:
    headers = [("host", "films.example"), ("content-type", "text/plain"), ("content-length", "999"), ("accept", "a/b")]
    headers += [("cookie", "a=1"), ("cookie", "b=2"), ("accept", "c/d")]
    got = answer(
        "grüße".encode(),
        method="POST",
        path="/echo/süß/\u4e00",
        query_string="q=1&q2=%20",
        headers=Headers(headers),
        client="[::1]:50000",
    )
    assert (got["name"], got["body"], got["type"]) == ("süß/\u4e00", "grüße", "text/plain")
    assert got["args"] == {"q": "1", "q2": " "}
    assert got["cookies"] == {"a": "1", "b": "2"}
    assert got["accept"] == "a/b,c/d"
    assert got["url"].startswith("http://films.example/echo/")
    assert got["from"] == "::1"


def test_the_length_is_that_of_the_body_that_was_read() -> None:
    headers = Headers([("content-length", "999")])
    assert environ(cast(Any, Scope(headers=headers)), b"four")["CONTENT_LENGTH"] == "4"


def test_an_answer_in_pieces_is_joined_and_closed() -> None:
    status, headers, content = run(app, cast(Any, Scope(path="/closed")), b"", Deferral(may_block=True))
    assert (status, content, CLOSED) == (200, b"ab", [True])
    assert ("Content-Type", "text/html; charset=utf-8") in headers


@pytest.mark.parametrize("query", ["playback=1", "a=b&playback=", "playback", "a&playback=x&b"])
def test_a_parameter_is_found(query: str) -> None:
    assert has_parameter(query, "playback")


@pytest.mark.parametrize("query", ["", "a=playback", "playbacks=1", "xplayback=1"])
def test_others_are_not_taken_for_it(query: str) -> None:
    assert not has_parameter(query, "playback")
