"""Makes posters on request, one at a time in a separate process, and stores them below the cache."""

from __future__ import annotations

import os
import queue
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import time

import structlog

from service.atomic_file import write_whole
from streaming_app.videos.library_files import open_inside
from streaming_app.videos.video_reader import READ_S, ReaderAway, Unreadable, VideoReader

log = structlog.get_logger(__name__)

#: Seconds that a caller waits for a new poster. Most take a tenth of that.
WAIT_S = 1.0
#: Callers that may wait at the same time, because each blocks a thread. Others get "not ready" at once.
WAITING = 8
#: Posters that may wait to be made.
ORDERED = 500
#: Seconds after which a video without a picture is tried again.
RETRY_S = 3_600.0
#: Content of `KEY.none` while a process makes the poster. If it is older than this, that process died.
BEING_MADE = b"being made"
MADE_WITHIN_S = 2 * READ_S
#: Seconds for which the poster of a missing video is kept, because the share may only be away.
STALE_S = 86_400.0


class PosterNotReady(Exception):
    """The poster is being made, or cannot be made just now. Raised by `Posters.get`; answered with 503
    and Retry-After.
    """


@dataclass(frozen=True, slots=True)
class Picture:
    """Identifies a poster: the name of its file in the folder, and a key that changes when the picture changes."""

    name: str
    key: str


class Posters:
    """The posters of the videos of `folder`, stored as `cache/KEY.jpg`, or `KEY.none` if no poster can be made."""

    def __init__(self, folder: Path, cache: Path, reader: VideoReader) -> None:
        self._folder = folder
        self._cache = cache
        self._reader = reader
        self._lock = threading.Lock()
        self._waiting = threading.BoundedSemaphore(WAITING)
        self._ordered: dict[str, Future[Path | None]] = {}
        self._orders: queue.Queue[Picture] = queue.Queue(ORDERED)
        self._maker: threading.Thread | None = None

    def get(self, picture: Picture) -> Path | None:
        """Return the JPEG, or None if there can be none. Raises PosterNotReady after at most WAIT_S."""
        path = self._path(picture)
        if path.exists():
            return path
        made = self._ordered.get(picture.key)
        if made is None:
            if self._has_none(picture):
                return None
            made = self._order(picture)
        if not self._waiting.acquire(blocking=False):
            raise PosterNotReady("many posters are being made")
        try:
            return made.result(WAIT_S)
        except NotYet:
            raise PosterNotReady("it is being made") from None
        finally:
            self._waiting.release()

    def prune(self, keys: set[str]) -> None:
        """Remove posters whose key is not among `keys`, and has not been for STALE_S."""
        with suppress(OSError):
            for path in self._cache.iterdir():
                if path.stem not in keys and path.stat().st_mtime < time() - STALE_S:
                    path.unlink(missing_ok=True)

    def _order(self, picture: Picture) -> Future[Path | None]:
        with self._lock:
            made = self._ordered.get(picture.key)
            if made is None:
                try:
                    self._orders.put_nowait(picture)
                except queue.Full:
                    raise PosterNotReady("many posters are being made") from None
                made = self._ordered[picture.key] = Future()
            if self._maker is None:
                self._maker = threading.Thread(target=self._make_all, name="posters", daemon=True)
                self._maker.start()
            return made

    def _make_all(self) -> None:
        while True:
            picture = self._orders.get()
            try:
                path, error = self._make(picture), None
            except (ReaderAway, PosterNotReady) as reason:
                path, error = None, PosterNotReady(str(reason))
            except OSError as reason:
                log.warning("no poster can be kept", reason=str(reason))
                path, error = None, None
            with self._lock:
                made = self._ordered.pop(picture.key)
            if error is None:
                made.set_result(path)
            else:
                made.set_exception(error)

    def _make(self, picture: Picture) -> Path | None:
        path, none = self._path(picture), self._path(picture).with_suffix(".none")
        if path.exists() or self._has_none(picture):  # another process was faster
            return path if path.exists() else None
        try:
            file = open_inside(self._folder, picture.name)
        except OSError:  # the file is gone or a link leads out of the library
            return None
        # Written before the video is read. If reading kills the process, the poster is not tried again at once.
        write_whole(none, BEING_MADE)
        try:
            write_whole(path, self._reader.poster(file.descriptor))
        except Unreadable as error:
            log.info("no poster", video=picture.name, reason=str(error))
            write_whole(none, b"")
            return None
        except ReaderAway:
            none.unlink(missing_ok=True)
            raise
        finally:
            os.close(file.descriptor)
        none.unlink(missing_ok=True)
        return path

    def _has_none(self, picture: Picture) -> bool:
        """Return whether no poster can be made. Raises PosterNotReady while a process is making it."""
        none = self._path(picture).with_suffix(".none")
        try:
            age_s, is_being_made = time() - none.stat().st_mtime, none.read_bytes() == BEING_MADE
        except OSError:
            return False
        if is_being_made and age_s < MADE_WITHIN_S:
            raise PosterNotReady("it is being made")
        return age_s < RETRY_S

    def _path(self, picture: Picture) -> Path:
        return self._cache / f"{picture.key}.jpg"
