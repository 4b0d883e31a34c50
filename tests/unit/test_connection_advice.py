"""What is said about a broker that cannot be connected to, and TLS in compose."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import pytest
from kombu.exceptions import OperationalError

from service import connection_advice

ROOT = Path(__file__).parents[2]


def alert(name: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {name}] as OpenSSL says it (_ssl.c:2580)")
    error.reason = name
    return error


@pytest.mark.parametrize(
    ("error", "tls", "words"),
    [
        (alert("TLSV13_ALERT_CERTIFICATE_REQUIRED"), True, "Set AMQP_CERT_FILE and AMQP_KEY_FILE"),
        (alert("SSLV3_ALERT_HANDSHAKE_FAILURE"), True, "Set AMQP_CERT_FILE and AMQP_KEY_FILE"),
        (alert("SSLV3_ALERT_CERTIFICATE_EXPIRED"), True, "our certificate has expired"),
        (alert("TLSV1_ALERT_UNKNOWN_CA"), True, "does not accept our certificate"),
        (alert("TLSV1_ALERT_PROTOCOL_VERSION"), True, "another version of TLS"),
        (alert("WRONG_VERSION_NUMBER"), True, "does not speak TLS"),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), True, "It may want a certificate of ours"),
        (BrokenPipeError(32, "Broken pipe"), True, "It may want a certificate of ours"),
        (ConnectionResetError(104, "Connection reset by peer"), False, "write amqps:// there"),
        (OSError("Server unexpectedly closed connection"), False, "write amqps:// there"),
    ],
)
def test_a_refusal_is_told_with_the_setting_to_change(error: OSError, words: str, *, tls: bool) -> None:
    assert words in connection_advice.why(error, tls=tls)
    assert "_ssl.c" not in connection_advice.why(error, tls=tls)
    wrapped = OperationalError(str(error))
    wrapped.__cause__ = error
    assert words in connection_advice.why(wrapped, tls=tls)


@pytest.mark.parametrize("tls", [True, False])
def test_other_errors_keep_their_words(*, tls: bool) -> None:
    error = ConnectionRefusedError(111, "Connection refused")
    assert connection_advice.why(error, tls=tls) == "[Errno 111] Connection refused"


def test_with_tls_in_compose_every_user_of_the_broker_has_an_address_with_tls() -> None:
    usual = re.findall(r"amqp://([a-z-]+)@rabbitmq:5672//", (ROOT / "docker-compose.yml").read_text())
    with_tls = (ROOT / "docker-compose.tls.yml").read_text()
    assert sorted(usual) == sorted(re.findall(r"amqps://([a-z-]+)@rabbitmq:5671//", with_tls)) != []
    assert with_tls.count("<<: *tls") == with_tls.count("volumes: *certificates") == len(usual)
