"""Draws one picture per figure with matplotlib, which is installed in the peers' environment.

`python -m proof.bench.plots results.json` draws there. `draw` starts it from here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

OURS, THEIRS = "#0969da", "#9198a1"
#: No dates and no random ids, so drawing again gives the same file.
FIXED_METADATA = {"Date": None, "Creator": None}


def draw(results: Path) -> int:
    """Draw all pictures next to the results. Returns their number."""
    from local.unsupervised_part import ROOT
    from proof.bench.systems import PEERS_PYTHON

    argv = [str(PEERS_PYTHON), "-m", "proof.bench.plots", str(results.resolve())]
    return int(subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT).stdout)


def main(results: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "flixtrail", "svg.fonttype": "none", "font.family": "sans-serif"})
    figures = [one for one in json.loads(results.read_text())["figures"] if one["series"]]
    for figure in figures:
        _bars(figure, results.with_name(f"{figure['name']}.svg"))
    sys.stdout.write(f"{len(figures)}\n")


def _bars(figure: dict[str, Any], path: Path) -> None:
    """Draw one bar per series: its length is the median, with the spread."""
    from statistics import median

    from matplotlib import pyplot as plt

    # An axis has one unit. The page has the values in other units.
    series = [one for one in figure["series"] if one["unit"] == figure["series"][0]["unit"]]
    names = [one["name"] for one in series]
    middles = [median(one["values"]) for one in series]
    low = [middle - min(one["values"]) for middle, one in zip(middles, series, strict=True)]
    high = [max(one["values"]) - middle for middle, one in zip(middles, series, strict=True)]
    drawing, axes = plt.subplots(figsize=(8, 0.8 + 0.45 * len(series)), layout="constrained")
    colours = [OURS if number == 0 else THEIRS for number in range(len(series))]
    bars = axes.barh(names, middles, xerr=[low, high], color=colours, ecolor="#59636e", capsize=3)
    axes.bar_label(bars, labels=[f"{middle:,.4g}" for middle in middles], padding=6)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(series[0]["unit"])
    axes.set_title(f"{figure['name']}: {figure['title']}", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, metadata=FIXED_METADATA)
    plt.close(drawing)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
