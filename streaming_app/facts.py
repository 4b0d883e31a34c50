"""What is read from a video file: its title, its length, a picture; and where that is kept."""

from __future__ import annotations

import contextlib
import math
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import msgspec
import structlog
from av.container import InputContainer
from av.video.frame import VideoFrame

log = structlog.get_logger(__name__)

#: A file may be so made that looking for its streams reads all of it. Seconds to open it, and for each read.
OPEN_TIMEOUT_S = (5.0, 5.0)
TITLE_CHARS = 200
POSTER_WIDTH_PX = 480
#: JPEG quantiser, 2 (best) to 31: 5 gives about 20 kB a poster.
POSTER_QUANTISER = 5
#: Where in the video its poster is taken: past black frames and fades, as far as that goes.
POSTER_AT = 0.1


class Facts(msgspec.Struct, frozen=True):
    """What a file says about itself; it did so when it had this size and time. `title` None: the file names none."""

    size_bytes: int
    mtime_ns: int
    title: str | None = None
    duration_s: float | None = None
    broken: str | None = None


def read_facts(path: Path, size_bytes: int, mtime_ns: int) -> Facts:
    """Open the file and look. Raises nothing for a broken one: `broken` says why."""
    if not size_bytes:
        return Facts(size_bytes, mtime_ns, broken="the file is empty")
    try:
        with _opened(path) as container:
            if not container.streams.video:
                return Facts(size_bytes, mtime_ns, broken="there is no picture in it")
            return Facts(size_bytes, mtime_ns, _title(container), _duration_s(container))
    except (av.FFmpegError, OSError, ValueError, LookupError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return Facts(size_bytes, mtime_ns, broken=f"it cannot be read as a video: {reason}")


def write_poster(video: Path, poster: Path) -> None:
    """Write a JPEG of a frame near the beginning; an empty file when none can be decoded: nobody need try again."""
    try:
        with _opened(video) as container:
            picture = _jpeg(_frame(container))
    except (av.FFmpegError, OSError, ValueError, LookupError) as error:
        log.info("no poster", video=video.name, reason=str(error))
        picture = b""
    write_whole(poster, picture)


class FactsCache:
    """Facts by file name, kept in one JSON file. Whoever writes last wins: the other reads some files again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._facts: dict[str, Facts] = {}
        # A cache that is absent, damaged or from another version is an empty one.
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            self._facts = msgspec.json.decode(path.read_bytes(), type=dict[str, Facts])

    def get(self, name: str, size_bytes: int, mtime_ns: int) -> Facts | None:
        """What is known, unless the file has changed since."""
        facts = self._facts.get(name)
        return facts if facts and (facts.size_bytes, facts.mtime_ns) == (size_bytes, mtime_ns) else None

    def put(self, name: str, facts: Facts) -> None:
        self._facts[name] = facts

    def save(self) -> None:
        """Write the file. What was broken is left out: it is worth another look at the next start."""
        facts = {name: facts for name, facts in self._facts.items() if not facts.broken}
        try:
            write_whole(self._path, msgspec.json.encode(facts))
        except OSError as error:
            log.warning("catalogue not cached", path=str(self._path), reason=error.strerror)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that another process sees the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        file.write(content)
    Path(file.name).replace(path)


def _opened(path: Path) -> InputContainer:
    # Only the given formats: a file that calls itself .mp4 must not be read as a playlist that names other files.
    return av.open(
        str(path),
        metadata_errors="replace",
        timeout=OPEN_TIMEOUT_S,
        options={"format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm", "protocol_whitelist": "file"},
    )


def _title(container: InputContainer) -> str | None:
    named = "".join(char if char.isprintable() else " " for char in container.metadata.get("title", ""))
    return " ".join(named.split())[:TITLE_CHARS] or None


def _duration_s(container: InputContainer) -> float | None:
    seconds = container.duration / av.time_base if container.duration else 0.0
    return round(seconds, 3) if math.isfinite(seconds) and seconds > 0 else None


def _frame(container: InputContainer) -> VideoFrame:
    """The key frame before POSTER_AT. Raises LookupError when nothing decodes."""
    container.seek(int((container.duration or 0) * POSTER_AT))
    for frame in container.decode(video=0):
        return frame
    raise LookupError("no frame")


def _jpeg(frame: VideoFrame) -> bytes:
    width = min(POSTER_WIDTH_PX, frame.width) // 2 * 2
    height = max(frame.height * width // frame.width // 2 * 2, 2)
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = Fraction(1, 1)
    encoder.options = {"qscale": str(POSTER_QUANTISER)}
    picture = frame.reformat(width=width, height=height, format="yuvj420p")
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])
