"""The report of a chaos run: complete in one file, and right where figures are missing."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from proof.chaos.faults import describe
from proof.chaos.player import FaultRecord
from proof.chaos.report import write
from proof.chaos.schedule import Planned, schedule
from proof.chaos.timeline import PANELS, Series, draw, lanes, points, round_up, subject

SUMMARY = "chaos: accepted=9 stored=9 lost={lost} duplicated=0 dead=2 poison=2 redelivered=1 faults=3 seed=7"


def a_fault(began_s: float, healed_s: float | None, text: str = "broker: cut") -> FaultRecord:
    return FaultRecord(Planned(began_s, 1, "cut"), text, began_s, healed_s)


def a_run(seconds: int) -> tuple[list[dict[str, float | None]], list[FaultRecord]]:
    samples: list[dict[str, float | None]] = [
        {"at_s": float(at), "accepted": 100.0 * at, "stored": None if 5 < at < 9 else 90.0 * at, "outbox": 0.0}
        for at in range(seconds)
    ]
    faults = [FaultRecord(plan, describe(plan), plan.start_s, plan.end_s) for plan in schedule(7, seconds)]
    return samples, faults


def test_the_report_is_one_file_that_needs_nothing_else(tmp_path: Path) -> None:
    samples, faults = a_run(120)
    write(tmp_path / "report.html", samples, faults, SUMMARY.format(lost=0), versions={"RabbitMQ": "3.10.8"})
    html = (tmp_path / "report.html").read_text()
    assert "<h1>Nothing lost, nothing twice</h1>" in html
    assert SUMMARY.format(lost=0) in html
    assert "RabbitMQ 3.10.8" in html
    assert not re.findall(r"(?:src|href|url|@import|https?:)", html)
    svg = ET.fromstring(html[html.index("<svg") : html.index("</svg>") + 6])
    assert len(svg.findall("g")) == len(faults)
    assert len(svg.findall("polyline")) >= sum(map(len, PANELS)) - 3


def test_a_run_that_did_not_pass_says_so_and_why(tmp_path: Path) -> None:
    for lost, problems in ((1, []), (0, ["<b>refused</b>"])):
        write(tmp_path / "report.html", [], [], SUMMARY.format(lost=lost), problems=problems)
        html = (tmp_path / "report.html").read_text()
        assert "<h1>Not passed</h1>" in html
        assert "<b>" not in html


def test_a_fault_that_was_never_healed_is_shown(tmp_path: Path) -> None:
    write(tmp_path / "report.html", [], [a_fault(3, None)], SUMMARY.format(lost=0))
    assert "not healed" in (tmp_path / "report.html").read_text()


def test_faults_of_one_part_that_overlap_get_two_lanes() -> None:
    faults = [a_fault(1, 5), a_fault(3, 6), a_fault(5, 9), a_fault(1, 2, "outbox: full")]
    found = lanes(faults)
    assert [(lane.subject, [fault.began_s for fault in lane.faults]) for lane in found] == [
        ("broker", [1, 5]),
        ("broker", [3]),
        ("outbox", [1]),
    ]
    assert {subject(fault) for fault in faults} == {"broker", "outbox"}


def test_growth_is_shown_a_second_and_with_holes_where_nobody_could_tell() -> None:
    figures = [0.0, 10.0, 20.0, None, None, 50.0, 60.0, 40.0]
    samples = [{"at_s": float(at), "stored": figure} for at, figure in enumerate(figures)]
    shown = [value for _, value in points(samples, Series("stored", "stored/s", per_s=True))]
    assert shown == [10.0, 10.0, None, None, None, 5.0, 5.0]


def test_an_empty_run_can_be_drawn() -> None:
    assert ET.fromstring(draw([], [])).tag == "svg"


def test_the_end_of_an_axis_can_be_halved() -> None:
    assert [round_up(value) for value in (0, 2, 3, 17, 39, 150, 999, 1000)] == [2, 2, 4, 20, 40, 200, 1000, 1000]
