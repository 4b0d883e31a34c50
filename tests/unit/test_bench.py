"""What `make bench` says of what it measured: medians, verdicts, the last line, the page."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from proof.bench import page, traffic, trial, verdict, words
from proof.bench.load import get
from proof.bench.measurements import table_of
from proof.bench.results import Figure, Limit, Ratio, Results, Series, divided, percentile, spread


def series(name: str, *values: float) -> Series:
    return Series(name=name, unit="events/s", values=list(values), events=1_000, cpu_us={"web": [12.0], "load": [0.0]})


def figure(name: str = "P1", *values: float) -> Figure:
    ours, usual = series("ours", *values or (90.0, 120.0, 150.0)), series("usual", *[1.0] * len(values or (1, 2, 3)))
    return Figure(
        name=name, title="a title", how="So.", series=[ours, usual], ratios=[divided(ours, usual, at_least=100)]
    )


def results(*figures: Figure) -> Results:
    return Results(
        command="make bench",
        quick=False,
        began="2026-01-02T03:04:05+00:00",
        seconds=600,
        machine={"CPU": "a fast one", "cores": "2"},
        versions={"Python": "3.11"},
        figures=list(figures),
    )


def test_a_spread_is_the_median_with_the_lowest_and_the_highest() -> None:
    found = spread([5.0, 1.0, 3.0])
    assert (found.median, found.low, found.high) == (3.0, 1.0, 5.0)
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_a_ratio_is_taken_round_by_round() -> None:
    slow_minute = divided(series("ours", 100, 50), series("usual", 10, 5))
    assert slow_minute.values == [10, 10]


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([float(value) for value in range(1, 101)], 99) == 99
    assert percentile([7.0], 50) == 7


def test_the_last_line_names_what_was_measured_and_a_dash_for_what_was_not() -> None:
    found = verdict.ratios([figure("P1"), figure("P2b", 0.5), figure("P8", 1.0)])
    assert verdict.last_line(found) == "bench: P1=120 P1b=- P2=- P2b=0.5 P3=-"


def test_a_ratio_falls_below_seven_tenths_of_what_was_recorded() -> None:
    recorded = {"P1": 100.0, "P2": 10.0, "P1b": 1.0}
    assert verdict.much_slower({"P1": 70.0, "P2": 7.1, "P1b": 0.1}, recorded) == []
    (sentence,) = verdict.much_slower({"P1": 69.0, "P3": 1.0}, recorded)
    assert "P1 is 69" in sentence
    assert "100" in sentence


def test_what_a_run_did_not_measure_stays_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "RECORDED", tmp_path / "recorded.json")
    verdict.record({"P1": 100.0, "P2": 10.0, "P6": 8.0})
    verdict.record({"P2": 12.345})
    assert verdict.read() == {"P1": 100.0, "P2": 12.35}


def test_the_recorded_file_can_be_read() -> None:
    assert set(verdict.read()) <= set(verdict.LAST_LINE_FIGURES)


def test_the_page_says_the_machine_the_command_and_what_was_missed() -> None:
    missed = figure("P2", 8.0)
    skipped = Figure(name="P5", title="nginx", how="So.", skipped="no nginx on this machine")
    text = page.render(results(figure(), missed, skipped), ["P1"])
    assert "`make bench`" in text
    assert "a fast one" in text
    assert "| P1 | ours / usual | 120 (90–150) | ≥ 100 | reached |" in text  # noqa: RUF001
    assert "| P2 | ours / usual | 8 (8–8) | ≥ 100 | **missed** |" in text  # noqa: RUF001
    assert "pictures/bench/P1.svg" in text
    assert "pictures/bench/P2.svg" not in text
    assert "no nginx on this machine" in text


def test_the_page_is_written_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results.json").write_bytes(msgspec.json.encode(results(figure())))
    (tmp_path / "P1.svg").write_text("<svg/>")
    monkeypatch.setattr(page, "ROOT", tmp_path)
    monkeypatch.setattr(page, "PAGE", tmp_path / "benchmarks.md")
    monkeypatch.setattr(page, "PICTURES", tmp_path / "bench")
    page.write(tmp_path / "results.json")
    assert (tmp_path / "benchmarks.md").read_text().startswith("# Benchmarks")
    assert (tmp_path / "bench" / "P1.svg").exists()


def test_a_limit_is_kept_by_the_median() -> None:
    assert words.reached(Limit(what="p99", unit="ms", values=[90, 95, 400], at_most=100))
    assert not words.reached(Limit(what="p99", unit="ms", values=[101], at_most=100))
    assert words.reached(Ratio(of="a", to="b", values=[1.0])) is None


def test_costs_leave_out_who_did_nothing() -> None:
    assert words.costs(series("ours", 1)) == "web 12"


def test_a_body_carries_whole_playbacks_and_no_id_twice() -> None:
    bodies = traffic.bodies(2_000, 500)
    assert [len(body) for body in bodies] == [500] * 4
    events = msgspec.json.decode("[" + ",".join(event.json for event in bodies[0]) + "]")
    assert len({event["playback_id"] for event in events}) == 50
    assert events[0]["kind"] == "started"
    assert events[9]["kind"] == "finished"
    assert len({event.event_id for body in bodies for event in body}) == 2_000


def test_ids_are_told_in_the_order_in_which_clients_send_and_none_is_left_out() -> None:
    clients = traffic.distribute(traffic.bodies(70, 10), 4)
    ids = trial.ids_of(clients)
    assert sorted(ids) == sorted(event.event_id for bodies in clients for body in bodies for event in body)
    assert ids[:10] == [event.event_id for event in clients[0][0]]


def test_a_request_says_how_long_it_is() -> None:
    (body,) = traffic.bodies(10, 10)
    head, _, content = traffic.request("/api/views", "token", body).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(content)}".encode() in head
    assert get("/x", {"Range": "bytes=0-1"}).endswith(b"Range: bytes=0-1\r\n\r\n")


def test_every_figure_of_the_table_has_its_measurement() -> None:
    assert list(table_of()) == ["P1", "P1b", "P2", "P2b", "P3", "P3b", "P4", "P5", "P6", "P7", "P8"]
