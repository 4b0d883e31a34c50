"""The catalogue of a folder: ids, titles, broken files, what comes and goes."""

import os
import re
import threading
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_app.videos import catalogue as module
from streaming_app.videos import posters
from streaming_app.videos.catalogue import Catalogue
from streaming_app.videos.titles import id_of
from streaming_app.videos.video_reader import Metadata, VideoReader
from tests.clips import make_clip, sparse
from tests.waiting import until

ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return (tmp_path / "videos").absolute()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    monkeypatch.setattr(module, "FRESH_ON_MISS_S", 0.0)
    monkeypatch.setattr(module, "PATIENCE_S", 30.0)
    monkeypatch.setattr(posters, "WAIT_S", 30.0)


def test_what_a_video_says_about_itself(folder: Path, cache: Path) -> None:
    path = make_clip(folder / "holiday.mp4", title="  Our\nholiday ", frames=20)
    (video,) = Catalogue(folder, cache).videos()
    assert (video.id, video.title, video.duration_s) == ("holiday", "Our holiday", 2.0)
    assert (video.size_bytes, video.mtime_ns, video.path) == (path.stat().st_size, path.stat().st_mtime_ns, path)
    assert (video.content_type, video.broken) == ("video/mp4", None)


@pytest.mark.parametrize(
    ("name", "video_id", "content_type"),
    [("a.webm", "a.webm", "video/webm"), ("a.mkv", "a.mkv", "video/x-matroska"), ("a.m4v", "a.m4v", "video/mp4")],
)
def test_the_other_containers(folder: Path, cache: Path, name: str, video_id: str, content_type: str) -> None:
    make_clip(folder / name)
    (video,) = Catalogue(folder, cache).videos()
    assert (video.id, video.content_type, video.broken) == (video_id, content_type, None)
    assert video.duration_s == pytest.approx(1, abs=0.2)


def test_without_a_title_the_file_name_is_one(folder: Path, cache: Path) -> None:
    make_clip(folder / "my_first film.mp4")
    assert [video.title for video in Catalogue(folder, cache).videos()] == ["my first film"]


