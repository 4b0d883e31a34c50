"""The sample clips: real films, made once, whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import pytest

from streaming_app.videos import samples as module
from streaming_app.videos.catalogue import Catalogue
from streaming_app.videos.poster_picture import POSTER_AT
from streaming_app.videos.samples import CLIPS, samples
from tests.waiting import until


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def told(cache: Path) -> list[tuple[str, float]]:
    told: list[tuple[str, float]] = []
    samples(cache, lambda title, done: told.append((title, done)))
    return told


@pytest.mark.usefixtures("told")
def test_the_catalogue_lists_them(cache: Path) -> None:
    catalogue = Catalogue(samples(cache), cache)
    until(lambda: all(video.duration_s for video in catalogue.videos()), what="all to be read")
    listed = {video.id: video for video in catalogue.videos()}
    assert list(listed) == ["clip-1", "clip-3", "clip-2"]  # by title
    assert [listed[clip.name].title for clip in CLIPS] == [clip.title for clip in CLIPS]
    assert [listed[clip.name].duration_s for clip in CLIPS] == [clip.seconds for clip in CLIPS]
    assert not any(video.broken for video in listed.values())
    assert all(video.size_bytes < 4_000_000 for video in listed.values())


def test_the_progress_goes_from_nothing_to_nearly_all(told: list[tuple[str, float]]) -> None:
    done = [part for _, part in told]
    assert done == sorted(done)
    assert done[0] == 0
    assert 0.95 < done[-1] <= 1
    assert {title for title, _ in told} == {clip.title for clip in CLIPS}


@pytest.mark.usefixtures("told")
def test_they_play_in_a_browser_and_from_the_first_bytes(cache: Path) -> None:
    for path in samples(cache).iterdir():
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert stream.codec_context.pix_fmt == "yuv420p"
        content = path.read_bytes()
        assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.usefixtures("told")
def test_they_are_made_once(cache: Path) -> None:
    def not_again(title: str, _done: float) -> None:
        raise AssertionError(f"{title} made again")

    before = sorted((path, path.stat().st_mtime_ns) for path in samples(cache).iterdir())
    assert sorted((path, path.stat().st_mtime_ns) for path in samples(cache, not_again).iterdir()) == before


def test_the_clock_shows_the_second_that_is_playing() -> None:
    def bright(frame: object) -> bytes:
        plane = frame.reformat(format="gray").planes[0]  # type: ignore[attr-defined]
        rows = [bytes(plane)[y * plane.line_size :][: plane.width] for y in range(plane.height)]
        return bytes(255 if value > 128 else 0 for row in rows for value in row)

    clip = module.Clip("clip-x", "Clock", 12, ("0x000000", "0x000000", "0x000000"))
    graph = module._picture(clip)  # noqa: SLF001
    frames = [graph.pull() for _ in range(12 * module.FRAMES_PER_S)]
    # None at first, so that none is in the poster.
    before = module.CLOCK_FROM_S * module.FRAMES_PER_S
    assert max(clip.seconds for clip in CLIPS) * POSTER_AT < module.CLOCK_FROM_S
    assert len({bright(frame) for frame in frames[:before]}) == 1
    frames = frames[before:]

    a_second = module.FRAMES_PER_S
    assert bright(frames[0]) == bright(frames[a_second - 1])
    assert bright(frames[a_second - 1]) != bright(frames[a_second])
    assert len({bright(frame) for frame in frames[::a_second]}) == 12 - module.CLOCK_FROM_S


KILLED = (
    "from pathlib import Path; import sys; from streaming_app.videos.samples import samples; samples(Path(sys.argv[1]))"
)


def test_a_first_run_that_was_killed_leaves_no_half_of_a_clip(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    until(lambda: list(tmp_path.glob("samples/*.unfinished")), what="a clip to be begun")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for path in (tmp_path / "samples" / module.EDITION).iterdir():
        with av.open(str(path)) as container:
            assert container.duration
    clips = (module.Clip("clip-1", "Dawn", 1, ("0x2b1055", "0x7597de")),)
    patched = pytest.MonkeyPatch()
    patched.setattr(module, "CLIPS", clips)
    try:
        old = tmp_path / "samples" / "clip-1.mp4"
        old.touch()
        assert (samples(tmp_path) / "clip-1.mp4").exists()
        assert not old.exists()
    finally:
        patched.undo()
    assert {path.name for path in tmp_path.iterdir()} == {"samples", "samples.lock"}
