"""Posters look as the player shows the video, and nobody waits long for one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from time import monotonic, time
from typing import Any, cast

import av
import pytest
from av.video.frame import VideoFrame

from streaming_app import create_app
from streaming_app.settings import StreamingSettings
from streaming_app.videos import catalogue as catalogue_module
from streaming_app.videos import posters
from streaming_app.videos.catalogue import Catalogue
from streaming_app.videos.video_reader import Unreadable, VideoReader
from tests.clips import make_clip

#: A quarter of the picture is bright: the one on the left, above.
WIDTH, HEIGHT = 96, 64


def corner_film(path: Path, matrix: tuple[int, int, int, int] | None = None, aspect: Fraction | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if matrix:
            a, b, c, d = (value * 65536 for value in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
        luma = bytearray(b"\x20" * frame.planes[0].buffer_size)
        for y in range(HEIGHT // 2):
            start = y * frame.planes[0].line_size
            luma[start : start + WIDTH // 2] = b"\xe0" * (WIDTH // 2)
        frame.planes[0].update(bytes(luma[: frame.planes[0].buffer_size]))
        for plane in frame.planes[1:]:
            plane.update(b"\x80" * plane.buffer_size)
        for number in range(5):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def seen(jpeg: bytes) -> tuple[int, int, tuple[bool, bool]]:
    """Width, height, and where the bright corner is: (is it on the right, is it below)."""
    with av.open(BytesIO(jpeg), "r", format="mjpeg") as container:
        frame = next(container.decode(video=0)).reformat(format="gray")
    plane = frame.planes[0]
    pixels = bytes(plane)

    def light(x: int, y: int) -> int:
        return pixels[y * plane.line_size + x]

    width, height = frame.width, frame.height
    corners = {
        (right, below): light(width * (1 + 2 * right) // 4, height * (1 + 2 * below) // 4)
        for right in (False, True)
        for below in (False, True)
    }
    brightest = max(corners, key=lambda corner: corners[corner])
    assert sorted(corners.values())[-2] < 100 < corners[brightest]
    return width, height, brightest


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_module, "PATIENCE_S", 60.0)


def poster_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setattr(posters, "WAIT_S", 60.0)
    path = Catalogue(tmp_path / "videos", tmp_path / "cache").poster("a")
    assert path is not None
    return path.read_bytes()


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        (None, (False, False)),
        ((0, 1, -1, 0), (True, False)),  # a phone held upright
        ((-1, 0, 0, -1), (True, True)),
        ((0, -1, 1, 0), (False, True)),
        ((-1, 0, 0, 1), (True, False)),  # a mirror
        ((1, 0, 0, -1), (False, True)),
        ((0, 1, 1, 0), (False, False)),
        ((0, -1, -1, 0), (True, True)),
    ],
)
def test_a_poster_is_turned_and_mirrored_as_the_player_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matrix: tuple[int, int, int, int] | None, corner: tuple[bool, bool]
) -> None:
    corner_film(tmp_path / "videos" / "a.mp4", matrix)
    width, height, found = seen(poster_of(tmp_path, monkeypatch))
    assert found == corner
    is_upright = matrix is not None and matrix[0] == 0
    assert (width, height) == ((HEIGHT, WIDTH) if is_upright else (WIDTH, HEIGHT))


@pytest.mark.parametrize(("aspect", "shape"), [(Fraction(2), 3.0), (Fraction(1, 2), 0.75), (Fraction(1000), 1.5)])
def test_pixels_that_are_not_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aspect: Fraction, shape: float
) -> None:
    corner_film(tmp_path / "videos" / "a.mp4", aspect=aspect)
    width, height, _ = seen(poster_of(tmp_path, monkeypatch))
    assert width / height == pytest.approx(shape, rel=0.05)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Posters are made once it is open."""
    gate = threading.Event()

    def slow(_reader: VideoReader, _descriptor: int) -> bytes:
        gate.wait(30)
        return b"jpeg"

    monkeypatch.setattr(VideoReader, "poster", slow)
    yield gate
    gate.set()


def test_many_posters_that_take_long_hold_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    monkeypatch.setattr(posters, "WAIT_S", 0.2)
    make_clip(tmp_path / "videos" / "a.mp4")
    app = create_app(StreamingSettings(videos=tmp_path / "videos", cache=tmp_path))
    app.test_client().get("/api/videos")
    asked_at = monotonic()
    # As many threads as one web process has.
    with ThreadPoolExecutor(32) as threads:
        asked = [threads.submit(app.test_client().get, "/videos/a/poster") for _ in range(80)]
        alive = threads.submit(app.test_client().get, "/healthz")
        answers = [one.result() for one in asked]
        assert alive.result().status_code == 200
    assert monotonic() - asked_at < 5
    assert {answer.status_code for answer in answers} == {503}
    assert all(answer.headers["Retry-After"] for answer in answers)
    gate.set()
    monkeypatch.setattr(posters, "WAIT_S", 30.0)
    assert app.test_client().get("/videos/a/poster").data == b"jpeg"


def test_a_video_without_a_picture_is_said_to_have_none_before_it_is_read_and_gets_a_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posters, "WAIT_S", 30.0)
    make_clip(tmp_path / "videos" / "a.mp4")
    marked: list[list[str]] = []

    def hopeless(_reader: VideoReader, _descriptor: int) -> bytes:
        marked.append([path.suffix for path in (tmp_path / "posters").glob("*/*")])
        raise Unreadable("told to be")

    monkeypatch.setattr(VideoReader, "poster", hopeless)
    client = create_app(StreamingSettings(videos=tmp_path / "videos", cache=tmp_path)).test_client()
    for _ in range(3):
        answer = client.get("/videos/a/poster")
        assert (answer.status_code, answer.mimetype) == (404, "image/svg+xml")
    assert marked == [[".none"]]


def test_posters_of_videos_that_are_gone_are_removed_in_time(tmp_path: Path) -> None:
    made = posters.Posters(tmp_path, tmp_path / "posters", cast(Any, None))
    (tmp_path / "posters").mkdir()
    for name in ("kept.jpg", "gone.jpg", "young.jpg", "gone-too.none"):
        (tmp_path / "posters" / name).touch()
        if name != "young.jpg":
            os.utime(tmp_path / "posters" / name, (time() - 2 * posters.STALE_S,) * 2)
    made.prune({"kept"})
    assert {path.name for path in (tmp_path / "posters").iterdir()} == {"kept.jpg", "young.jpg"}