def test_videos_are_sorted_by_title_in_any_case(folder: Path, cache: Path) -> None:
    for name, title in (("1", "banana"), ("2", "Apple"), ("3", "Cherry")):
        make_clip(folder / f"{name}.mp4", title=title)
    assert [video.title for video in Catalogue(folder, cache).videos()] == ["Apple", "banana", "Cherry"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_broken_files_are_listed_as_broken_and_the_others_are_not(folder: Path, cache: Path, suffix: str) -> None:
    make_clip(folder / "good.mp4")
    sparse(folder / f"empty{suffix}", 0)
    sparse(folder / f"zeros{suffix}", 5 * 2**30)
    (folder / f"text{suffix}").write_text("not a video\n" * 1000)
    (folder / f"list{suffix}").write_text(f"#EXTM3U\n#EXTINF:1,\n{folder}/good.mp4\n")
    whole = make_clip(folder / f"cut{suffix}", frames=50).read_bytes()
    (folder / f"cut{suffix}").write_bytes(whole[: len(whole) // 3] if suffix == ".mp4" else whole[:40])
    catalogue = Catalogue(folder, cache)
    broken = {video.path.stem: video.broken for video in catalogue.videos()}
    assert broken.pop("good") is None
    assert set(broken) == {"empty", "zeros", "text", "list", "cut"}
    assert all(broken.values())
    assert broken["empty"] == "the file is empty"
    assert not any(str(folder) in str(reason) for reason in broken.values())
    assert all(catalogue.poster(video.id) is None for video in catalogue.videos() if video.broken)


def test_files_that_come_go_and_change_are_noticed(folder: Path, cache: Path) -> None:
    catalogue = Catalogue(folder, cache)
    assert catalogue.videos() == []  # not even the folder is there
    make_clip(folder / "a.mp4", title="First")
    assert [video.title for video in catalogue.videos()] == ["First"]
    make_clip(folder / "a.mp4", title="Second", frames=30)
    make_clip(folder / "b.mp4", title="Third", frames=5)
    assert [(video.title, video.duration_s) for video in catalogue.videos()] == [("Second", 3.0), ("Third", 0.5)]
    (folder / "a.mp4").unlink()
    assert [video.id for video in catalogue.videos()] == ["b"]
    assert catalogue.get("a") is None
    assert catalogue.knows("a"), "what was watched of it may still be on its way"


def test_an_id_that_another_process_has_listed_already_is_found(folder: Path, cache: Path) -> None:
    catalogue = Catalogue(folder, cache)
    catalogue.videos()
    make_clip(folder / "new.mp4")
    assert catalogue.get_nowait("new") is None
    assert catalogue.get("new") is not None
    assert catalogue.get_nowait("new") is not None


def test_unknown_ids_do_not_look_at_the_folder_again_and_again(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRESH_ON_MISS_S", 60.0)
    catalogue = Catalogue(folder, cache)
    assert catalogue.get("new") is None
    make_clip(folder / "new.mp4")
    assert catalogue.get("new") is None


def test_what_was_read_is_kept_for_the_next_start(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clip(folder / "a.mp4", title="Kept")
    before = Catalogue(folder, cache).videos()

    def not_again(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(VideoReader, "metadata", not_again)
    assert Catalogue(folder, cache).videos() == before


@pytest.mark.parametrize("content", [b"", b"{", b"\xff" * 10_000, b"SQLite format 3\0" + b"\1" * 10_000])
def test_a_damaged_cache_is_an_empty_one(folder: Path, cache: Path, content: bytes) -> None:
    make_clip(folder / "a.mp4", title="Read again")
    Catalogue(folder, cache).videos()
    (kept,) = cache.glob("catalogue-*.sqlite")
    for path in cache.glob("catalogue-*.sqlite-*"):
        path.unlink()
    kept.write_bytes(content)
    assert [video.title for video in Catalogue(folder, cache).videos()] == ["Read again"]
    assert [video.title for video in Catalogue(folder, cache).videos()] == ["Read again"]


def test_a_cache_that_cannot_be_written_is_done_without(folder: Path, cache: Path) -> None:
    make_clip(folder / "a.mp4")
    cache.write_text("a file where the folder should be")
    assert [video.id for video in Catalogue(folder, cache).videos()] == ["a"]


def test_two_processes_may_look_at_once(folder: Path, cache: Path) -> None:
    for number in range(20):
        make_clip(folder / f"{number}.mp4", frames=2)
    catalogues = [Catalogue(folder, cache) for _ in range(4)]
    threads = [threading.Thread(target=catalogue.videos) for catalogue in catalogues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {len(catalogue.videos()) for catalogue in catalogues} == {20}


def test_a_listing_waits_only_a_while_for_a_slow_look(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    make_clip(folder / "a.mp4", title="Slow")
    read, gate = VideoReader.metadata, threading.Event()

    def slow(reader: VideoReader, descriptor: int) -> Metadata:
        gate.wait(10)
        return read(reader, descriptor)

    monkeypatch.setattr(VideoReader, "metadata", slow)
    catalogue = Catalogue(folder, cache)
    assert [(video.title, video.duration_s) for video in catalogue.videos()] == [("a", None)]
    gate.set()
    until(lambda: catalogue.videos()[0].title == "Slow", what="the title of the file")


def test_links_out_of_the_folder_and_hidden_files_are_left_out(folder: Path, cache: Path, tmp_path: Path) -> None:
    outside = make_clip(tmp_path / "elsewhere" / "private.mp4")
    inside = make_clip(folder / "real.mp4")
    (folder / "out.mp4").symlink_to(outside)
    (folder / "in.mp4").symlink_to(inside)
    (folder / "tree").symlink_to(outside.parent)
    (folder / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (folder / "round.mp4").symlink_to(folder / "round.mp4")
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    make_clip(folder / ".upload.mp4")
    make_clip(folder / ".trash" / "old.mp4")
    (folder / "notes.txt").write_text("no video")
    (folder / os.fsdecode(b"latin-\xe9.mp4")).write_bytes(b"")
    assert {video.id for video in Catalogue(folder, cache).videos()} == {"real", "in"}


@pytest.mark.parametrize("video_id", ["../a", "..", "/etc/passwd", "a.mp4", "sub/a", "", "\0", "a\n", "x" * 5000])
def test_an_id_is_never_a_path(folder: Path, cache: Path, video_id: str) -> None:
    make_clip(folder / "a.mp4")
    assert Catalogue(folder, cache).get(video_id) is None


def test_ids_of_names_that_look_alike_differ(folder: Path, cache: Path) -> None:
    names = ["a.mp4", "a.webm", "a.MKV", "sub/a.mp4", "sub-a.mp4", "sub a.mp4", "süb.mp4", "s\u0308b.mp4", "\u4e00.mp4"]
    names.append(f"{id_of('sub a.mp4')}.mp4")  # even one that takes another's id for its name
    for name in names:
        sparse(folder / name, 1)
    videos = Catalogue(folder, cache).videos()
    assert len({video.id for video in videos}) == len(names) == len(videos)
    assert all(ID.fullmatch(video.id) for video in videos)
    assert {"a", "a.webm", "sub-a"} <= {video.id for video in videos}


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300))
def test_every_name_has_an_id_of_the_contract(name: str) -> None:
    assert ID.fullmatch(id_of(f"{name}.mp4"))
    assert ID.fullmatch(id_of(f"{name}.webm"))


def test_a_poster_is_a_jpeg_made_once(folder: Path, cache: Path) -> None:
    make_clip(folder / "a.mp4")
    catalogue = Catalogue(folder, cache)
    poster = catalogue.poster("a")
    assert poster is not None
    assert poster.is_relative_to(cache)
    assert poster.read_bytes().startswith(b"\xff\xd8\xff")
    made = poster.stat().st_mtime_ns
    assert catalogue.poster("a") == poster
    assert poster.stat().st_mtime_ns == made
    assert catalogue.poster("nobody") is None


def test_no_poster_where_no_frame_can_be_decoded(folder: Path, cache: Path) -> None:
    path = make_clip(folder / "a.mp4", frames=50)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    content[start : start + 2000] = bytes(2000)
    path.write_bytes(content)
    assert Catalogue(folder, cache).poster("a") is None
    assert Catalogue(folder, cache).poster("a") is None


def test_no_poster_of_a_video_that_is_gone(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(folder / "a.mp4")
    catalogue = Catalogue(folder, cache)
    catalogue.videos()
    monkeypatch.setattr(module, "FRESH_ON_MISS_S", 60.0)
    path.unlink()
    assert catalogue.poster("a") is None


def test_a_file_that_carries_the_wall_clock_is_as_long_as_it_plays(folder: Path, cache: Path) -> None:
    plain = make_clip(folder / "plain.mkv", frames=60)
    with av.open(str(plain)) as source, av.open(str(folder / "camera.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.pts is not None and packet.dts is not None:
                packet.stream = stream
                packet.pts, packet.dts = packet.pts + 1_700_000_000_000, packet.dts + 1_700_000_000_000
                target.mux(packet)
    videos = {video.id: video for video in Catalogue(folder, cache).videos()}
    assert videos["camera.mkv"].duration_s == pytest.approx(6, abs=0.5)
    assert videos["camera.mkv"].start_s == pytest.approx(1_700_000_000, abs=1)
    assert videos["plain.mkv"].start_s == pytest.approx(0, abs=0.5)


def test_of_a_file_that_was_cut_off_only_what_is_there_counts(folder: Path, cache: Path) -> None:
    path = make_clip(folder / "a.mp4", frames=100)
    index_first = folder / "cut.mp4"
    with av.open(str(path)) as source, av.open(str(index_first), "w", options={"movflags": "+faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = index_first.read_bytes()
    data = content.index(b"mdat")
    index_first.write_bytes(content[: data + (len(content) - data) // 2])
    videos = {video.id: video for video in Catalogue(folder, cache).videos()}
    assert videos["a"].duration_s == 10.0
    assert 0 < (videos["cut"].duration_s or 0) < 9
