"""RFC 9110 for one file of 1,000 bytes."""

from datetime import timedelta
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import Headers
from werkzeug.http import http_date

from streaming_app.videos.byte_ranges import File, Reply, answer

FILE = File(id="clip-1", size=1000, mtime_ns=1_700_000_000_123_456_789, content_type="video/mp4")
EMPTY = File(id="empty", size=0, mtime_ns=1_700_000_000_000_000_000, content_type="video/mp4")
TAG = f'"{FILE.etag}"'
DATE = http_date(FILE.modified)
EARLIER = http_date(FILE.modified - timedelta(seconds=1))
LATER = http_date(FILE.modified + timedelta(days=1))


def get(file: File = FILE, method: str = "GET", /, **headers: str) -> Reply:
    return answer(method, Headers({name.replace("_", "-"): value for name, value in headers.items()}), file)


def header(reply: Reply, name: str) -> str | None:
    return dict(reply.headers).get(name)


def test_the_whole_file() -> None:
    reply = get()
    assert (reply.status, reply.start, reply.end) == (200, 0, 1000)
    assert dict(reply.headers) == {
        "accept-ranges": "bytes",
        "etag": TAG,
        "last-modified": DATE,
        "cache-control": "no-cache",
        "content-type": "video/mp4",
        "content-length": "1000",
    }


def test_head_has_the_headers_and_no_bytes() -> None:
    assert get(FILE, "HEAD").headers == get().headers
    assert get(FILE, "HEAD").start == get(FILE, "HEAD").end


def test_head_ignores_a_range_which_is_defined_for_get_alone() -> None:
    assert get(FILE, "HEAD", range="bytes=0-1").status == HTTPStatus.OK
    assert get(FILE, "HEAD", range="bytes=9999-").status == HTTPStatus.OK


@pytest.mark.parametrize(
    ("value", "start", "end"),
    [
        ("bytes=0-", 0, 1000),
        ("bytes=0-0", 0, 1),
        ("bytes=500-599", 500, 600),
        ("bytes=500-99999999", 500, 1000),
        ("bytes=999-", 999, 1000),
        ("bytes=-500", 500, 1000),
        ("bytes=-1", 999, 1000),
        ("bytes=-5000", 0, 1000),
        ("Bytes=1-2", 1, 3),
        ("bytes= 1-2 ", 1, 3),
        (f"bytes=0-{'9' * 999}", 0, 1000),
    ],
)
def test_one_range(value: str, start: int, end: int) -> None:
    reply = get(range=value)
    assert (reply.status, reply.start, reply.end) == (206, start, end)
    assert header(reply, "content-range") == f"bytes {start}-{end - 1}/1000"
    assert header(reply, "content-length") == str(end - start)


@pytest.mark.parametrize("value", ["bytes=1000-", "bytes=1000-1001", "bytes=99999-", "bytes=-0", f"bytes={'9' * 999}-"])
def test_a_range_past_the_end_is_416_with_the_size(value: str) -> None:
    reply = get(range=value)
    assert (reply.status, reply.start, reply.end) == (416, 0, 0)
    assert header(reply, "content-range") == "bytes */1000"
    assert header(reply, "content-length") is None
    assert "1000 bytes" in reply.detail


@pytest.mark.parametrize(
    "value",
    [
        "bytes=0-1,5-6",  # several: allowed to be ignored (14.2)
        "bytes=0-1,",
        "bytes=5-4",  # backwards: must be ignored (14.1.2)
        "bytes=-",
        "bytes=",
        "bytes",
        "",
        "bytes=a-b",
        "bytes=+1-2",
        "bytes=1_0-20",
        "bytes=1-2-3",
        "bytes=--5",
        "bytes=\u0661-\u0662",  # digits, but not ASCII's
        "items=0-1",
        f"bytes=0-{'9' * 20_000}",
    ],
)
def test_what_is_not_one_range_of_bytes_gets_the_whole_file(value: str) -> None:
    assert (get(range=value).status, get(range=value).end) == (200, 1000)


def test_an_empty_file() -> None:
    assert (get(EMPTY).status, header(get(EMPTY), "content-length")) == (200, "0")
    assert get(EMPTY, range="bytes=-5").status == HTTPStatus.OK
    assert get(EMPTY, range="bytes=0-").status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    assert header(get(EMPTY, range="bytes=0-"), "content-range") == "bytes */0"


@pytest.mark.parametrize("value", [TAG, DATE, f" {TAG} "])
def test_if_range_that_names_these_bytes_gets_the_range(value: str) -> None:
    assert get(range="bytes=0-9", if_range=value).status == HTTPStatus.PARTIAL_CONTENT


