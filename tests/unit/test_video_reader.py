"""Videos are read in a process with limits: what one file can do, and what it cannot."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from streaming_app.videos import video_reader
from streaming_app.videos.catalogue import Catalogue
from streaming_app.videos.catalogue_store import ATTEMPTS, NEVER_ENDS, CatalogueStore, File
from streaming_app.videos.titles import TITLE_CHARS
from streaming_app.videos.video_reader import TOO_LONG, TOO_MUCH_MEMORY, Metadata, Unreadable, VideoReader
from tests.clips import make_clip
from tests.waiting import until

MEMORY_BYTES = 256 * 1024 * 1024


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[VideoReader]:
    monkeypatch.setattr(video_reader, "READ_S", 60.0)
    reader = VideoReader(MEMORY_BYTES)
    yield reader
    reader.stop()


def read(reader: VideoReader, path: Path) -> Metadata:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return reader.metadata(descriptor)
    finally:
        os.close(descriptor)


def process_of(reader: VideoReader) -> psutil.Process:
    reader.start()
    assert reader._process is not None  # noqa: SLF001
    return psutil.Process(reader._process.pid)  # noqa: SLF001


def with_title_of(path: Path, size: int) -> Path:
    """A whole film whose title has `size` characters, most of them a hole in the file."""
    make_clip(path)
    content = path.read_bytes()
    at = content.index(b"moov") - 4
    length = int.from_bytes(content[at : at + 4])
    head, rest = content[at + 8 : at + length], content[at + length :]
    sizes = [16, 8, 8, 12, 8]  # data, ©nam, ilst, meta, udta: what each has before the next
    names = [b"data", b"\xa9nam", b"ilst", b"meta", b"udta"]
    hdlr = struct.pack(">I4s", 33, b"hdlr") + bytes(8) + b"mdirappl" + bytes(9)
    total, boxes = size, b""
    for name, own in zip(names, sizes, strict=True):
        total += own + (len(hdlr) if name == b"meta" else 0)
        extra = {b"data": struct.pack(">II", 1, 0), b"meta": bytes(4) + hdlr}.get(name, b"")
        boxes = struct.pack(">I4s", total, name) + extra + boxes
    assert not rest, "the index is last"
    with path.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack(">I4s", 8 + len(head) + total, b"moov") + head + boxes + b"T" * min(size, 1000))
        file.truncate(at + 8 + len(head) + total)
    return path


def test_a_long_title_is_cut(reader: VideoReader, tmp_path: Path) -> None:
    title = read(reader, with_title_of(tmp_path / "long.mp4", 900)).title
    assert title == "T" * TITLE_CHARS


def test_a_file_that_takes_too_much_memory_says_so_and_the_next_is_read(reader: VideoReader, tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=TOO_MUCH_MEMORY) as error:
        read(reader, with_title_of(tmp_path / "bomb.mp4", 2 * MEMORY_BYTES))
    assert error.value.costly
    assert read(reader, make_clip(tmp_path / "good.mp4")).duration_s == 1.0


def test_a_file_that_takes_too_long_says_so_and_the_next_is_read(
    reader: VideoReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process_of(reader).suspend()
    path = make_clip(tmp_path / "good.mp4")
    monkeypatch.setattr(video_reader, "READ_S", 0.1)
    with pytest.raises(Unreadable, match=TOO_LONG):
        read(reader, path)
    monkeypatch.setattr(video_reader, "READ_S", 60.0)
    assert read(reader, path).duration_s == 1.0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_was_killed_before_it_was_asked_does_no_harm(
    reader: VideoReader, tmp_path: Path, number: signal.Signals
) -> None:
    process = process_of(reader)
    process.send_signal(number)
    process.wait()
    assert read(reader, make_clip(tmp_path / "good.mp4")).duration_s == 1.0


def test_it_knows_no_secret_and_can_write_nothing(reader: VideoReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "not-for-readers")
    process = process_of(reader)
    assert "SECRET_KEY" not in process.environ()
    assert process.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert process.rlimit(psutil.RLIMIT_AS) == (MEMORY_BYTES, MEMORY_BYTES)
    assert {Path(file.path).suffix for file in process.open_files()} <= {""}


OWNER = (
    "import signal; from streaming_app.videos.video_reader import VideoReader; r = VideoReader(400 * 2**20); r.start();"
    "print(r._process.pid, flush=True); signal.pause()"
)


def test_it_ends_with_the_process_that_started_it() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, what="its end")


def test_a_file_that_ends_everything_is_left_alone_after_some_attempts(tmp_path: Path) -> None:
    file = File("a.mp4", "a", 10, 10)
    for _ in range(ATTEMPTS):  # each is the last thing that a process did
        store = CatalogueStore(tmp_path / "catalogue.sqlite")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("streaming_app.videos.catalogue_store.CLAIM_S", -1.0)
            assert store.claim(file)
    store = CatalogueStore(tmp_path / "catalogue.sqlite")
    assert not store.claim(file)
    assert store.files()["a.mp4"].broken == NEVER_ENDS
    assert not store.claim(file)
    assert store.claim(File("a.mp4", "a", 11, 11)), "a file that has changed is another"


def test_two_processes_do_not_read_the_same_file(tmp_path: Path) -> None:
    stores = [CatalogueStore(tmp_path / "catalogue.sqlite") for _ in range(2)]
    file = File("a.mp4", "a", 10, 10)
    assert [store.claim(file) for store in stores] == [True, False]
    stores[0].put(file, Metadata("A", 5.0), lambda *_: False)
    assert not stores[1].claim(file)
    assert stores[1].files()["a.mp4"].metadata == Metadata("A", 5.0)


def test_a_costly_file_is_not_read_again_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming_app.videos.catalogue.PATIENCE_S", 60.0)
    with_title_of(tmp_path / "videos" / "bomb.mp4", 2 * MEMORY_BYTES)
    (video,) = Catalogue(tmp_path / "videos", tmp_path / "cache", MEMORY_BYTES).videos()
    assert video.broken == TOO_MUCH_MEMORY

    def not_again(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(VideoReader, "metadata", not_again)
    (video,) = Catalogue(tmp_path / "videos", tmp_path / "cache", MEMORY_BYTES).videos()
    assert video.broken == TOO_MUCH_MEMORY
