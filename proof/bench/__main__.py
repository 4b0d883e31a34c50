"""`python -m proof.bench`: measures, and checks the figures against their targets. `make bench` starts it.

Exit status 1: an event was lost, a server was not configured safely, or a quick run was much slower than recorded.
"""

from __future__ import annotations

import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from types import FrameType

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from local.errors import DemoError
from proof.bench import machine, table, verdict
from proof.bench.errors import BenchError
from proof.bench.measurements import Plan, table_of
from proof.bench.nodes import Nodes
from proof.bench.plots import draw
from proof.bench.results import Results
from proof.bench.systems import Systems

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FOLDER = Path("var") / "bench"
RESULTS = "results.json"
ROUNDS, QUICK_ROUNDS = 5, 3
QUICK_SHARE = 0.25

HELP = """Measure how fast Flixtrail is, compared with other ways of doing the same.

Starts a RabbitMQ and a PostgreSQL of its own, the streaming app, workers and the peers of proof/bench/peers. It checks
that PostgreSQL writes each commit to the disk, and leaves nothing running. Every figure is a ratio of two things that
were measured in turn in the same run, so that you can compare it with other machines. Every trial checks that each
event that was sent is in the table.

\b
  make bench               everything, in less than half an hour
  QUICK=1 make bench       P1 to P3 in a few minutes; fails far below proof/bench/recorded.json
  ONLY=P1,P4 make bench    only these
  RECORD=1 make bench      keep the ratios in proof/bench/recorded.json
  BROKER_IMAGE=rabbitmq:4.3.6-management make bench    another RabbitMQ, in a container
  python -m proof.bench page   write docs/benchmarks.md from var/bench/results.json

\b
P1  bodies of 500 events         P1b  ... and the database alone
P2  single events, 64 clients    P2b  ... and a route that does nothing
P3  one worker drains a backlog  P3b  ... of one event a task
P4  from a request to its row    P5   video ranges, beside nginx
P6  1, 2, 4, 8 workers           P7   with 10,000,000 rows there
P8  memory over 2,000,000        P9   dramatiq and celery-batches in P1 to P3

\b
Results: var/bench/results.json, var/bench/*.svg; logs: var/bench/state/log.
"""


@click.group(invoke_without_command=True, help=HELP)
@click.option("--quick", envvar="QUICK", is_flag=True, help="P1 to P3 with less of everything, and a verdict.")
@click.option("--only", envvar="ONLY", default="", help="Names of the table, with commas: P1,P2b.")
@click.option("--rounds", default=0, type=click.IntRange(0, 100), help="How often each is measured; 0: as it should.")
@click.option(
    "--share", default=0.0, type=click.FloatRange(0, 1), help="Of the full number of events; 0: as it should."
)
@click.option(
    "--record",
    envvar="RECORD",
    is_flag=True,
    help="Keep the ratios in proof/bench/recorded.json. Quick runs are compared with them.",
)
@click.option(
    "--broker-image",
    envvar="BROKER_IMAGE",
    default="",
    help="RabbitMQ from this image, in a container, such as rabbitmq:4.3.6-management. None: the installed one.",
)
@click.pass_context
def main(
    context: click.Context, only: str, rounds: int, share: float, broker_image: str, *, quick: bool, record: bool
) -> None:
    if context.invoked_subcommand:
        return
    wanted = _wanted(only, quick=quick)
    plan = Plan(
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        share=share or (QUICK_SHARE if quick else 1.0),
        wanted=wanted,
        step=lambda _what: None,
        peers="P9" in wanted,
        broker_image=broker_image,
    )
    console = Console(highlight=False)
    for number in STOP_SIGNALS:
        signal.signal(number, _interrupt)
    results = _empty_results(plan, quick=quick)
    failures: list[str] = []
    try:
        _measure(plan, console, results)
    except (BenchError, DemoError, KeyboardInterrupt) as error:
        failures.append(str(error) or "stopped; nothing is left running")
    if results.figures:  # also the figures before a failure
        drawn = draw(FOLDER / RESULTS)
        table.print_tables(console, results.figures)
        console.print(f"{FOLDER / RESULTS}, {drawn} pictures beside it; {results.seconds / 60:.1f} min")
    found = verdict.ratios(results.figures)
    if quick and not failures:
        failures = verdict.much_slower(found, verdict.read())
    if record and not failures:
        verdict.record(found)
    for sentence in failures:
        click.echo(f"FAILED: {sentence}")
    click.echo(verdict.last_line(found))
    sys.exit(1 if failures else 0)


@main.command()
def page() -> None:
    """Write docs/benchmarks.md from var/bench/results.json."""
    from proof.bench.page import write

    click.echo(f"wrote {write(FOLDER / RESULTS)}")


def _wanted(only: str, *, quick: bool) -> frozenset[str]:
    """Return the names of the measurements to run. Raises click.BadParameter for an unknown name."""
    known = table_of()
    chosen = [name.strip() for name in only.split(",") if name.strip()]
    names = {known_name.lower(): known_name for known_name in (*known, "P9")}
    if wrong := [name for name in chosen if name.lower() not in names]:
        raise click.BadParameter(f"{', '.join(wrong)}: expected some of {', '.join(names.values())}", param_hint="ONLY")
    if chosen:
        wanted = {names[name.lower()] for name in chosen}
        return frozenset(wanted | {"P1", "P2", "P3"} if "P9" in wanted else wanted)
    return frozenset(verdict.LAST_LINE_FIGURES if quick else names.values())


def _empty_results(plan: Plan, *, quick: bool) -> Results:
    return Results(
        command=_command(plan, quick=quick),
        quick=quick,
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0,
        machine=machine.machine(),
        versions={},
        figures=[],
    )


def _measure(plan: Plan, console: Console, results: Results) -> None:
    """Measure, and add to `results`. Saves the results after each measurement, so that a failure does not lose the
    others.
    """
    clock = monotonic()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    measures = list(dict.fromkeys(measure for name, measure in table_of().items() if name in plan.wanted))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting RabbitMQ and PostgreSQL", total=len(measures))
        with Nodes(FOLDER / "state", plan.broker_image) as nodes:
            systems = Systems(nodes)
            results.versions = machine.versions(nodes)
            for measure in measures:
                title = measure.__module__.rpartition(".")[2].replace("_", " ")

                def step(what: str, title: str = title) -> None:
                    progress.update(task, description=f"{title}: {what}")

                found = measure(systems, msgspec.structs.replace(plan, step=step))
                results.figures += [figure for figure in found if figure.name in plan.wanted]
                results.seconds = round(monotonic() - clock, 1)
                (FOLDER / RESULTS).write_bytes(msgspec.json.format(msgspec.json.encode(results)))
                progress.advance(task)
                if not console.is_terminal:
                    console.print(f"{title}: done after {results.seconds:.0f} s")


def _command(plan: Plan, *, quick: bool) -> str:
    everything = frozenset((*table_of(), "P9"))
    only = "" if quick or plan.wanted == everything else f"ONLY={','.join(sorted(plan.wanted))} "
    image = f"BROKER_IMAGE={plan.broker_image} " if plan.broker_image else ""
    return f"{image}{only}{'QUICK=1 ' if quick else ''}make bench"


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Handle Ctrl-C. The first one ends the run. Later ones are ignored while the run stops what it has started."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
