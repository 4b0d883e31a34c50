"""`python -m proof.chaos`: kills everything while views flow, and counts. `make chaos` starts it.

Exit status 1: something was lost, stored twice or never sent, or the run was too weak to prove anything.
"""

from __future__ import annotations

import random
import sys

import click

from flixtrail.local.errors import DemoError, WrongSetting

#: A seed that a person can type.
SEEDS = 100_000
#: Each violation is a paragraph; the first ones tell the story.
SHOWN = 20


@click.command(
    context_settings={"show_default": True},
    epilog="Every option can be an environment variable: SEED=7 MINUTES=20 make chaos",
)
@click.option("--seed", envvar="SEED", default="", help="Picks the schedule: the same seed, the same faults.")
@click.option("--minutes", envvar="MINUTES", default="2", help="How long views flow and faults happen.")
@click.option(
    "--faults",
    envvar="FAULTS",
    default="all",
    help="`all`: what the seed picks. `broker_down`, `database_down`: that part is down, nearly from start to end.",
)
@click.option("--rate", envvar="RATE", default="150", help="View events a second.")
@click.option("--state", envvar="STATE", default="var", help="Runs and reports are kept in its folder `chaos`.")
@click.option(
    "--broker-image",
    envvar="BROKER_IMAGE",
    default="",
    help="RabbitMQ from this image, in a container, such as "
    "rabbitmq:4.3-management. None: a private node of the version that is installed.",
)
def main(**options: str) -> None:
    """Start everything, let views flow, kill, freeze and cut all of it, and check that every accepted view is stored,
    once.
    """
    from proof.chaos.settings import ChaosSettings
    from view_events.settings import SettingsError, read

    options["seed"] = options["seed"] or str(random.randrange(SEEDS))  # noqa: S311 (not a secret)
    try:
        settings = read(ChaosSettings, {name.upper(): value for name, value in options.items()})
    except SettingsError as error:
        raise WrongSetting(str(error)) from None

    from proof.chaos.runner import run
    from proof.chaos.screen import Screen

    screen = Screen()
    screen.say(f"seed {settings.seed}, {settings.minutes:g} minutes")
    outcome = run(settings, screen)
    for violation in outcome.violations[:SHOWN]:
        screen.say(f"{violation.kind}: {violation.id} {violation.text}")
        for line in violation.trail:
            screen.say(f"    {line}")
    if len(outcome.violations) > SHOWN:
        screen.say(f"and {len(outcome.violations) - SHOWN} more")
    for complaint in outcome.complaints:
        screen.say(f"not proven: {complaint}")
    click.echo(outcome.last_line)
    sys.exit(0 if outcome.passed else 1)


if __name__ == "__main__":
    try:
        main()
    except DemoError as error:
        click.echo(error, err=True)
        sys.exit(error.exit_status or 1)
