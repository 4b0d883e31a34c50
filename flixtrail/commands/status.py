"""`flixtrail status`: shows the parts of the running demo."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import click

from local.printable import visible
from local.state_option import state_option

WIDTH_IN_A_PIPE = 250
#: The password in an address. The table hides it; `--json` shows it, because programs need it.
PASSWORD = re.compile(r"(?<=:)[^:@/]+(?=@)")


@click.command()
@state_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs: addresses and process ids.")
def command(state: Path, *, as_json: bool) -> None:
    """Show the parts of the running demo with their addresses and process ids. With --json, the output is for programs
    and contains the passwords.
    """
    from local.running_demo import RunningDemo
    from local.state import State

    running = RunningDemo(State(state))
    if as_json:
        click.echo(json.dumps(running.processes(), indent=2))
    else:
        show(running)


def show(running: Any) -> None:
    """Print the parts as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def plain(value: object) -> Text:
        return Text(visible(value, None))

    table = Table("part", "state", "process", "children", "address", box=None, pad_edge=False)
    table.columns[-1].overflow = "fold"  # an address is cut off nowhere
    processes = running.processes()
    for name, part in (("streaming app", processes["web"]), ("history API", processes["history_api"])):
        pids = part["pids"]
        children = " ".join(map(str, pids[1:]))
        table.add_row(
            name, "running" if pids else "[red]away[/]", str(pids[0]) if pids else "", children, plain(part["url"])
        )
    for worker in running.workers():
        colour = {"running": "", "frozen": "[cyan]", "stopped": "[dim]"}.get(worker.state, "[yellow]")
        children = " ".join(map(str, worker.children))
        table.add_row(worker.name, f"{colour}{worker.state}", str(worker.pid or ""), children, worker.metrics_url)
    for name in ("broker", "database"):
        part = processes[name]
        kind = f" ({part['kind']})" if name == "broker" else ""
        state = "running" if part["pid"] else "outside"
        table.add_row(f"{name}{kind}", state, str(part["pid"] or ""), "", plain(PASSWORD.sub("***", part["url"])))
    if flower := processes.get("flower"):
        pid = str(flower["pids"][0]) if flower["pids"] else ""
        table.add_row("Flower", "running" if pid else "[red]away[/]", pid, "", plain(flower["url"]))
    # A pipe has no width, so nothing is cut off there.
    Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_IN_A_PIPE).print(table)
