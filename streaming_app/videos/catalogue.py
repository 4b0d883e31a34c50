"""The catalogue: the videos of a folder, their metadata, and a poster for each."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, sleep, time

import structlog

from streaming_app.videos.catalogue_store import CLAIM_S, CatalogueStore, File, Known
from streaming_app.videos.library_files import OpenFile, OpenFiles, open_inside
from streaming_app.videos.posters import Picture, Posters
from streaming_app.videos.titles import clean_title, id_of, short_hash
from streaming_app.videos.video_reader import MEMORY_BYTES, ReaderAway, Unreadable, reader_for

log = structlog.get_logger(__name__)

#: File extensions of videos, and the content type of each.
CONTENT_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".mkv": "video/x-matroska"}
#: Seconds after which a listing reads the folder again. For 5,000 files that takes about 0.2 s, in its own thread.
FRESH_S = 5.0
#: Seconds after which an unknown id reads the folder again, because another process may have listed a new file.
FRESH_ON_MISS_S = 1.0
#: Seconds after which the folder is read again while views are recorded, even if nobody lists the library.
FRESH_IN_USE_S = 60.0
#: Seconds that a caller waits while the folder is read. With many new files, reading continues after that in the
#: background.
PATIENCE_S = 1.0
#: A file that was written to less than this many seconds ago may still grow, so its length may not be final.
GROWING_S = 60.0
#: Seconds between two searches for posters of deleted videos.
PRUNE_EVERY_S = 3_600.0
#: Errors that say: not permitted. A file or folder with another error is only away for now, so its content is unknown.
FORBIDDEN = {errno.EACCES, errno.EPERM}
GONE = {errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EXDEV, errno.EINVAL}


@dataclass(frozen=True, slots=True)
class Video:
    """One file of the folder. `duration_s` is the playable length in seconds, or None if it is unknown or not read yet.

    `start_s` is the timestamp of the first picture, 0 in most files. `growing`: the file was written to a moment ago,
    so `duration_s` may be more by now. `broken` is the reason why the video cannot be played, or None. `place`
    distinguishes videos of the same title: it is the folder or the whole file name. `name` and `path` are for the
    server only and are never made from an id.
    """

    id: str
    title: str
    name: str
    path: Path
    size_bytes: int
    mtime_ns: int
    content_type: str
    duration_s: float | None = None
    start_s: float = 0.0
    growing: bool = False
    broken: str | None = None
    place: str = ""


class Catalogue:
    """The videos of `folder` and its sub-folders. What was read from the files is stored below `cache`.

    Any number of processes may use the same folders. No method raises an error because a file is broken, or appears or
    disappears meanwhile. A file is read in a separate process, which may take at most `reader_memory_bytes`.
    """

    def __init__(self, folder: Path, cache: Path, reader_memory_bytes: int = MEMORY_BYTES) -> None:
        self._folder = folder.resolve()
        library = short_hash(str(self._folder))
        self._store = CatalogueStore(cache / f"catalogue-{library}.sqlite")
        self._reader = reader_for("metadata", reader_memory_bytes)
        # A second reader process, so that posters do not wait while a large library is read for the first time.
        poster_reader = reader_for("posters", reader_memory_bytes)
        self._posters = Posters(self._folder, cache / "posters" / library, poster_reader)
        self._open_files = OpenFiles(self._folder)
        # Readers need no lock: writers replace the whole dict or one of its values. Writers hold `_listing`.
        self._by_id: dict[str, Video] = {}
        self._titles: dict[str, str | None] = {}
        self._id_by_name: dict[str, str] = {}
        self._found: dict[str, File] = {}
        self._listing = threading.Lock()
        #: When the whole folder was last read completely; None while the folder cannot be read.
        self._saw_all_at: float | None = None
        #: Whether there are files that get their id only after they have been read.
        self._is_unrecognised = False
        self._looked_at: float | None = None
        self._pruned_at: float | None = None
        self._has_listed = threading.Event()
        self._look = threading.Lock()
        self._looking: threading.Thread | None = None
        self._reading: threading.Thread | None = None
        #: Why the folder cannot be read, or None. A sentence for the operator.
        self.problem: str | None = None

    @property
    def folder(self) -> Path:
        """The folder with the videos."""
        return self._folder

    @property
    def has_scanned(self) -> bool:
        """Whether the folder has been read since the start, with or without success. Before that, no id
        can be checked.
        """
        return self._has_listed.is_set()

    def videos(self) -> list[Video]:
        """Return all videos, sorted by title. Waits at most PATIENCE_S while the folder is read."""
        self._look_again(older_than_s=FRESH_S, and_read=True)
        return sorted([*self._by_id.values()], key=lambda video: (video.title.casefold(), video.place, video.id))

    def get(self, video_id: str) -> Video | None:
        """Return the video with this id, or None. If the id is unknown, waits at most PATIENCE_S while the folder is
        read.
        """
        if video_id not in self._by_id:
            self._look_again(older_than_s=FRESH_ON_MISS_S, and_read=True)
        return self._by_id.get(video_id)

    def get_nowait(self, video_id: str) -> Video | None:
        """Like `get`, but never waits. So None may also mean "not known yet". For an event loop."""
        return self._by_id.get(video_id)

    def knows(self, video_id: str) -> bool | None:
        """Return whether a video with this id exists or existed; None if that is unknown at the moment. Waits like
        `get`.

        A video may be away for a moment, because its share is away or the file is being replaced. Its views still
        count.
        """
        if self.knows_nowait(video_id):
            return True
        asked_at = monotonic()
        self._look_again(older_than_s=FRESH_ON_MISS_S)
        self._titles = self._store.films()  # another process may have listed it
        if video_id in self._by_id or video_id in self._titles:
            return True
        saw_all = self._saw_all_at is not None and self._saw_all_at >= asked_at - FRESH_ON_MISS_S
        return False if saw_all and not self._is_unrecognised else None

    def knows_nowait(self, video_id: str) -> bool | None:
        """Like `knows`, but never waits and so never returns False. For an event loop."""
        if self._looked_at is not None and monotonic() - self._looked_at > FRESH_IN_USE_S:
            self._start_look(older_than_s=FRESH_IN_USE_S)
        return True if video_id in self._by_id or video_id in self._titles else None

    def duration_s(self, video_id: str) -> float | None:
        """Return the length of the video in seconds, or None if it is unknown. Never waits."""
        video = self._by_id.get(video_id)
        return video.duration_s if video else None

    def title(self, video_id: str) -> str:
        """Return the title of a video, even if the video is gone, or its id if there is no title. Never waits."""
        video = self._by_id.get(video_id)
        if video is None:
            return self._titles.get(video_id) or video_id
        return f"{video.title} ({video.place})" if video.place else video.title

    def open(self, video: Video) -> OpenFile | None:
        """Open the video's file to send it. None if the file is gone or a link leads out of the library."""
        return self._open_files.get(video.name)

    def poster(self, video_id: str) -> Path | None:
        """Return a JPEG of the video, made at the first request; None if there is none. Raises PosterNotReady."""
        video = self.get(video_id)
        if video is None or video.broken:
            return None
        try:
            return self._posters.get(Picture(video.name, _picture_key(video)))
        except OSError:
            return None

    def _look_again(self, older_than_s: float, *, and_read: bool = False) -> None:
        """Read the folder again if the last time is too long ago, and wait at most PATIENCE_S for it."""
        until = monotonic() + PATIENCE_S
        looking = self._start_look(older_than_s)
        if looking is not None:
            looking.join(PATIENCE_S)
        if and_read and self._reading is not None:
            self._reading.join(max(until - monotonic(), 0))

    def _start_look(self, older_than_s: float) -> threading.Thread | None:
        with self._look:
            if self._looked_at is not None and monotonic() - self._looked_at < older_than_s:
                return None
            if self._looking is None or not self._looking.is_alive():
                self._looking = threading.Thread(target=self._scan, name="catalogue", daemon=True)
                self._looking.start()
            return self._looking

    def _scan(self) -> None:
        """Read the folder, and start the thread that reads new files. Runs in its own thread, because it may take
        minutes.
        """
        self._open_files.close_unused()
        try:
            found, is_complete = self._list()
            self._tell_problem(None if found else "has no videos in it")
            self._add(found)
            self._saw_all_at = monotonic() if is_complete else None
        except OSError as error:
            self._saw_all_at = None
            self._tell_problem(f"cannot be read: {error.strerror}")
            self._found = {}
            self._list_all()
        except Exception:
            self._saw_all_at = None
            log.exception("the folder of videos could not be looked at")
        finally:
            self._has_listed.set()
            self._looked_at = monotonic()
        if self._reading is None or not self._reading.is_alive():
            reading = threading.Thread(target=self._read_all, name="reading videos", daemon=True)
            reading.start()
            self._reading = reading  # set after the start, because others join this thread

    def _list(self) -> tuple[dict[str, File], bool]:
        """Return the files by name, and whether the list is complete. Raises OSError if the folder itself cannot be
        read.
        """
        missed: list[OSError] = []
        files = sorted(_files(self._folder, missed), key=lambda file: file.name)
        away = [error for error in missed if error.errno not in FORBIDDEN]
        for error in missed:
            log.debug("part of the library left out", path=repr(error.filename), reason=error.strerror)
        return {file.name: file for file in files}, not away

    def _add(self, found: dict[str, File]) -> None:
        """List the files. A new file appears at once under its file name; its title follows when it has been read."""
        known = self._store.files()
        new = [file for name, file in found.items() if name not in known]
        unchanged = {known[name].id for name, file in found.items() if name in known and known[name].is_of(file)}
        gone = self._store.films().keys() - unchanged
        # If a film is missing, a new file may be that film under another name. Such a file has no id until it has been
        # read.
        self._is_unrecognised = bool(new and gone)
        if new and not gone:
            self._store.add(new)
        self._found = found
        self._list_all()

    def _read_all(self) -> None:
        """Read all files that have not been read. Other processes may do the same at the same time."""
        try:
            until = monotonic() + CLAIM_S
            while unread := self._unread(self._found):
                if any([self._read(file) for file in unread]):  # noqa: C419 (all of them are tried)
                    until = monotonic() + CLAIM_S
                elif monotonic() > until:
                    break
                else:
                    sleep(0.05)  # other processes are reading the rest
            self._store.seen(self._by_id)
        except ReaderAway:
            pass  # already logged where it was raised; the next scan tries again
        except Exception:
            log.exception("the videos could not be read")
        self._list_all()
        self._is_unrecognised = any(name not in self._id_by_name for name in self._found)
        self._prune()

    def _unread(self, found: dict[str, File]) -> list[File]:
        known, now = self._store.files(), time()
        unread = [file for name, file in found.items() if name not in known or not known[name].is_read(file, now)]
        # Changed files first: they may contain another film now.
        return sorted(unread, key=lambda file: file.name not in known)

    def _read(self, file: File) -> bool:
        """Read one file, unless another process reads it. Returns whether the file is done. Raises ReaderAway."""
        if file.size_bytes:
            self._reader.start()
        if not self._store.claim(file):
            return False
        try:
            known = self._known(file)
        except ReaderAway:
            self._store.release(file)
            raise
        if known is None:  # the file has been deleted meanwhile
            self._found = {name: other for name, other in self._found.items() if name != file.name}
            self._store.release(file)
        else:
            self._list_again(file, known)
        return True

    def _known(self, file: File) -> Known | None:
        """Read the file's metadata. None if the file is gone. Raises ReaderAway."""
        if not file.size_bytes:
            return self._store.put_broken(file, "the file is empty", costly=False)
        try:
            opened = open_inside(self._folder, file.name)
        except OSError as error:
            if error.errno in GONE:
                return None
            return self._store.put_broken(file, f"it cannot be opened: {error.strerror}", costly=False)
        try:
            metadata = self._reader.metadata(opened.descriptor)
        except Unreadable as error:
            log.info("video cannot be read", name=file.name, reason=str(error))
            return self._store.put_broken(file, str(error), costly=error.costly)
        finally:
            os.close(opened.descriptor)
        return self._store.put(file, metadata, self._is_there)

    def _is_there(self, name: str, size_bytes: int, mtime_ns: int) -> bool:
        try:
            status = (self._folder / name).stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (size_bytes, mtime_ns)

    def _list_all(self) -> None:
        """List every file that was found and has an id."""
        with self._listing:
            known, self._titles = self._store.files(), self._store.films()
            videos = [self._video(file, known[name]) for name, file in self._found.items() if name in known]
            same_title: defaultdict[str, list[Video]] = defaultdict(list)
            for video in videos:
                same_title[video.title.casefold()].append(video)
            listed = [replace(video, place=place) for same in same_title.values() for video, place in _told_apart(same)]
            self._by_id = {video.id: video for video in listed}
            self._id_by_name = {video.name: video.id for video in listed}

    def _list_again(self, file: File, known: Known) -> None:
        """List one file again, after it has been read."""
        with self._listing:
            id_before = self._id_by_name.get(file.name)
            before = self._by_id.get(id_before or "")
            video = replace(self._video(file, known), place=before.place if before else "")
            self._id_by_name[file.name] = known.id
            if id_before == known.id and before is not None:
                self._by_id[known.id] = video  # replaces one value, so readers of the dict are not disturbed
                return
            gone = id_before if before and before.name == file.name else None
            others = {video_id: other for video_id, other in self._by_id.items() if video_id != gone}
            self._by_id = {**others, known.id: video}

    def _video(self, file: File, known: Known) -> Video:
        path = self._folder / file.name
        metadata = known.metadata
        return Video(
            id=known.id,
            title=(metadata and metadata.title) or clean_title(path.stem.replace("_", " ")) or known.id,
            name=file.name,
            path=path,
            size_bytes=file.size_bytes,
            mtime_ns=file.mtime_ns,
            content_type=CONTENT_TYPES[path.suffix.lower()],
            duration_s=metadata.duration_s if metadata else None,
            start_s=metadata.start_s if metadata else 0.0,
            growing=time() - file.mtime_ns / 1e9 < GROWING_S,
            broken=known.broken,
        )

    def _tell_problem(self, problem: str | None) -> None:
        if problem != self.problem:
            self.problem = problem
            if problem:
                log.warning("no videos", reason=f"the folder {problem}", folder=str(self._folder))
            else:
                log.info("the folder of videos can be read again", folder=str(self._folder))

    def _prune(self) -> None:
        now = monotonic()
        if self.problem is None and (self._pruned_at is None or now - self._pruned_at > PRUNE_EVERY_S):
            self._pruned_at = now
            self._posters.prune({_picture_key(video) for video in self._by_id.values()})


