"""The dashboard that Grafana gets, read from its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards" / "flixtrail.json"
#: Grafana puts in what fits the zoom and the scrape interval.
RATE_INTERVAL = ("$__rate_interval", "1m")


def dashboard() -> dict[str, Any]:
    """The whole of it."""
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


def panels() -> list[dict[str, Any]]:
    """Those that show something: rows are headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """Every PromQL expression, as Prometheus takes it."""
    return [target["expr"].replace(*RATE_INTERVAL) for panel in panels() for target in panel["targets"]]
