"""Makes a JPEG of a video as a player shows it: rotated, mirrored and stretched as the file says.

Runs only in the process of `video_reader_child`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.filter import Graph
from av.video.frame import VideoFrame

from streaming_app.videos.video_metadata import ERRORS, failure, opened
from streaming_app.videos.video_reader import PosterAnswer

#: A poster fits into this size. Wide posters are as wide as a card on a high-resolution screen; upright posters are
#: half again as high.
WIDTH_PX, HEIGHT_PX = 480, 720
#: JPEG quantiser from 2 (best) to 31: 5 gives about 20 kB per poster.
QUANTISER = 5
#: The poster is taken at this share of the video, which usually is after black frames and fades.
POSTER_AT = 0.1
#: A file's pixel aspect ratio is used only within these limits.
PIXEL_ASPECTS = (Fraction(1, 10), Fraction(10))

#: FFmpeg's filters for a display matrix, by the signs of a, b, c, d in x' = a x + c y, y' = b x + d y.
TURNS: dict[tuple[int, int, int, int], tuple[str, ...]] = {
    (1, 0, 0, 1): (),
    (0, 1, -1, 0): ("transpose=clock",),
    (-1, 0, 0, -1): ("hflip", "vflip"),
    (0, -1, 1, 0): ("transpose=cclock",),
    (-1, 0, 0, 1): ("hflip",),
    (1, 0, 0, -1): ("vflip",),
    (0, 1, 1, 0): ("transpose=cclock_flip",),
    (0, -1, -1, 0): ("transpose=clock_flip",),
}


def answers(path: str) -> Iterator[PosterAnswer]:
    """Yield one answer: the key frame before POSTER_AT."""
    try:
        with opened(path) as container:
            yield PosterAnswer(_jpeg(container, _frame(container)))
    except ERRORS as error:
        yield PosterAnswer(failure=failure(error))


def _frame(container: InputContainer) -> VideoFrame:
    """Decode the poster's frame. Raises LookupError if nothing can be decoded."""
    stream = container.streams.video[0]
    # One thread: with several, each has its own frames, and the memory limit does not allow many 8K frames.
    stream.codec_context.thread_count = 1
    container.seek((container.start_time or 0) + int((container.duration or 0) * POSTER_AT))
    for frame in container.decode(stream):
        return frame
    raise LookupError("no frame")


def _jpeg(container: InputContainer, frame: VideoFrame) -> bytes:
    picture = _as_shown(container, frame)
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = picture.width, picture.height, "yuvj420p"
    encoder.time_base = Fraction(1, 1)
    encoder.thread_count = 1
    encoder.options = {"qscale": str(QUANTISER)}
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])


def _as_shown(container: InputContainer, frame: VideoFrame) -> VideoFrame:
    filters = _filters(frame)
    is_turned = any(name.startswith("transpose") for name in filters)
    width, height = frame.width * _pixel_aspect(container), Fraction(frame.height)
    across, upright = (height, width) if is_turned else (width, height)
    # Never enlarge the picture: that would show no more detail.
    scale = min(WIDTH_PX / across, HEIGHT_PX / upright, Fraction(1))
    # Shrink first, then rotate: that is less work.
    small = frame.reformat(width=_even(width * scale), height=_even(height * scale), format="yuvj420p", threads=1)
    return _filtered(small, filters) if filters else small


def _filters(frame: VideoFrame) -> tuple[str, ...]:
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return ()
    matrix = struct.unpack("=9i", bytes(data))  # type: ignore[call-overload]
    a, b, c, d = ((value > 0) - (value < 0) for value in (matrix[0], matrix[1], matrix[3], matrix[4]))
    return TURNS.get((a, b, c, d), ())


def _pixel_aspect(container: InputContainer) -> Fraction:
    aspect = container.streams.video[0].sample_aspect_ratio
    return Fraction(aspect) if aspect and PIXEL_ASPECTS[0] <= aspect <= PIXEL_ASPECTS[1] else Fraction(1)


def _even(length: Fraction) -> int:
    return max(round(length / 2) * 2, 2)


def _filtered(frame: VideoFrame, filters: tuple[str, ...]) -> VideoFrame:
    graph = Graph()
    last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1))
    source = last
    for name, _, argument in (text.partition("=") for text in (*filters, "buffersink")):
        following = graph.add(name, argument or None)
        last.link_to(following)
        last = following
    graph.configure()
    source.push(frame)
    picture = last.pull()
    assert isinstance(picture, VideoFrame)  # noqa: S101 (a graph of pictures)
    return picture
