"""`python -m proof.chaos`: kills every part while views flow, and counts. `make chaos` starts it.

Exit status 1: a view was lost, stored twice or never sent, or the run was too weak to prove anything.
"""

from __future__ import annotations

import random
import sys

import click

from local.errors import DemoError, WrongSetting

#: Small enough to type a seed.
SEEDS = 100_000
#: Number of violations that are shown. Each is a paragraph, and the first ones are enough.
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
    "rabbitmq:4.3.6-management. None: a private node of the version that is installed.",
)
@click.option(
    "--broker",
    envvar="BROKER",
    default="rabbitmq",
    help="`embedded`: learner mode, without RabbitMQ, and without the faults that need it.",
)
@click.option(
    "--browser",
    envvar="BROWSER",
    default="0",
    help="1: a page in chromium watches meanwhile, whose link, clock and file misbehave as well.",
)
def main(**options: str) -> None:
    """Start everything and let views flow. Kill, freeze and cut all parts. Then check that every accepted view is
    stored exactly once.

    If something differs, run it again with the same --seed: the faults are the same.
    """
    from proof.chaos.settings import ChaosSettings
    from service.settings import SettingsError, read

    options["seed"] = options["seed"] or str(random.randrange(SEEDS))
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
