"""Writes the report of a run: a single HTML file, for light and dark screens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from proof.chaos.player import FaultRecord
from proof.chaos.timeline import LEGEND, Samples, clock, draw, kind
from proof.chaos.versions import libraries

#: Figures of the summary that must be zero.
MUST_BE_ZERO = ("lost", "duplicated")
NUMBERS = re.compile(r"(\w+)=(\d+)")


def write(
    path: Path,
    samples: Samples,
    faults: Sequence[FaultRecord],
    summary: str,
    *,
    problems: Sequence[str] = (),
    commit: str = "unknown",
    versions: Mapping[str, str] | None = None,
) -> None:
    """Write the report of a run with these samples (watching.Sampler) and faults to this path.

    `problems`: why the run did not pass. `commit`: of the sources when it began. `versions`: of the broker and of the
    database.
    """
    path.write_text(
        page(samples, faults, summary, problems=problems, versions={**(versions or {}), **libraries()}, commit=commit)
    )


def page(
    samples: Samples,
    faults: Sequence[FaultRecord],
    summary: str,
    *,
    problems: Sequence[str],
    versions: Mapping[str, str],
    commit: str,
) -> str:
    """Return the whole document."""
    numbers = dict(NUMBERS.findall(summary))
    passed = not problems and not any(int(numbers.get(name, "0")) for name in MUST_BE_ZERO)
    seed = numbers.pop("seed", "?")
    faults = sorted(faults, key=lambda fault: fault.began_s)
    verdict = "Nothing lost, nothing twice" if passed else "Not passed"
    tiles = "".join(_tile(name, int(number)) for name, number in numbers.items())
    texts = " · ".join(f"{name} {number}" for name, number in versions.items())
    legend = "".join(f'<span><i class="{name}"></i>{label}</span>' for name, label in LEGEND.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>chaos, seed {seed}</title><style>{STYLE}</style></head>
<body class="{"passed" if passed else "failed"}"><main>
<h1>{verdict}</h1>
<p class="summary"><code>{escape(summary)}</code></p>
<dl class="tiles">{tiles}</dl>
{_problems(problems)}
<figure>{draw(samples, faults)}<figcaption>{legend}</figcaption></figure>
<h2>{len(faults)} faults</h2>
<div class="table"><table><thead><tr><th>began<th>lasted<th>what</thead><tbody>
{"".join(map(_row, faults))}</tbody></table></div>
<footer>seed {seed} · commit {escape(commit)} · {escape(texts)}</footer>
</main></body></html>
"""


def _tile(name: str, number: int) -> str:
    bad = ' class="bad"' if name in MUST_BE_ZERO and number else ""
    return f"<div{bad}><dt>{name}</dt><dd>{number:,}</dd></div>"


def _problems(problems: Sequence[str]) -> str:
    if not problems:
        return ""
    return f'<ul class="problems">{"".join(f"<li>{escape(problem)}</li>" for problem in problems)}</ul>'


def _row(fault: FaultRecord) -> str:
    lasted = "not healed" if fault.healed_s is None else _seconds(fault.healed_s - fault.began_s)
    began = f"{clock(fault.began_s)}.{int(fault.began_s * 10) % 10}"
    return f'<tr><td>{began}<td>{lasted}<td><i class="{kind(fault)}"></i>{escape(fault.text)}\n'


def _seconds(lasted_s: float) -> str:
    return "at once" if lasted_s < 0.1 else f"{lasted_s:.1f} s"  # noqa: PLR2004


STYLE = """
:root { color-scheme: light dark;
  --page: #fbfbfa; --card: #fff; --text: #1c2024; --quiet: #646b73; --edge: #e3e5e8; --grid: #e9ebed;
  --good: #18794e; --bad: #c62a2f;
  --process: #d6404a; --link: #3b6fd4; --resource: #b26a00; --views: #8345c4;
  --accepted: #3b6fd4; --stored: #17805a; --queue: #b26a00; --outbox: #8345c4; --pending: #646b73;
  --redelivered: #d6404a; }
@media (prefers-color-scheme: dark) { :root {
  --page: #131518; --card: #1a1d21; --text: #e8eaed; --quiet: #9aa2ab; --edge: #2c3137; --grid: #262a30;
  --good: #4cc38a; --bad: #ff7b7f;
  --process: #f2777f; --link: #7ea6f8; --resource: #e3a23f; --views: #bd93ee;
  --accepted: #7ea6f8; --stored: #4cc38a; --queue: #e3a23f; --outbox: #bd93ee; --pending: #9aa2ab;
  --redelivered: #f2777f; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1240px; margin: 0 auto; padding: 32px 24px 48px }
h1 { margin: 0; font-size: 26px; letter-spacing: -.01em; color: var(--good) }
.failed h1 { color: var(--bad) }
h2 { margin: 32px 0 8px; font-size: 17px }
.summary { margin: 4px 0 20px; color: var(--quiet); overflow-wrap: anywhere }
code { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); gap: 10px; margin: 0 0 20px }
.tiles div { background: var(--card); border: 1px solid var(--edge); border-radius: 8px; padding: 8px 14px 10px }
.tiles .bad { border-color: var(--bad) } .tiles .bad dd { color: var(--bad) }
dt { color: var(--quiet); font-size: 13px }
dd { margin: 0; font-size: 22px; font-variant-numeric: tabular-nums; line-height: 1.25 }
.problems { color: var(--bad); padding-left: 20px }
figure { margin: 0; padding: 18px 14px 12px; background: var(--card); border: 1px solid var(--edge); border-radius: 8px;
  overflow-x: auto }
svg { display: block; width: 100%; min-width: 860px; font: 11px system-ui, sans-serif }
svg text { fill: var(--text) } svg .mark { fill: var(--quiet); font-size: 10.5px }
svg .name { font-size: 12px }
.grid { stroke: var(--grid); stroke-width: 1 }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round } .area { opacity: .13 }
.line-pending { stroke-dasharray: 4 3 }
.shadow { opacity: .06 } .fault rect { opacity: .42 } .fault:hover rect { opacity: .75 }
figcaption { display: flex; gap: 18px; flex-wrap: wrap; padding: 8px 8px 0; color: var(--quiet); font-size: 13px }
i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 7px }
.table { overflow-x: auto }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: 3px 24px 3px 0; border-bottom: 1px solid var(--edge); white-space: nowrap }
th { color: var(--quiet); font-weight: 500 }
footer { margin-top: 28px; color: var(--quiet); font-size: 13px }
""" + "\n".join(
    [
        *(
            f"i.{name} {{ background: var(--{name}) }} svg .{name} rect, .shadow.{name} {{ fill: var(--{name}) }}"
            for name in LEGEND
        ),
        *(
            f".line-{name} {{ stroke: var(--{name}) }} .area-{name} {{ fill: var(--{name}) }}"
            for name in ("accepted", "stored", "queue", "outbox", "pending", "redelivered")
        ),
    ]
)
