"""The dashboard: nothing here opens it in Grafana, so its file is held to what Grafana expects."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.compose.dashboard import dashboard, expressions, panels
from tests.promql import FLIXTRAIL, KNOWN, metrics

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
COLUMNS = 24
KINDS = {"timeseries", "stat"}
#: As Grafana names them.
UNITS = {"short", "reqps", "s", "bytes", "Bps", "percentunit"}


def test_the_dashboard_has_a_name_that_stays() -> None:
    whole = dashboard()
    assert whole["uid"] == "flixtrail"
    assert whole["title"] == "Flixtrail"
    assert whole["schemaVersion"] >= 41
    assert "id" not in whole  # Grafana's own, another in each


def test_ids_of_panels_are_unique() -> None:
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(ids) == len(set(ids))


def test_panels_fit_in_the_grid_and_do_not_overlap() -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in dashboard()["panels"]]
    for title, place in places:
        assert place["w"] > 0, title
        assert place["h"] > 0, title
        assert place["x"] >= 0, title
        assert place["x"] + place["w"] <= COLUMNS, title
    for (one, first), (other, second) in combinations(places, 2):
        assert not overlap(first, second), f"{one} and {other}"


def test_rows_follow_a_view_through_the_code() -> None:
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    verbs = ["Record", "Publish", "The broker", "Write", "Commit", "Ack"]
    assert [verb for row in rows for verb in verbs if row.startswith(verb)] == verbs
    root = GRAFANA.parents[1]
    files = [file for row in rows for file in re.findall(r"[\w/]+\.py", row)]
    assert len(files) == 7
    assert [file for file in files if not (root / file).is_file()] == []


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_each_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["type"] in KINDS
    assert panel["title"]
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])


def test_everything_is_asked_of_the_source_that_is_provisioned() -> None:
    provisioned = (GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text()
    [uid] = re.findall(r"^ +uid: (\S+)$", provisioned, re.MULTILINE)
    source = {"type": "prometheus", "uid": uid}
    assert [panel["title"] for panel in panels() if panel["datasource"] != source] == []
    assert [t["expr"] for panel in panels() for t in panel["targets"] if t["datasource"] != source] == []


def test_titles_are_unique() -> None:
    titles = [panel["title"] for panel in dashboard()["panels"]]
    assert len(titles) == len(set(titles))


def test_it_asks_for_metrics_that_exist() -> None:
    asked = {name for expression in expressions() for name in metrics(expression)}
    assert asked - KNOWN == set()


def test_it_shows_every_metric_of_ours() -> None:
    asked = {name for expression in expressions() for name in metrics(expression)}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in FLIXTRAIL} - shown == set()


def test_expressions_are_plain_promql() -> None:
    assert len(expressions()) > 40
    assert [expression for expression in expressions() if "$" in expression] == []


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )
