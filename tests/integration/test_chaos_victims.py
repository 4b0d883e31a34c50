"""Who is hit when a fault names a part."""

from __future__ import annotations

from collections.abc import Iterable

import psutil
import pytest

from local.state import State
from local.supervisor import Supervisor
from proof.chaos import victims
from proof.chaos.schedule import PARTS
from tests.client import Client, a_view
from tests.conftest import Demo
from tests.waiting import until

pytestmark = pytest.mark.rabbitmq


def hit(demo: Demo, part: str, which: int = 0) -> list[psutil.Process]:
    return victims.processes(Supervisor(State(demo.state)), part, which)


def pids(processes: Iterable[psutil.Process]) -> list[int]:
    return [process.pid for process in processes]


def test_each_part_is_its_own_processes_and_everything_is_all_but_the_broker(rabbitmq_demo: Demo) -> None:
    client = Client(rabbitmq_demo.url, rabbitmq_demo.token("victim"))
    client.record([a_view()])  # somebody has to have a connection to the database
    until(lambda: hit(rabbitmq_demo, "database-backend"), what="a worker to connect")
    status = rabbitmq_demo.status()
    workers = status["workers"]
    assert pids(hit(rabbitmq_demo, "web-main")) == status["web"]["pids"][:1]
    assert pids(hit(rabbitmq_demo, "web-child", 1))[0] in status["web"]["pids"][1:]
    assert [pids(hit(rabbitmq_demo, "worker-parent", which)) for which in range(3)] == [
        [workers[which % 2]["pid"]] for which in range(3)
    ]
    children = {pid for which in range(4) for pid in pids(hit(rabbitmq_demo, "worker-child", which))}
    assert children == {pid for worker in workers for pid in worker["children"]}
    assert pids(hit(rabbitmq_demo, "database"))[0] == status["database"]["pid"]
    everything = pids(hit(rabbitmq_demo, "everything"))
    assert status["broker"]["pid"] not in everything
    for part in set(PARTS) - {"broker", "everything"}:
        assert set(pids(hit(rabbitmq_demo, part))) <= set(everything), part


def test_frozen_processes_go_on_and_those_that_are_gone_are_left_alone(rabbitmq_demo: Demo) -> None:
    found = hit(rabbitmq_demo, "worker-child")
    victims.freeze(found)
    until(lambda: found[0].status() == psutil.STATUS_STOPPED, what="it to stop")
    victims.thaw(found)
    until(lambda: found[0].status() != psutil.STATUS_STOPPED, what="it to go on")
    victims.kill(found)
    until(lambda: not found[0].is_running(), what="it to be gone")
    for harm in (victims.kill, victims.freeze, victims.thaw):
        harm(found)
    rabbitmq_demo.settled()
