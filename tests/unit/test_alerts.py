"""The alerts: each names its value and what to do, asks for metrics that exist, and is tested both ways."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests.promql import KNOWN, metrics

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RUNBOOKS = [path for path in (ROOT / "docs").glob("operations*.md") if path.is_file()]


def alerts() -> dict[str, str]:
    """The text of each alert, by its name."""
    _, *texts = re.split(r"^ +- alert: ", (PROMETHEUS / "alerts.yml").read_text(), flags=re.MULTILINE)
    return {text.partition("\n")[0]: text for text in texts}


def field(text: str, name: str) -> str:
    """The value of a field of an alert, on its line or indented below it."""
    found = re.search(rf"^( +){name}: (?:\|((?:\n\1 +.*)+)|(.+))$", text, re.MULTILINE)
    assert found, name
    return textwrap.dedent(found[2]) if found[2] else found[3].strip('"')


ALERTS = alerts()


def test_there_are_alerts_and_each_has_a_name_of_its_own() -> None:
    names = re.findall(r"- alert: (\w+)", (PROMETHEUS / "alerts.yml").read_text())
    assert len(names) > 10
    assert sorted(names) == sorted(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_it_says_how_bad_it_is_what_it_saw_and_where(name: str) -> None:
    text = ALERTS[name]
    assert field(text, "severity") in {"critical", "warning"}
    assert field(text, "summary")
    assert "{{ $value" in field(text, "description") or "{{ $value" in field(text, "summary")
    if re.search(r"\bby \([^)]*instance", field(text, "expr")):
        assert "$labels.instance" in field(text, "summary")


@pytest.mark.parametrize("name", ALERTS)
def test_it_asks_for_metrics_that_exist(name: str) -> None:
    asked = metrics(field(ALERTS[name], "expr"))
    assert asked
    assert asked - KNOWN == set()


@pytest.mark.parametrize("name", ALERTS)
def test_its_runbook_is_written(name: str) -> None:
    assert field(ALERTS[name], "runbook") == f"docs/operations.md#{name.lower()}"
    headings = {heading for path in RUNBOOKS for heading in re.findall(r"^#+ (\w+)$", path.read_text(), re.MULTILINE)}
    assert name in headings


@pytest.mark.parametrize("name", ALERTS)
def test_it_is_tested_with_what_fires_it_and_with_what_does_not(name: str) -> None:
    tests = (PROMETHEUS / "alerts_test.yml").read_text()
    assert re.search(rf"alertname: {name}\n +eval_time: \w+\n +exp_alerts:(?: \[\{{|\n)", tests)
    assert re.search(rf"\{{alertname: {name}, eval_time: \w+, exp_alerts: \[\]\}}", tests)
