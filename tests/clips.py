"""Small real videos for tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

#: Frames a second.
RATE = 10
CODECS = {".mp4": "libx264", ".m4v": "libx264", ".mkv": "libx264", ".webm": "libvpx"}


def make_clip(path: Path, *, title: str | None = None, frames: int = 10) -> Path:
    """A video of 64 x 48 pixels and 10 frames a second; the ending of the name says which container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        if title is not None:
            container.metadata["title"] = title
        stream = cast(VideoStream, container.add_stream(CODECS[path.suffix], rate=10))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            frame = VideoFrame(64, 48, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([number * 20 % 256]) * plane.buffer_size)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def make_film(path: Path, *, seconds: int, starts_at_s: int = 0) -> Path:
    """A picture that does not move, with its first timestamp there, as a camera writes the time of day."""
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", RATE
        for number in range(seconds * RATE):
            frame = VideoFrame(64, 48, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([128]) * plane.buffer_size)
            frame.pts, frame.time_base = starts_at_s * RATE + number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def make_unshowable(path: Path, *, with_sound: bool) -> Path:
    """A video of 5 s with a codec that browsers do not know: they play its sound, or nothing."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=RATE)
        sound = container.add_stream("aac", rate=8_000, layout="mono") if with_sound else None
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        for number in range(5 * RATE):
            frame = VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        if sound:
            for number in range(40):
                silence = AudioFrame(format="fltp", layout="mono", samples=1024)
                silence.planes[0].update(bytes(silence.planes[0].buffer_size))
                silence.sample_rate, silence.pts, silence.time_base = 8_000, number * 1024, Fraction(1, 8_000)
                container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    return path


def sparse(path: Path, size: int) -> Path:
    """A file of `size` bytes that takes no room on the disk. No demuxer can read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    return path
