"""What a worker starts with each connection."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest


def test_nothing_is_started_that_is_left_out_not_even_because_another_step_requires_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Mingle takes the list of revoked tasks from anybody who answers as a worker; Celery's Tasks requires it."""
    monkeypatch.setenv("AMQP_URL", "amqp://nobody:x@127.0.0.1:1/nowhere")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1/nowhere")
    consumer = import_module("safe_consumer.consumer")
    blueprint = consumer.Consumer.Blueprint()
    steps = blueprint.claim_steps()
    started = [step.__name__ for step in blueprint._finalize_steps(steps)]  # noqa: SLF001 (what a start does)
    assert not {f":{name}" for name in started} & set(consumer.LEFT_OUT)
    # By what they require: the order of steps that do not require each other is another at each start.
    assert {"Topology", "Events", "Connection"} <= _required(consumer.Tasks)


def _required(step: Any) -> set[str]:
    """The names of the steps that are started before this one."""
    before = {one.__name__ if isinstance(one, type) else one.name.rpartition(".")[2] for one in step.requires}
    return before.union(*(_required(one) for one in step.requires))
