"""The option `--state` of every command that works on a demo."""

from __future__ import annotations

from pathlib import Path

import click

state_option = click.option(
    "--state",
    envvar="STATE",
    default="var",
    show_default="./var",
    type=click.Path(path_type=Path),
    help="The state folder of the demo.  [env: STATE]",
)
