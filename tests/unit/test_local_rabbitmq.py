"""The private node: whether its disk knows its queues."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.rabbitmq import RabbitMQ
from local.state import State

#: As RabbitMQ 3.10 writes them: a length, the name, a tag.
NAMES = {
    name: bytes([len(name)]) + name.encode() + b"m"
    for name in ("flixtrail_history", "flixtrail_history.alone", "flixtrail_views.dead")
}


@pytest.fixture
def rabbitmq(tmp_path: Path) -> RabbitMQ:
    state = State(tmp_path)
    state.make()
    state.make_subfolders()
    node = RabbitMQ(state)
    (node.home / "data" / "quorum" / "node").mkdir(parents=True)
    return node


def write(rabbitmq: RabbitMQ, *names: str) -> None:
    path = rabbitmq.home / "data" / "quorum" / "node" / "names.dets"
    path.write_bytes(b"\x00some".join(NAMES[name] for name in names))


@pytest.mark.parametrize("missing", NAMES)
def test_a_queue_that_the_disk_does_not_know_is_waited_for_also_when_another_is_called_alike(
    rabbitmq: RabbitMQ, missing: str
) -> None:
    write(rabbitmq, *(name for name in NAMES if name != missing))
    assert not rabbitmq.queue_names_on_disk()
    write(rabbitmq, *NAMES)
    assert rabbitmq.queue_names_on_disk()


def test_a_version_that_keeps_them_elsewhere_is_not_waited_for(rabbitmq: RabbitMQ) -> None:
    assert rabbitmq.queue_names_on_disk()


def test_a_queues_log_is_found_after_the_folder_was_moved(rabbitmq: RabbitMQ) -> None:
    path = rabbitmq.home / "data" / "quorum" / "node" / "FLIXTR" / "config"
    path.parent.mkdir()
    path.write_text('#{data_dir =>\n "/old/place/rabbitmq/data/quorum/node", name => quorum_queues}.')
    rabbitmq.configure()
    assert path.read_text() == f'#{{data_dir =>\n "{rabbitmq.home}/data/quorum/node", name => quorum_queues}}.'


def test_a_node_keeps_the_name_under_which_it_wrote_its_data(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.make()
    state.make_subfolders()
    assert RabbitMQ(state).node == "flixtrail@localhost"
    (tmp_path / "rabbitmq" / "data" / "quorum" / "flixtrail-12345678@localhost").mkdir(parents=True)
    assert RabbitMQ(state).node == "flixtrail-12345678@localhost"
