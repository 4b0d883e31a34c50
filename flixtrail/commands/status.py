"""`flixtrail status`: which process is what."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import click

from flixtrail.commands.options import state_option

WIDTH_IN_A_PIPE = 250
#: `--json` shows it: programs need it.
PASSWORD = re.compile(r"(?<=:)[^:@/]+(?=@)")


@click.command()
@state_option
@click.option("--json", "as_json", is_flag=True, help="For programs: addresses and process ids.")
def command(state: Path, *, as_json: bool) -> None:
    """Show the parts of the running demo, their addresses and process ids."""
    from flixtrail.local.running import Running
    from flixtrail.local.state import State

    running = Running(State(state))
    if as_json:
        click.echo(json.dumps(running.processes(), indent=2))
    else:
        show(running)


def show(running: Any) -> None:
    """As a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("part", "state", "process", "children", "address", box=None, pad_edge=False)
    processes = running.processes()
    for name, part in (("streaming app", processes["web"]), ("history API", processes["history_api"])):
        pids = part["pids"]
        children = " ".join(map(str, pids[1:]))
        table.add_row(name, "running" if pids else "[red]away[/]", str(pids[0]) if pids else "", children, part["url"])
    for worker in running.workers():
        colour = {"running": "", "frozen": "[cyan]", "stopped": "[dim]"}.get(worker.state, "[yellow]")
        children = " ".join(map(str, worker.children))
        table.add_row(worker.name, f"{colour}{worker.state}", str(worker.pid or ""), children, worker.metrics_url)
    for name in ("broker", "database"):
        part = processes[name]
        kind = f" ({part['kind']})" if name == "broker" else ""
        state = "running" if part["pid"] else "outside"
        table.add_row(f"{name}{kind}", state, str(part["pid"] or ""), "", PASSWORD.sub("***", part["url"]))
    # A pipe has no width: nothing is cut off there.
    Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_IN_A_PIPE).print(table)
