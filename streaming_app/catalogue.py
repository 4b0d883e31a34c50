"""The catalogue: the videos of a folder, what is known about each, and a poster for each."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import structlog

from streaming_app.facts import Facts, FactsCache, read_facts, write_poster

log = structlog.get_logger(__name__)

#: What the folder may hold, by the ending of the file name.
CONTENT_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".mkv": "video/x-matroska"}
#: A listing older than this looks at the folder again. For 5,000 files that takes about 0.2 s, in a thread of its own.
FRESH_S = 5.0
#: An id that is not known looks again too, for another process may have listed a new file. Not more often than this.
FRESH_ON_MISS_S = 1.0
#: How long a caller waits for a look at the folder. With many new files the rest of it goes on without them.
PATIENCE_S = 1.0
#: Characters of a name in its id. With a hash after it, an id stays below the 128 that it may have.
ID_CHARS = 100
#: A first look at a large library that is broken off has not been for nothing.
SAVE_EVERY_FILES = 200


@dataclass(frozen=True, slots=True)
class Video:
    """One file of the folder. `duration_s` is in seconds, None where the file does not say or has not been looked at.

    `broken` is the reason why it cannot be played, or None. `path` is the server's: it is never made from an id.
    """

    id: str
    title: str
    path: Path
    size_bytes: int
    mtime_ns: int
    content_type: str
    duration_s: float | None = None
    broken: str | None = None


class Catalogue:
    """The videos of `folder` and its sub-folders. What was read from the files is kept below `cache`.

    Any number of processes may use the same folders. Nothing here raises for a file that is broken, or that comes or
    goes meanwhile.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self._folder = folder.resolve()
        self._posters = cache / "posters"
        self._facts = FactsCache(cache / f"catalogue-{_hash(str(self._folder))}.json")
        # Replaced as a whole, never changed: readers need no lock.
        self._by_id: dict[str, Video] = {}
        self._looked_at: float | None = None
        self._look = threading.Lock()
        self._looking: threading.Thread | None = None
        self._poster = threading.Lock()

    def videos(self) -> list[Video]:
        """All of them, by title. Waits PATIENCE_S at the most for a look at the folder."""
        self._look_again(older_than_s=FRESH_S)
        return sorted(self._by_id.values(), key=lambda video: (video.title.casefold(), video.id))

    def get(self, video_id: str) -> Video | None:
        """The video with this id. Waits PATIENCE_S at the most when it is not known yet."""
        if video_id not in self._by_id:
            self._look_again(older_than_s=FRESH_ON_MISS_S)
        return self._by_id.get(video_id)

    def knows(self, video_id: str) -> bool:
        """Whether there is a video with this id; waits like `get`."""
        return self.get(video_id) is not None

    def at_hand(self, video_id: str) -> Video | None:
        """The same as `get`, but never waits: None may also mean "not known yet". For an event loop."""
        return self._by_id.get(video_id)

    def poster(self, video_id: str) -> Path | None:
        """A JPEG of the video, made when it is first asked for; None when there is none."""
        video = self.get(video_id)
        if video is None or video.broken:
            return None
        path = self._posters / f"{_hash(f'{video.path}-{video.size_bytes}-{video.mtime_ns}')}.jpg"
        # One at a time: decoding takes a core, and a page asks for all of them at once.
        with self._poster:
            if not path.exists():
                write_poster(video.path, path)
        return path if path.stat().st_size else None

    def _look_again(self, older_than_s: float) -> None:
        """Start a look at the folder if the last one is too old, and wait for it for a while."""
        with self._look:
            if self._looked_at is not None and monotonic() - self._looked_at < older_than_s:
                return
            if self._looking is None or not self._looking.is_alive():
                self._looking = threading.Thread(target=self._scan, name="catalogue", daemon=True)
                self._looking.start()
            looking = self._looking
        looking.join(PATIENCE_S)

    def _scan(self) -> None:
        try:
            found = {video.id: (name, video) for name, video in _videos(self._folder)}
            facts = {
                video_id: self._facts.get(name, video.size_bytes, video.mtime_ns)
                for video_id, (name, video) in found.items()
            }
            # Listed at once under their file names; titles follow as the files are read.
            by_id = {video_id: _told(video, facts[video_id]) for video_id, (_, video) in found.items()}
            self._by_id = by_id
            unread = [video_id for video_id, known in facts.items() if known is None]
            for count, video_id in enumerate(unread, start=1):
                name, video = found[video_id]
                read = read_facts(video.path, video.size_bytes, video.mtime_ns)
                self._facts.put(name, read)
                by_id[video_id] = _told(video, read)  # replaces a value: nobody who is reading the dict is disturbed
                if count % SAVE_EVERY_FILES == 0 or count == len(unread):
                    self._facts.save()
        finally:
            self._looked_at = monotonic()


def _told(video: Video, facts: Facts | None) -> Video:
    if facts is None:
        return video
    return replace(video, title=facts.title or video.title, duration_s=facts.duration_s, broken=facts.broken)


def _videos(folder: Path) -> Iterator[tuple[str, Video]]:
    """The videos of the folder with their names in it, as far as the file system tells."""
    taken: set[str] = set()
    for name, status in sorted(_files(folder)):
        path = folder / name
        video_id = id_of(name)
        if video_id in taken:
            video_id = f"{video_id[:ID_CHARS]}-{_hash(name)}"
        taken.add(video_id)
        title = path.stem.replace("_", " ").strip() or video_id
        content_type = CONTENT_TYPES[path.suffix.lower()]
        yield name, Video(video_id, title, path, status.st_size, status.st_mtime_ns, content_type)


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Names below the folder, and what they are. Hidden files are left out: an upload under way often is one."""
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(where, name)
            if name.startswith(".") or path.suffix.lower() not in CONTENT_TYPES:
                continue
            try:
                str(path).encode()  # a name that is not UTF-8 has no place in JSON
                # A link may stand for a video in another folder of the library, never for a file outside of it.
                status = path.stat()
                if stat.S_ISREG(status.st_mode) and path.resolve().is_relative_to(folder):
                    yield str(path.relative_to(folder)), status
            except (OSError, UnicodeEncodeError, RuntimeError) as error:
                log.debug("file left out", path=repr(path), reason=str(error))


def id_of(name: str) -> str:
    """The id of a file, from its name below the folder alone: what else is there, comes or goes never changes it.

    `clip-1.mp4` is `clip-1`; another ending stays (`clip-1.webm`). Where characters must give way, a hash of the whole
    name tells apart what would look the same: `Films/Ma mère.mp4` is `Films-Ma-m-re-` and eight hexadecimal digits.
    """
    plain = name.removesuffix(".mp4")
    if re.fullmatch(rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{ID_CHARS - 1}}}", plain):
        return plain
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', plain)[:ID_CHARS]}-{_hash(name)}"


def _hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]
