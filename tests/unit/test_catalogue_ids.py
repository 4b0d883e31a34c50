"""An id belongs to a film: what is renamed keeps it, and another film under an old name gets one of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import av
import pytest
from av.video.frame import VideoFrame

from streaming_app.videos import catalogue as module
from streaming_app.videos.catalogue import Catalogue, Video
from streaming_app.videos.titles import id_of
from tests.clips import make_clip


@pytest.fixture(autouse=True)
def _always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    monkeypatch.setattr(module, "FRESH_ON_MISS_S", 0.0)
    monkeypatch.setattr(module, "PATIENCE_S", 60.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "videos"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def film(path: Path, shade: int, *, frames: int = 12, title: str | None = None) -> Path:
    """A film that looks like no other of another shade."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        if title:
            container.metadata["title"] = title
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            frame = VideoFrame(64, 48, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([(shade + number) % 256]) * plane.buffer_size)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def ids(folder: Path, cache: Path) -> dict[str, str]:
    return {video.name: video.id for video in Catalogue(folder, cache).videos()}


def the_video(folder: Path, cache: Path) -> Video:
    (video,) = Catalogue(folder, cache).videos()
    return video


def test_a_renamed_file_keeps_its_id(folder: Path, cache: Path) -> None:
    film(folder / "a.mp4", 10)
    catalogue = Catalogue(folder, cache)
    assert [video.id for video in catalogue.videos()] == ["a"]
    (folder / "a.mp4").rename(folder / "b.mp4")
    assert [(video.id, video.name, video.title) for video in catalogue.videos()] == [("a", "b.mp4", "b")]
    assert ids(folder, cache) == {"b.mp4": "a"}, "also for another process, and after a restart"


def test_a_folder_that_was_renamed_keeps_the_ids_of_all_that_is_in_it(folder: Path, cache: Path) -> None:
    for number in range(3):
        film(folder / "old" / f"{number}.mp4", 40 * number)
    film(folder / "old" / "copy of 0.mp4", 0)
    before = ids(folder, cache)
    assert len(set(before.values())) == 4
    (folder / "old").rename(folder / "new")
    assert ids(folder, cache) == {name.replace("old", "new"): video_id for name, video_id in before.items()}


def test_another_film_under_an_old_name_gets_an_id_of_its_own(folder: Path, cache: Path) -> None:
    film(folder / "a.mp4", 10)
    assert ids(folder, cache) == {"a.mp4": "a"}
    film(folder / "a.mp4", 90)
    second = ids(folder, cache)["a.mp4"]
    assert second != "a"
    film(folder / "a.mp4", 170)
    assert ids(folder, cache)["a.mp4"] not in {"a", second}
    film(folder / "came back.mp4", 10)
    assert ids(folder, cache)["came back.mp4"] == "a"


def test_another_film_under_the_name_of_one_that_has_moved(folder: Path, cache: Path) -> None:
    film(folder / "a.mp4", 10)
    ids(folder, cache)
    (folder / "a.mp4").rename(folder / "b.mp4")
    film(folder / "a.mp4", 90)
    after = ids(folder, cache)
    assert after["b.mp4"] == "a"
    assert after["a.mp4"] != "a"


def test_two_files_that_changed_names_with_each_other(folder: Path, cache: Path) -> None:
    film(folder / "a.mp4", 10)
    film(folder / "b.mp4", 90, frames=13)
    ids(folder, cache)
    (folder / "a.mp4").rename(folder / "c.mp4")
    (folder / "b.mp4").rename(folder / "a.mp4")
    (folder / "c.mp4").rename(folder / "b.mp4")
    assert ids(folder, cache) == {"a.mp4": "b", "b.mp4": "a"}


def test_a_copy_is_a_video_of_its_own(folder: Path, cache: Path) -> None:
    film(folder / "a.mp4", 10)
    ids(folder, cache)
    shutil.copy(folder / "a.mp4", folder / "b.mp4")
    assert ids(folder, cache) == {"a.mp4": "a", "b.mp4": "b"}


@pytest.mark.parametrize("touched", ["retagged", "grown", "touched", "half there, then whole"])
def test_the_same_film_keeps_its_id_when_its_file_changes(folder: Path, cache: Path, touched: str) -> None:
    path = film(folder / "a.mkv", 10, frames=60)
    assert ids(folder, cache) == {"a.mkv": "a.mkv"}
    if touched == "retagged":
        film(path, 10, frames=60, title="Another title")
    elif touched == "grown":
        film(path, 10, frames=300)
    elif touched == "touched":
        os.utime(path, (1, 1))
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[:100])
        assert the_video(folder, cache).broken
        assert ids(folder, cache) == {"a.mkv": "a.mkv"}
        path.write_bytes(whole)
    assert ids(folder, cache) == {"a.mkv": "a.mkv"}


def test_the_same_film_in_another_container_under_another_name(folder: Path, cache: Path) -> None:
    path = film(folder / "a.mkv", 10, frames=60)
    ids(folder, cache)
    with av.open(str(path)) as source, av.open(str(folder / "b.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    path.unlink()
    assert ids(folder, cache) == {"b.mp4": "a.mkv"}


def test_without_a_cache_ids_are_those_of_names(folder: Path, cache: Path) -> None:
    film(folder / "a.mp4", 10)
    film(folder / "Films" / "my film.mp4", 90)
    before = ids(folder, cache)
    assert before == {"a.mp4": "a", "Films/my film.mp4": id_of("Films/my film.mp4")}
    shutil.rmtree(cache)
    assert ids(folder, cache) == before


def test_what_was_there_once_is_known_and_keeps_its_title(folder: Path, cache: Path) -> None:
    make_clip(folder / "a.mp4", title="Kept")
    catalogue = Catalogue(folder, cache)
    catalogue.videos()
    folder.rename(folder.with_name("away"))  # the share
    later = Catalogue(folder, cache)
    assert later.videos() == []
    assert later.problem == "cannot be read: No such file or directory"
    assert (later.knows("a"), later.title("a")) == (True, "Kept")
    assert later.knows("never-heard-of") is None, "it may be in the folder that is away"
    folder.with_name("away").rename(folder)
    assert later.knows("never-heard-of") is False
    assert later.problem is None


def test_a_file_that_another_process_has_listed_is_known_though_this_one_looked_a_moment_ago(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip(folder / "a.mp4")
    one, other = Catalogue(folder, cache), Catalogue(folder, cache)
    other.videos()
    monkeypatch.setattr(module, "FRESH_ON_MISS_S", 60.0)
    make_clip(folder / "b.mp4")
    one.videos()
    assert other.knows("b")
