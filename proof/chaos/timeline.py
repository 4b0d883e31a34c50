"""Draws the timeline of a run as SVG: the faults as bars, and below them the flows and backlogs, on one time axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import floor, log10

from proof.chaos.player import FaultRecord

Samples = Sequence[Mapping[str, float | None]]

#: Units of the drawing. A browser scales it to the available width.
WIDTH, LEFT, RIGHT = 1160, 112, 16
BAR, LANE = 15, 20
PANEL, GAP = 84, 34
AXIS = 22
#: Average width of a letter at the size of the labels.
LETTER = 6.3
#: Minimum width of a bar, so that a very short fault is visible.
LEAST_BAR = 3.0
#: Figures are measured every second, but not all at the same moment. The mean over this many figures is the real flow.
SMOOTHED = 3
#: Seconds between two marks of the time axis. The first value is used that gives few enough marks.
STEPS_S = (5, 10, 15, 30, 60, 120, 300, 600, 1200, 3600)
MOST_MARKS = 16

#: The kind of a fault, which decides its colour.
KINDS = {
    **dict.fromkeys(("kill", "freeze", "down"), "process"),
    **dict.fromkeys(("cut", "delay", "swallow"), "link"),
    **dict.fromkeys(("memory-alarm", "outbox-full"), "resource"),
}
VIEWS = "views"
LEGEND = {"process": "killed, frozen, down", "link": "connections", "resource": "memory, disk", VIEWS: "views"}


@dataclass(frozen=True)
class Series:
    """A line in a panel. `per_s`: the figure only grows, and its growth is shown."""

    name: str
    label: str
    per_s: bool = False


PANELS = (
    (Series("accepted", "accepted/s", per_s=True), Series("stored", "stored/s", per_s=True)),
    (Series("queue", "messages in queues"),),
    (Series("outbox", "events in outboxes"), Series("pending", "events not answered 202 yet")),
    (Series("redelivered", "batches delivered again"),),
)


@dataclass(frozen=True)
class Axis:
    """Converts seconds to units, from left to right."""

    end_s: float

    def x(self, at_s: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * max(0.0, min(at_s / self.end_s, 1.0))

    def marks(self) -> Iterator[tuple[float, str]]:
        """Yield (position, `1:30`)."""
        step = next((step for step in STEPS_S if self.end_s / step <= MOST_MARKS), STEPS_S[-1])
        for at_s in range(0, int(self.end_s) + 1, step):
            yield self.x(at_s), clock(at_s)


def clock(at_s: float) -> str:
    """Format as `1:05`: minutes and seconds."""
    return f"{int(at_s) // 60}:{int(at_s) % 60:02}"


def draw(samples: Samples, faults: Sequence[FaultRecord]) -> str:
    """Draw everything as an `svg` element without colours. Its classes are those of the page."""
    ends = [sample.get("at_s") or 0.0 for sample in samples] + [_end(fault) for fault in faults]
    axis = Axis(max([*ends, 1.0]))
    rows = lanes(faults)
    top = LANE * len(rows) + 8
    bottom = top + len(PANELS) * (PANEL + GAP)
    parts = [*_grid(axis, bottom), *_shadows(faults, axis, top, bottom)]
    for number, lane in enumerate(rows):
        named = not number or rows[number - 1].subject != lane.subject
        parts += _lane(lane, number * LANE, axis, named=named)
    for number, panel in enumerate(PANELS):
        parts += _panel(panel, samples, axis, top + GAP + number * (PANEL + GAP))
    height = bottom + AXIS
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Timeline of the run">'
        + "\n".join(parts)
        + "</svg>"
    )


def _end(fault: FaultRecord) -> float:
    return fault.began_s if fault.healed_s is None else fault.healed_s


# -- faults -----------------------------------------------------------------------------------------------


def subject(fault: FaultRecord) -> str:
    """Return what is hit: `broker` for `broker: SIGKILL`."""
    return fault.text.partition(": ")[0]


@dataclass
class Lane:
    """Faults of one subject, one after another."""

    subject: str
    faults: list[FaultRecord]


def lanes(faults: Sequence[FaultRecord]) -> list[Lane]:
    """Return a lane for each subject, and a second one if two of its faults overlap. Parts come first, views last."""
    found: list[Lane] = []
    for fault in sorted(faults, key=lambda fault: fault.began_s):
        of_subject = (lane for lane in found if lane.subject == subject(fault))
        lane = next((lane for lane in of_subject if _end(lane.faults[-1]) <= fault.began_s), None)
        if lane is None:
            lane = Lane(subject(fault), [])
            found.append(lane)
        lane.faults.append(fault)
    order = list(LEGEND)
    return sorted(found, key=lambda lane: (order.index(kind(lane.faults[0])), lane.subject, lane.faults[0].began_s))


def kind(fault: FaultRecord) -> str:
    """Return the kind of a fault: one of LEGEND."""
    return KINDS.get(fault.planned.name, VIEWS)


def _lane(lane: Lane, y: float, axis: Axis, *, named: bool) -> Iterator[str]:
    middle = y + BAR / 2
    yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{middle}" y2="{middle}"/>'
    if named:
        yield f'<text class="mark" x="{LEFT - 8}" y="{y + BAR - 4}" text-anchor="end">{escape(lane.subject)}</text>'
    ends = [axis.x(fault.began_s) for fault in lane.faults[1:]] + [float(WIDTH)]
    for fault, room_ends in zip(lane.faults, ends, strict=True):
        left, right = axis.x(fault.began_s), axis.x(_end(fault))
        right = max(right, left + LEAST_BAR)
        title = escape(f"{clock(fault.began_s)} to {clock(_end(fault))}: {fault.text}")
        yield (
            f'<g class="fault {kind(fault)}"><title>{title}</title>'
            f'<rect x="{left:.1f}" y="{y}" width="{right - left:.1f}" height="{BAR}" rx="2"/>'
        )
        label = fault.text.partition(": ")[2]
        at = left + 4 if LETTER * len(label) + 8 <= right - left else right + 4
        # Without room for the label, it is in the table and shown when the mouse is over the bar.
        if at + LETTER * len(label) + 4 <= room_ends:
            yield f'<text x="{at:.1f}" y="{y + BAR - 4}">{escape(label)}</text>'
        yield "</g>"


def _shadows(faults: Sequence[FaultRecord], axis: Axis, top: float, bottom: float) -> Iterator[str]:
    """Draw the faults through all panels, so that you can see which fault bent a line."""
    for fault in faults:
        left, right = axis.x(fault.began_s), axis.x(_end(fault))
        width = max(right - left, 1.0)
        yield (
            f'<rect class="shadow {kind(fault)}" x="{left:.1f}" y="{top}" width="{width:.1f}" height="{bottom - top}"/>'
        )


def _grid(axis: Axis, bottom: float) -> Iterator[str]:
    for x, label in axis.marks():
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom}"/>'
        yield f'<text class="mark" x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{label}</text>'


# -- figures ----------------------------------------------------------------------------------------------


def points(samples: Samples, series: Series) -> list[tuple[float, float | None]]:
    """Return (seconds, figure), with None where the figure is unknown."""
    known = [(sample.get("at_s") or 0.0, sample.get(series.name)) for sample in samples]
    if not series.per_s:
        return known
    grown: list[tuple[float, float | None]] = []
    for (then_s, before), (now_s, after) in pairwise(known):
        is_known = before is not None and after is not None and now_s > then_s
        # An erase deletes rows, so a count may shrink.
        grown.append((now_s, max(after - before, 0.0) / (now_s - then_s) if is_known else None))  # type: ignore[operator]
    return [(at_s, _mean(grown, index)) for index, (at_s, _) in enumerate(grown)]


def _mean(values: Sequence[tuple[float, float | None]], index: int) -> float | None:
    if values[index][1] is None:
        return None
    around = [value for _, value in values[max(index - SMOOTHED // 2, 0) : index + SMOOTHED // 2 + 1]]
    known = [value for value in around if value is not None]
    return sum(known) / len(known)


def _panel(panel: Sequence[Series], samples: Samples, axis: Axis, top: float) -> Iterator[str]:
    lines = {series: points(samples, series) for series in panel}
    highest = round_up(max((value or 0 for line in lines.values() for _, value in line), default=0))
    bottom = top + PANEL
    x = float(LEFT)
    for number, series in enumerate(panel):
        most = max((value or 0 for _, value in lines[series]), default=0)
        label = f"{series.label} · most {most:,.0f}"
        yield f'<line class="line line-{series.name}" x1="{x}" x2="{x + 16}" y1="{top - 10}" y2="{top - 10}"/>'
        yield f'<text class="name" x="{x + 22}" y="{top - 6}">{label}</text>'
        x += 22 + LETTER * len(label) + 28 * (number + 1)
    for value, y in ((0.0, bottom), (highest / 2, top + PANEL / 2), (highest, top)):
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text class="mark" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:,.0f}</text>'
    for series, line in lines.items():
        for part in _parts(line):
            path = " ".join(f"{axis.x(at_s):.1f},{bottom - PANEL * value / highest:.1f}" for at_s, value in part)
            if series is panel[0]:
                first, last = axis.x(part[0][0]), axis.x(part[-1][0])
                corners = f"{first:.1f},{bottom} {path} {last:.1f},{bottom}"
                yield f'<polygon class="area area-{series.name}" points="{corners}"/>'
            yield f'<polyline class="line line-{series.name}" points="{path}"/>'


def _parts(line: Sequence[tuple[float, float | None]]) -> Iterator[list[tuple[float, float]]]:
    """Yield the stretches without unknown values."""
    part: list[tuple[float, float]] = []
    for at_s, value in line:
        if value is not None:
            part.append((at_s, value))
        elif part:
            yield part
            part = []
    if part:
        yield part


def round_up(value: float) -> float:
    """Round up to 2, 4, 10, 20, 40, 100 ...: half of it is a readable number."""
    if value <= 2:  # noqa: PLR2004
        return 2.0
    power = 10.0 ** floor(log10(value))
    return next(factor * power for factor in (1, 2, 4, 10) if value <= factor * power)
