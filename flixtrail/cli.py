"""`flixtrail`: start the demo, look into it, and play with its workers; look after the compose stack."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

import click

from flixtrail.local.errors import DemoError

#: Each lives in the module of its name, which is imported only when it is asked for: `flixtrail status` shall not wait
#: for what `flixtrail send` needs.
COMMANDS = {
    "backup": "Back up the history of the compose stack.",
    "dead": "Dead letters: list, show, redrive or drop what could not be stored.",
    "demo": "Start everything on this machine, until Ctrl-C.",
    "erase": "Erase all that a viewer has watched.",
    "lesson": "Learn messaging on a real RabbitMQ, one concept at a time.",
    "partitions": "Show the months of the history; make those to come, detach those that are past.",
    "restore": "Put a backup back into the compose stack.",
    "secrets": "Make random secrets for docker compose.",
    "send": "Record N views, and wait until they are stored.",
    "status": "Which process is what.",
    "token": "Make a bearer token.",
    "trace": "Tell the story of one view, from the logs and the database.",
    "watch": "Watch the work queue: what waits, who holds what, what comes back.",
    "workers": "Add, stop, kill, freeze or thaw a history worker.",
}

#: Those that need no demo and no `docker compose` beside them: what the container of docker-compose.yml has.
IN_A_CONTAINER = frozenset({"dead", "erase", "partitions", "token", "trace"})
#: The image leaves out what only the demo needs.
IN_THE_IMAGE = importlib.util.find_spec("supervisor") is None


class Commands(click.Group):
    """The subcommands, by name, imported late."""

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
        """One line a command, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


HELP = """Flixtrail on one machine: videos, views, and a work queue to look into.

\b
Start it in one terminal:       flixtrail demo
In a second one:                flixtrail watch
In a third:                     flixtrail send 1000
                                flixtrail workers kill
"""
HELP_IN_THE_IMAGE = """Look after the compose stack, with an operator's rights.

\b
docker compose run --rm flixtrail dead list
docker compose run --rm flixtrail erase alice
docker compose logs --no-color | docker compose run --rm -T flixtrail trace EVENT_ID --logs -
"""


@click.group(
    cls=Commands,
    help=HELP_IN_THE_IMAGE if IN_THE_IMAGE else HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)
def command() -> None:
    """Read by click: HELP."""


def main(arguments: list[str] | None = None) -> Any:
    """The program `flixtrail`. Exit status 1: it did not work; 2: an option or a variable is wrong."""
    try:
        command.main(args=arguments, prog_name="flixtrail")
    except DemoError as error:
        if error.exit_status:
            click.echo(error, err=True)
        sys.exit(error.exit_status)
