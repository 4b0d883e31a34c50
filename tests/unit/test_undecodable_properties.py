"""Properties that py-amqp cannot decode: the message comes without them, and is a dead letter with its reason."""

from __future__ import annotations

import struct

import pytest
from amqp import abstract_channel, serialization
from amqp.basic_message import Message as Amqp
from kombu.transport.pyamqp import Message

from safe_consumer import undecodable_properties
from safe_consumer.dead_letter_reasons import Malformed, check_outline, is_forged, reason
from safe_consumer.undecodable_properties import UNREADABLE

BASIC = 60
HEADERS, CORRELATION_ID, REPLY_TO, CONTENT_TYPE = 1 << 13, 1 << 10, 1 << 9, 1 << 15


@pytest.fixture(autouse=True)
def _tolerant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where another test has not imported the worker; and as it was afterwards."""
    monkeypatch.setattr(serialization.GenericContent, "_load_properties", None)
    monkeypatch.setattr(abstract_channel, "loads", None)
    undecodable_properties.tolerate()


def table(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def nested(depth: int) -> bytes:
    content = b"\1xV"
    for _ in range(depth):
        content = b"\1xF" + table(content)
    return table(content)


STRANGE = {
    "a time past the year 9999": struct.pack(">H", HEADERS) + table(b"\1xT" + struct.pack(">Q", 2**50)),
    "an id that is not UTF-8": struct.pack(">H", CORRELATION_ID) + b"\1\xff",
    "an address that is not UTF-8": struct.pack(">H", REPLY_TO) + b"\1\xff",
    "a content type that is not UTF-8": struct.pack(">H", CONTENT_TYPE) + b"\1\xff",
    "a table that is nested too deep": struct.pack(">H", HEADERS) + nested(3_000),
    "a type that nobody knows": struct.pack(">H", HEADERS) + table(b"\1x\x7f"),
    "less than was announced": struct.pack(">H", HEADERS) + struct.pack(">I", 500) + b"\1xV",
}


def delivered(properties: bytes, body: bytes = b"[[], {}, {}]") -> Message:
    content = Amqp()
    content.inbound_header(struct.pack(">HxxQ", BASIC, len(body)) + properties)
    content.inbound_body(body)
    content.delivery_info = {"delivery_tag": 1}
    return Message(content, channel=None)


@pytest.mark.parametrize("properties", STRANGE.values(), ids=STRANGE)
def test_a_message_that_cannot_be_decoded_is_a_dead_letter_and_ends_no_connection(
    properties: bytes,
) -> None:
    message = delivered(properties)
    assert list(message.headers) == [UNREADABLE]
    with pytest.raises(Malformed, match="properties cannot be decoded"):
        check_outline(message)
    assert reason(message).kind == "undecodable"
    assert is_forged(message.headers), "the broker must not move what nobody has read"


def test_good_properties_are_as_always() -> None:
    good = struct.pack(">H", HEADERS | CONTENT_TYPE) + b"\x10application/json" + table(b"\4taskS" + table(b"x"))
    message = delivered(good)
    assert (message.content_type, message.headers) == ("application/json", {"task": "x"})


def test_a_routing_key_that_is_not_utf8_ends_no_connection() -> None:
    delivery = b"\1c" + struct.pack(">QB", 2**40 + 0xFF, 1) + b"\5views" + b"\6view.\xff"
    values, offset = abstract_channel.loads("sLbss", delivery, 0)
    assert values == ["c", 2**40 + 0xFF, True, "views", "view.\ufffd"]
    assert offset == len(delivery)
