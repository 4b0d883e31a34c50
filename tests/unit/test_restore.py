"""Restoring a backup: the users that the stack sets up keep the passwords of now."""

from __future__ import annotations

import json

from flixtrail.commands.restore import COMPOSE_USERS
from tests.demo import ROOT


def test_the_users_that_are_left_out_are_those_that_the_stack_sets_up() -> None:
    definitions = json.loads((ROOT / "deploy" / "rabbitmq" / "definitions.json").read_text())
    assert {user["name"] for user in definitions["users"]} == COMPOSE_USERS
