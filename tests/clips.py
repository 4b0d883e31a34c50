"""Small real videos for tests."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

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


def sparse(path: Path, size: int) -> Path:
    """A file of `size` bytes that takes no room on the disk. No demuxer can read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    return path