def _picture_key(video: Video) -> str:
    """Return the key of a video's poster. A growing recording keeps its poster; any other change of the file makes a
    new one.
    """
    return short_hash(f"{video.name}-{'' if video.growing else f'{video.size_bytes}-{video.mtime_ns}'}-{video.id}") + (
        "-growing" if video.growing else ""
    )


def _told_apart(same: list[Video]) -> Iterator[tuple[Video, str]]:
    """Return each video of one title with what distinguishes it: nothing if there is only one, else the folder if these
    differ, else the whole name.
    """
    folders = [str(Path(video.name).parent) for video in same]
    for video, folder in zip(same, folders, strict=True):
        if len(same) == 1:
            yield video, ""
        else:
            yield video, clean_title(folder if folder != "." and folders.count(folder) == 1 else video.name)


def _files(folder: Path, missed: list[OSError]) -> Iterator[File]:
    """Yield the files below the folder, except hidden ones (an unfinished upload often is hidden).

    Errors of parts that cannot be read are added to `missed`. Raises OSError if the folder itself cannot be read.
    """
    os.scandir(folder).close()
    for where, folders, names in os.walk(folder, onerror=missed.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(where, name)
            if name.startswith(".") or path.suffix.lower() not in CONTENT_TYPES:
                continue
            try:
                str(path).encode()  # raises if the name is not UTF-8, because such a name cannot be in JSON
                # A link may point to a video in another folder of the library, but never to a file outside it.
                status = path.stat()
                if stat.S_ISREG(status.st_mode) and path.resolve().is_relative_to(folder):
                    below = str(path.relative_to(folder))
                    yield File(below, id_of(below), status.st_size, status.st_mtime_ns)
            except UnicodeEncodeError as error:
                log.debug("file left out", path=repr(path), reason=str(error))
            except (OSError, RuntimeError) as error:
                if isinstance(error, OSError) and error.errno not in GONE:
                    missed.append(error)
                log.debug("file left out", path=repr(path), reason=str(error))
