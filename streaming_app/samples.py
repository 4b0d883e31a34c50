"""Sample clips, made on this machine when no folder of videos is given: moving colours, and a clock as large as a hand.

The clock shows the seconds that have played, so that "continue at 0:12" can be checked with the eyes.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

WIDTH_PX, HEIGHT_PX, FRAMES_PER_S = 640, 360, 25
#: H.264 in MP4, with its index first, plays everywhere. The PyAV wheel brings libx264 with it.
CODEC = "libx264"
CODEC_OPTIONS = {"preset": "veryfast", "crf": "26"}
#: A key frame a second, so that a player that seeks lands where it was told to.
KEY_FRAME_EVERY = FRAMES_PER_S


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

#: Called with the clip that is being made and how much of all of them is done, 0 to 1.
Progress = Callable[[str, float], None]


def samples(cache: Path, progress: Progress = lambda _title, _done: None) -> Path:
    """The folder of the sample clips below `cache`, made now if it is not there. Takes a few seconds the first time.

    Two processes may ask at once: one makes them, the other waits. A clip is there whole or not at all.
    """
    folder = cache / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    with (cache / "samples.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [clip for clip in CLIPS if not (folder / f"{clip.name}.mp4").exists()]
        if missing:
            _make(missing, folder, progress)
    return folder


def _make(clips: list[Clip], folder: Path, progress: Progress) -> None:
    total = sum(clip.seconds for clip in clips)
    made = 0
    # One place, under the lock: what a killed run left there is written over.
    unfinished = folder.with_suffix(".unfinished")
    for clip in clips:
        for second in _film(clip, unfinished):
            progress(clip.title, (made + second) / total)
        made += clip.seconds
        unfinished.replace(folder / f"{clip.name}.mp4")


def _film(clip: Clip, path: Path) -> Iterator[float]:
    """Write the clip; yields how many of its seconds are done."""
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
    """FFmpeg's filters, one after the other: slow colours, then the clock drawn upon them."""
    graph = Graph()
    colours = ":".join(f"c{number}={colour}" for number, colour in enumerate(clip.colours))
    size = f"s={WIDTH_PX}x{HEIGHT_PX}:r={FRAMES_PER_S}:d={clip.seconds}"
    # Seeded: the same clip is the same picture on every machine.
    last = graph.add("gradients", f"{size}:n={len(clip.colours)}:{colours}:speed=0.008:seed=7")
    boxes = [("drawbox", f"{box}:color=white@0.92:t=fill:enable='{when}'") for box, when in _clock()]
    for name, arguments in [("format", "yuv420p"), *boxes, ("buffersink", None)]:
        following = graph.add(name, arguments)
        last.link_to(following)
        last = following
    graph.configure()
    return graph


#: A digit is this wide and high, its strokes this thick, and this far from the next.
DIGIT_PX, DIGIT_HEIGHT_PX, STROKE_PX, GAP_PX = 64, 120, 12, 24
#: Which of the seven strokes each digit has: a is on top, b to f go round clockwise, g is in the middle.
STROKES = ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")
#: The digits of mm:ss as expressions of FFmpeg; t is the second of the frame.
MINUTES = ("mod(floor(t/600),6)", "mod(floor(t/60),10)")
SECONDS = ("mod(floor(t/10),6)", "mod(floor(t),10)")


def _clock() -> Iterator[tuple[str, str]]:
    """Boxes, each with the expression that says when it is lit. The wheel's FFmpeg has no fonts, but it has boxes."""
    advance = DIGIT_PX + GAP_PX
    left = (WIDTH_PX - 4 * advance - STROKE_PX) // 2
    top = (HEIGHT_PX - DIGIT_HEIGHT_PX) // 2
    colon = left + 2 * advance
    for number, digit in enumerate(MINUTES):
        yield from _digit(digit, left + number * advance, top)
    for third in (1, 2):
        y = top + third * DIGIT_HEIGHT_PX // 3 - STROKE_PX // 2
        yield f"x={colon}:y={y}:w={STROKE_PX}:h={STROKE_PX}", "1"
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
        yield f"x={left + x}:y={top + y}:w={width}:h={height}", lit