@pytest.mark.parametrize("value", ['"other"', f"W/{TAG}", FILE.etag, EARLIER, LATER, "yesterday", "", '"'])
def test_if_range_that_names_others_gets_the_whole_file(value: str) -> None:
    assert get(range="bytes=0-9", if_range=value).status == HTTPStatus.OK
    assert get(range="bytes=5000-", if_range=value).status == HTTPStatus.OK


@pytest.mark.parametrize("value", [TAG, f"W/{TAG}", "*", f'"a", {TAG}', f'"a",W/{TAG} , "b"', " * "])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_none_match_that_knows_the_tag_is_304(method: str, value: str) -> None:
    reply = get(FILE, method, if_none_match=value, range="bytes=0-9")
    assert (reply.status, reply.start, reply.end) == (304, 0, 0)
    assert header(reply, "etag") == TAG
    assert header(reply, "content-length") is None
    assert header(reply, "content-type") is None


def test_if_none_match_that_does_not_know_the_tag_gets_the_bytes() -> None:
    assert get(if_none_match='"other"').status == HTTPStatus.OK


def test_if_none_match_comes_before_if_modified_since() -> None:
    assert get(if_none_match='"other"', if_modified_since=LATER).status == HTTPStatus.OK


@pytest.mark.parametrize(("value", "status"), [(DATE, 304), (LATER, 304), (EARLIER, 200), ("yesterday", 200)])
def test_if_modified_since(value: str, status: int) -> None:
    assert get(if_modified_since=value).status == status


@pytest.mark.parametrize(
    ("value", "status"), [(TAG, 200), ("*", 200), (f'"a", {TAG}', 200), (f"W/{TAG}", 412), ('"a"', 412)]
)
def test_if_match_compares_strongly(value: str, status: int) -> None:
    assert get(if_match=value).status == status
    assert bool(get(if_match=value).detail) == (status == HTTPStatus.PRECONDITION_FAILED)


@pytest.mark.parametrize(("value", "status"), [(DATE, 200), (LATER, 200), (EARLIER, 412), ("yesterday", 200)])
def test_if_unmodified_since(value: str, status: int) -> None:
    assert get(if_unmodified_since=value).status == status


def test_if_match_comes_before_everything_else() -> None:
    assert get(if_match='"a"', if_none_match=TAG).status == HTTPStatus.PRECONDITION_FAILED
    assert get(if_match=TAG, if_unmodified_since=EARLIER).status == HTTPStatus.OK


def test_other_bytes_have_another_tag() -> None:
    others = [File("clip-1", 1001, FILE.mtime_ns, "video/mp4"), File("clip-1", 1000, FILE.mtime_ns + 1, "video/mp4")]
    assert FILE.etag not in {other.etag for other in others}


@pytest.mark.parametrize("mtime_ns", [-(10**18), 0, 10**30])
def test_a_file_with_an_impossible_time_is_still_served(mtime_ns: int) -> None:
    file = File("odd", 1000, mtime_ns, "video/mp4")
    assert get(file).status == HTTPStatus.OK
    assert get(file, if_modified_since=header(get(file), "last-modified") or "").status == HTTPStatus.NOT_MODIFIED


@given(first=st.integers(0, 2000), last=st.integers(0, 2000), size=st.integers(0, 1500))
def test_the_bytes_sent_are_those_asked_for_and_in_the_file(first: int, last: int, size: int) -> None:
    reply = get(File("f", size, 0, "video/mp4"), range=f"bytes={first}-{last}")
    expected = range(size)[first : last + 1]
    if last < first:
        assert (reply.status, reply.end) == (200, size)
    elif not expected:
        assert reply.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    else:
        assert (reply.status, range(reply.start, reply.end)) == (206, expected)


@given(suffix=st.integers(1, 2000), size=st.integers(1, 1500))
def test_a_suffix_is_the_end_of_the_file(suffix: int, size: int) -> None:
    reply = get(File("f", size, 0, "video/mp4"), range=f"bytes=-{suffix}")
    assert (reply.status, range(reply.start, reply.end)) == (206, range(size)[-suffix:])


NAMES = ("range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
PIECES = st.lists(
    st.sampled_from(["bytes=", "bytes", "0", "9" * 30, "-", ",", " ", '"', "W/", "*", TAG, DATE, "GMT", "+9999"])
)


@given(
    st.dictionaries(st.sampled_from(NAMES), PIECES.map("".join) | st.text(), max_size=3), st.sampled_from([FILE, EMPTY])
)
def test_no_header_breaks_it(headers: dict[str, str], file: File) -> None:
    reply = answer("GET", headers, file)
    assert reply.status in {200, 206, 304, 412, 416}
    assert 0 <= reply.start <= reply.end <= file.size
    if reply.status in {200, 206}:
        assert header(reply, "content-length") == str(reply.end - reply.start)
    else:
        assert reply.start == reply.end
