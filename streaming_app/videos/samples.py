"""Makes sample clips if no folder of videos is given: moving colours with a large clock.

The clock shows the seconds that have played, so that you can see whether "continue at 0:12" is right. The clock appears
after a few seconds: in a poster it would look like the length of the film.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from service import file_lock

WIDTH_PX, HEIGHT_PX, FRAMES_PER_S = 640, 360, 25
#: H.264 in MP4 with its index first: every browser plays it. The PyAV wheel contains libx264.
CODEC = "libx264"
CODEC_OPTIONS = {"preset": "veryfast", "crf": "26"}
#: One key frame per second, so that seeking lands at the right second.
KEY_FRAME_EVERY = FRAMES_PER_S


#: Seconds without the clock. A poster is taken at a tenth of the film, and the longest film has half a minute.
CLOCK_FROM_S = 4
#: Increase it when the clips change, because clips of an older version have the same names.
EDITION = "2"


@dataclass(frozen=True, slots=True)
class Clip:
    name: str
    title: str
    seconds: int
    colours: tuple[str, ...]


CLIPS = (
    Clip("clip-1", "Dawn", 15, ("0x2b1055", "0x7597de", "0xf7b267")),
    Clip("clip-2", "Tide", 20, ("0x03263f", "0x0f7c8a", "0x9be3c7")),
    Clip("clip-3", "Ember", 30, ("0x1a0a1f", "0xb23a48", "0xfcb07e")),
)

#: Called with the clip that is being made, and the share of all clips that is done (0 to 1).
Progress = Callable[[str, float], None]


def samples(cache: Path, progress: Progress = lambda _title, _done: None) -> Path:
    """Return the folder of the sample clips below `cache`. Makes the clips if they are missing, which takes a few
    seconds.

    If two processes call it at once, one makes the clips and the other waits. A clip is there completely or not at all.
    """
    folder = cache / "samples" / EDITION
    folder.mkdir(parents=True, exist_ok=True)
    lock = file_lock.lock(cache / "samples.lock")
    try:
        for clip in CLIPS:
            (folder.parent / f"{clip.name}.mp4").unlink(missing_ok=True)  # a clip of the first edition
        missing = [clip for clip in CLIPS if not (folder / f"{clip.name}.mp4").exists()]
        if missing:
            _make(missing, folder, progress)
    finally:
        os.close(lock)
    return folder


def _make(clips: list[Clip], folder: Path, progress: Progress) -> None:
    total = sum(clip.seconds for clip in clips)
    made = 0
    # One file for all clips, protected by the lock. What a killed run left in it is overwritten.
    unfinished = folder.with_suffix(".unfinished")
    for clip in clips:
        for second in _film(clip, unfinished):
            progress(clip.title, (made + second) / total)
        made += clip.seconds
        unfinished.replace(folder / f"{clip.name}.mp4")


def _film(clip: Clip, path: Path) -> Iterator[float]:
    """Write the clip. Yields the share of its seconds that is done."""
    source = _picture(clip)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["title"] = clip.title
        stream = cast(VideoStream, container.add_stream(CODEC, rate=FRAMES_PER_S, options=CODEC_OPTIONS))
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        stream.codec_context.gop_size = KEY_FRAME_EVERY
        for number in range(clip.seconds * FRAMES_PER_S):
            container.mux(stream.encode(cast(VideoFrame, source.pull())))
            if number % FRAMES_PER_S == 0:
                yield float(number / FRAMES_PER_S)
        container.mux(stream.encode(None))


def _picture(clip: Clip) -> Graph:
    """Build FFmpeg's filters: slow colours, and the clock on top."""
    graph = Graph()
    colours = ":".join(f"c{number}={colour}" for number, colour in enumerate(clip.colours))
    size = f"s={WIDTH_PX}x{HEIGHT_PX}:r={FRAMES_PER_S}:d={clip.seconds}"
    # With a seed, the same clip has the same picture on every machine.
    last = graph.add("gradients", f"{size}:n={len(clip.colours)}:{colours}:speed=0.008:seed=7")
    boxes = [("drawbox", f"{box}:color=white@0.92:t=fill:enable='{when}'") for box, when in _clock()]
    for name, arguments in [("format", "yuv420p"), *boxes, ("buffersink", None)]:
        following = graph.add(name, arguments)
        last.link_to(following)
        last = following
    graph.configure()
    return graph


#: Sizes in pixels: width and height of a digit, thickness of its strokes, distance to the next digit.
DIGIT_PX, DIGIT_HEIGHT_PX, STROKE_PX, GAP_PX = 64, 120, 12, 24
#: The strokes of each digit, out of seven: a is at the top, b to f go round clockwise, g is in the middle.
STROKES = ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")
#: The digits of mm:ss as FFmpeg expressions; t is the second of the frame.
MINUTES = ("mod(floor(t/600),6)", "mod(floor(t/60),10)")
SECONDS = ("mod(floor(t/10),6)", "mod(floor(t),10)")


def _clock() -> Iterator[tuple[str, str]]:
    """Yield boxes, each with the expression that says when it is visible. The wheel's FFmpeg cannot draw text, but
    boxes.
    """
    advance = DIGIT_PX + GAP_PX
    left = (WIDTH_PX - 4 * advance - STROKE_PX) // 2
    top = (HEIGHT_PX - DIGIT_HEIGHT_PX) // 2
    colon = left + 2 * advance
    for number, digit in enumerate(MINUTES):
        yield from _digit(digit, left + number * advance, top)
    for third in (1, 2):
        y = top + third * DIGIT_HEIGHT_PX // 3 - STROKE_PX // 2
        yield f"x={colon}:y={y}:w={STROKE_PX}:h={STROKE_PX}", f"gte(t,{CLOCK_FROM_S})"
    for number, digit in enumerate(SECONDS):
        yield from _digit(digit, colon + STROKE_PX + GAP_PX + number * advance, top)


def _digit(value: str, left: int, top: int) -> Iterator[tuple[str, str]]:
    across, upright = DIGIT_PX - 2 * STROKE_PX, (DIGIT_HEIGHT_PX - 3 * STROKE_PX) // 2
    right, middle, bottom = DIGIT_PX - STROKE_PX, STROKE_PX + upright, DIGIT_HEIGHT_PX - STROKE_PX
    boxes = {
        "a": (STROKE_PX, 0, across, STROKE_PX),
        "b": (right, STROKE_PX, STROKE_PX, upright),
        "c": (right, middle + STROKE_PX, STROKE_PX, upright),
        "d": (STROKE_PX, bottom, across, STROKE_PX),
        "e": (0, middle + STROKE_PX, STROKE_PX, upright),
        "f": (0, STROKE_PX, STROKE_PX, upright),
        "g": (STROKE_PX, middle, across, STROKE_PX),
    }
    for stroke, (x, y, width, height) in boxes.items():
        lit = "+".join(f"eq({value},{digit})" for digit, strokes in enumerate(STROKES) if stroke in strokes)
        yield f"x={left + x}:y={top + y}:w={width}:h={height}", f"gte(t,{CLOCK_FROM_S})*({lit})"
