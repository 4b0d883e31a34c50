"""Keeps a worker alive when py-amqp cannot decode a message's properties.

py-amqp decodes a message's properties while it reads the frame. A time past the year 9999, a text that is not UTF-8 or
a table that is nested too deep raises an error there, before our code sees the message. The error would end the worker.
The broker would then deliver the message again, and end the next worker. So this module delivers such a message without
its properties, with one header that says why. No worker can run it, and it becomes a dead letter.
"""

from __future__ import annotations

from struct import calcsize, unpack_from
from typing import Any

import structlog
from amqp import abstract_channel, serialization

log = structlog.get_logger(__name__)

#: The only header of such a message: why its properties cannot be decoded.
UNREADABLE = "unreadable_properties"
#: AMQP's number types: py-amqp's codes, and those of `struct`.
NUMBERS = {"o": ">B", "B": ">H", "l": ">I", "L": ">Q"}
#: AMQP's text types, and the `struct` codes of their lengths.
TEXTS = {"s": ">B", "S": ">I"}

_decode_properties = serialization.GenericContent._load_properties  # noqa: SLF001 (the only place where it can be caught)
_loads = serialization.loads


def tolerate() -> None:
    """Make sure, from now on, that no property of a message ends its connection."""
    serialization.GenericContent._load_properties = _properties_or_none  # noqa: SLF001
    abstract_channel.loads = _loads_or_replace


def _properties_or_none(content: Any, class_id: int, buf: Any, offset: int) -> int:
    try:
        return int(_decode_properties(content, class_id, buf, offset))
    except Exception as error:  # noqa: BLE001 (a stranger chose the bytes)
        reason = type(error).__name__
        log.warning("the properties of a message cannot be decoded", reason=reason)
        content.properties = {"application_headers": {UNREADABLE: reason}}
        return offset


def _loads_or_replace(form: Any, buf: Any, offset: int) -> tuple[list[Any], int]:
    """Decode the arguments of a method, such as the routing key of a delivery. Replaces bytes that are not UTF-8."""
    try:
        values, offset = _loads(form, buf, offset)
    except UnicodeDecodeError:
        return _replacing(form if isinstance(form, str) else form.decode(), buf, offset)
    return values, offset


def _replacing(form: str, buf: Any, offset: int) -> tuple[list[Any], int]:
    values: list[Any] = []
    for code in form:
        if code in TEXTS:
            (length,) = unpack_from(TEXTS[code], buf, offset)
            offset += calcsize(TEXTS[code])
            values.append(bytes(buf[offset : offset + length]).decode(errors="replace"))
            offset += length
        elif code in NUMBERS:
            values.append(unpack_from(NUMBERS[code], buf, offset)[0])
            offset += calcsize(NUMBERS[code])
        else:  # one bit: in a broker's deliveries it never has a neighbour
            some, offset = _loads(code, buf, offset)
            values += some
    return values, offset
