"""Reads the metadata of a video file: title, length, start, and hashes of its content.

Runs only in the process of `video_reader_child`.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from streaming_app.videos.titles import clean_title
from streaming_app.videos.video_reader import BEGINNING, TOO_MUCH_MEMORY, Failure, Metadata, MetadataAnswer, Samples

#: Seconds to open a file, and for each read. Finding the streams of a crafted file may read all of it.
OPEN_TIMEOUT_S = (5.0, 5.0)
#: Only these formats: a file with the name .mp4 must not be read as a playlist that names other files.
OPTIONS = {"format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm", "protocol_whitelist": "file"}
#: Errors that an unreadable file raises.
ERRORS = (av.FFmpegError, OSError, ValueError, LookupError, ArithmeticError)

#: Packets that are hashed at the beginning. Many films begin with the same still picture, so more packets are hashed if
#: the file has them, and there are samples further in. All of them stay in place while a recording grows.
PACKETS = (BEGINNING, -48)
SAMPLES_AT_S = (10, 60, 600)
#: Seconds from the end within which no sample is taken, because a recording may not be complete there.
NOT_NEAR_THE_END_S = 10
#: From this first timestamp on, a file counts from a clock and not from 0. The length in its header may then include
#: the start.
CLOCK_FROM_S = 1.0
#: Packets looked at to find the end of a file: those between two key frames, in all streams.
LAST_PACKETS = 5_000


def answers(path: str) -> Iterator[MetadataAnswer]:
    """Yield the metadata that is read at once, then the same with samples, which need reads all over the file."""
    try:
        with opened(path) as container:
            if not container.streams.video:
                yield MetadataAnswer(failure=Failure("there is no picture in it"))
                return
            metadata = _metadata(container)
            yield MetadataAnswer(metadata)
            yield MetadataAnswer(_with_samples(container, metadata))
    except ERRORS as error:
        yield MetadataAnswer(failure=failure(error))


def opened(path: str) -> InputContainer:
    """Open the file and find its streams. Raises ERRORS, MemoryError."""
    return av.open(path, metadata_errors="replace", timeout=OPEN_TIMEOUT_S, options=OPTIONS)


def failure(error: BaseException) -> Failure:
    """Describe why a file that raised `error` cannot be read."""
    from streaming_app.videos.video_reader_child import is_out_of_memory

    if is_out_of_memory(error):
        return Failure(TOO_MUCH_MEMORY, costly=True)
    reason = getattr(error, "strerror", None) or type(error).__name__
    return Failure(f"it cannot be read as a video: {reason}")


def _metadata(container: InputContainer) -> Metadata:
    start_s = max((container.start_time or 0) / av.time_base, 0.0)
    title = clean_title(container.metadata.get("title", "")) or None
    return Metadata(title, _duration_s(container, start_s), round(start_s, 3))


def _duration_s(container: InputContainer, start_s: float) -> float | None:
    seconds = (container.duration or 0) / av.time_base
    if "matroska" in container.format.name and start_s >= CLOCK_FROM_S and seconds > start_s:
        # Some programs write the last timestamp there, some the length. `_end_s` finds out which.
        seconds -= start_s
    if not math.isfinite(seconds) or seconds <= 0:
        return None
    there_s = _there_s(container, container.streams.video[0])
    return round(min(seconds, there_s) if there_s else seconds, 3)


def _there_s(container: InputContainer, stream: VideoStream) -> float | None:
    """Return the seconds whose pictures are in the file, by its index. None if the file is complete or has no index."""
    entries, size = stream.index_entries, container.size
    count = len(entries)
    if count < 2 or size <= 0 or entries[count - 1].pos + entries[count - 1].size <= size:  # noqa: PLR2004
        return None
    whole, cut = 0, count - 1
    while cut - whole > 1:
        middle = (whole + cut) // 2
        if entries[middle].pos + entries[middle].size <= size:
            whole = middle
        else:
            cut = middle
    return float((entries[whole].timestamp - entries[0].timestamp) * (stream.time_base or 0)) or None


def _with_samples(container: InputContainer, metadata: Metadata) -> Metadata:
    stream = container.streams.video[0]
    samples: Samples = {}
    try:
        first = list(itertools.islice(_packets(container, stream), -min(PACKETS)))
        samples = {count: _hash(first[:-count]) for count in PACKETS if count == BEGINNING or len(first) >= -count}
        for second in SAMPLES_AT_S:
            if metadata.duration_s is None or second > metadata.duration_s - NOT_NEAR_THE_END_S:
                break
            container.seek(int((metadata.start_s + second) * av.time_base))
            packet = next(_packets(container, stream))
            if _reaches(stream, metadata.start_s + second):
                samples[second] = _hash([packet])
        duration_s = metadata.duration_s
        if "matroska" in container.format.name and metadata.start_s >= CLOCK_FROM_S:
            duration_s = _end_s(container) - metadata.start_s
    except (*ERRORS, StopIteration):
        return Metadata(metadata.title, metadata.duration_s, metadata.start_s, samples)
    return Metadata(metadata.title, duration_s and round(duration_s, 3), metadata.start_s, samples)


def _reaches(stream: VideoStream, second: float) -> bool:
    """Return whether the index has a later entry. Otherwise the packet is only the last one of an incomplete file."""
    entries = stream.index_entries
    return bool(entries) and float(entries[len(entries) - 1].timestamp * (stream.time_base or 0)) >= second


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Yield the packets that have content. FFmpeg's last packet is empty."""
    return (packet for packet in container.demux(stream) if packet.size)


def _hash(packets: list[Packet[VideoStream]]) -> str:
    digest = hashlib.sha256()
    for packet in packets:
        digest.update(packet.size.to_bytes(8))
        digest.update(packet)
    return digest.hexdigest()[:32] if packets else ""


def _end_s(container: InputContainer) -> float:
    """Return where the last packet ends, in seconds. Raises ERRORS."""
    container.seek(container.duration or 0)
    ends = [
        float((packet.pts + (packet.duration or 0)) * packet.time_base)
        for packet in itertools.islice(container.demux(), LAST_PACKETS)
        if packet.pts is not None and packet.time_base
    ]
    return max(ends)
