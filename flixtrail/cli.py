"""`flixtrail`: starts the demo, shows what happens in it, controls its workers, and maintains the compose stack."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import io
import sys
from typing import Any

import click

from flixtrail.commands.options import Group
from local.errors import DemoError
from local.printable import visible, visible_lines

#: Subcommands and their short help. Each is in the module of its name, which is imported only when needed. So
#: `flixtrail status` does not wait for the imports of `flixtrail send`.
COMMANDS = {
    "backup": "Back up the history of the compose stack.",
    "dead": "Dead letters: list, show, redrive or drop what could not be stored.",
    "demo": "Start everything on this machine, until Ctrl-C.",
    "erase": "Erase all that a viewer has watched.",
    "lesson": "Learn messaging on a real RabbitMQ, one concept at a time.",
    "partitions": "Show the months of the history; make those to come, detach those that are past.",
    "poison": "Publish a message that becomes a dead letter.",
    "restore": "Put a backup back into the compose stack.",
    "secrets": "Make random secrets for docker compose.",
    "send": "Record N views, and wait until they are stored.",
    "status": "Show the parts of the demo, with addresses and process ids.",
    "token": "Make a bearer token.",
    "tour": "See a redelivery: one worker is killed, another one gets its messages.",
    "trace": "Show what happened to one view, from the logs and the database.",
    "watch": "Watch the work queue: messages that wait, are unacknowledged, or are redelivered.",
    "workers": "Add, stop, kill, freeze or thaw a history worker.",
}

#: Commands that work in the container of docker-compose.yml. They need neither a demo nor `docker compose` beside them.
IN_A_CONTAINER = frozenset({"dead", "erase", "partitions", "token", "trace"})
#: The image leaves out packages that only the demo needs.
IN_THE_IMAGE = importlib.util.find_spec("supervisor") is None


class Commands(Group):
    """The group of subcommands. It imports a subcommand only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return [name for name in COMMANDS if name in IN_A_CONTAINER or not IN_THE_IMAGE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name not in self.list_commands(ctx):
            raise click.UsageError(f"`{cmd_name}` is for the host: `make help` there shows how it is run.")
        command: click.Command = importlib.import_module(f"flixtrail.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one line per command, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


HELP = """Flixtrail on one machine: videos, views, and a work queue to inspect.

\b
Start it in one terminal:       flixtrail demo
In a second one:                flixtrail tour
or by hand, in three of them:   flixtrail watch
                                flixtrail send --slow
                                flixtrail workers kill
"""
HELP_IN_THE_IMAGE = """Maintain the compose stack, with an operator's rights.

\b
docker compose run --rm flixtrail dead list
docker compose run --rm flixtrail erase alice
docker compose logs --no-color | docker compose run --rm -T flixtrail trace EVENT_ID --logs -
"""


def version() -> str:
    """Return the version of the installed package. If it is not installed, return a text that says so."""
    try:
        return importlib.metadata.version("flixtrail")
    except importlib.metadata.PackageNotFoundError:
        return "(from its sources, not installed)"


@click.group(
    cls=Commands,
    help=HELP_IN_THE_IMAGE if IN_THE_IMAGE else HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(version(), message="flixtrail %(version)s")
def command() -> None:
    """Show HELP, which click gets above."""


def main(arguments: list[str] | None = None) -> Any:
    """Run the program `flixtrail`. Exit status 1: it failed. Exit status 2: an option or a variable is wrong."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # show characters that the terminal cannot display as escapes
            stream.reconfigure(errors="backslashreplace")
    try:
        command.main(args=arguments, prog_name="flixtrail")
    except DemoError as error:
        if error.exit_status:
            click.echo(visible_lines(error), err=True)
        sys.exit(error.exit_status)
    except OSError as error:  # an unreadable folder, for example, or a file in place of a folder
        where = f"{visible(error.filename, None)}: " if error.filename else ""
        click.echo(f"{where}{error.strerror or type(error).__name__}", err=True)
        sys.exit(1)
