"""Options, types of values and groups that several commands share."""

from __future__ import annotations

import math
import sys
from typing import Any

import click

from local.errors import WrongSetting
from local.suggestions import did_you_mean


def confirm(question: str, consequence: str = "") -> None:
    """Ask the user. Ends the command if the answer is no. Raises WrongSetting if there is no terminal to ask on."""
    if not sys.stdin.isatty():
        raise WrongSetting(f"There is no terminal to ask on: add --yes. {consequence}".rstrip())
    click.confirm(question, abort=True, err=True)


class Number(click.FloatRange):
    """A number within a range. Unlike click's type, it refuses `nan`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return found


class Name(click.ParamType[str]):
    """A name: not empty, without control characters."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not text.strip() or not text.isprintable():
            self.fail(f"{value!r} is not a name.", param, ctx)
        return text


class Group(click.Group):
    """A group of commands. For an unknown name, it suggests a similar one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if args and not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"No such command {name!r}.{did_you_mean(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)
