"""Explains why a connection to the broker fails, for a person who has to change a setting.

TLS's own messages ("tlsv13 alert certificate required") name no setting.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

#: OpenSSL's codes for faults of a certificate: X509_V_ERR_* in its x509_vfy.h.
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_NAME = frozenset({62, 64})
_UNKNOWN_CA = frozenset({2, 18, 19, 20, 21})

_BROKER_CERTIFICATE = {
    "ca": "the broker's certificate is signed by a CA that is not known here. Set AMQP_CA_FILE to the PEM file of the "
    "CA that signed it",
    "name": "the broker's certificate is for another host. Use a host in AMQP_URL that the certificate names, or add "
    "?server_name_indication=NAME to AMQP_URL",
    "expired": "the broker's certificate, or its CA's, has expired. Renew it at the broker",
    "other": "the broker's certificate is not accepted here. Replace it at the broker, or AMQP_CA_FILE",
    "early": "the broker's certificate is not valid yet. Compare the clocks of both machines",
}
_CERTIFICATE_WANTED = "the broker wants a certificate of ours. Set AMQP_CERT_FILE and AMQP_KEY_FILE"
_CERTIFICATE_REFUSED = (
    "the broker does not accept our certificate. The one in AMQP_CERT_FILE must be signed by a CA that the broker "
    "knows (ssl_options.cacertfile)"
)
#: What the broker says about our certificate before it closes the connection: OpenSSL's names of TLS alerts.
_TLS_ALERTS = {
    "CERTIFICATE_REQUIRED": _CERTIFICATE_WANTED,
    "HANDSHAKE_FAILURE": f"{_CERTIFICATE_WANTED}. If they are set, the two sides have no cipher in common",
    "CERTIFICATE_EXPIRED": "our certificate has expired. Renew the one in AMQP_CERT_FILE",
    "CERTIFICATE_REVOKED": "our certificate was revoked. Replace the one in AMQP_CERT_FILE",
    "BAD_CERTIFICATE": _CERTIFICATE_REFUSED,
    "CERTIFICATE_UNKNOWN": _CERTIFICATE_REFUSED,
    "UNSUPPORTED_CERTIFICATE": _CERTIFICATE_REFUSED,
    "UNKNOWN_CA": _CERTIFICATE_REFUSED,
    "PROTOCOL_VERSION": "the broker speaks another version of TLS. Allow 1.2 or 1.3 there (ssl_options.versions)",
}
_PORT_WITHOUT_TLS = (
    "the port in AMQP_URL does not speak TLS. Use the broker's port for TLS (5671, unless it was changed), or amqp:// "
    "without TLS"
)
_PORT_WITHOUT_TLS_REASONS = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}
)
#: RabbitMQ may close a connection before its alert about our certificate was read.
_CLOSED_TLS = (
    "the broker closed the connection while it began. It may want a certificate of ours, or not accept it "
    "(AMQP_CERT_FILE, AMQP_KEY_FILE); or the port in AMQP_URL is not for AMQP with TLS"
)
_CLOSED = "the broker closed the connection while it began. If the port in AMQP_URL is for TLS, write amqps:// there"


def why(error: BaseException, *, tls: bool) -> str:
    """Return what failed and what to do about it, with the original error in parentheses.

    If there is no advice, return only the original error. `error`: what an attempt to connect raised. `tls`: whether
    the address was amqps://.
    """
    said = re.sub(r" \(_ssl\.c:\d+\)", "", str(error)) or type(error).__name__
    words = advice(error, tls=tls)
    return f"{words} ({said})" if words else said


def advice(error: BaseException, *, tls: bool) -> str | None:
    """Return what failed and what to do about it. None: it is not about TLS."""
    return next(filter(None, (_in_words(one, tls=tls) for one in _causes(error))), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and its causes: kombu raises an error of its own."""
    while error is not None:
        yield error
        error = error.__cause__


def _in_words(error: BaseException, *, tls: bool) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _BROKER_CERTIFICATE[_fault(error.verify_code)]
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    if reason in _PORT_WITHOUT_TLS_REASONS:
        return _PORT_WITHOUT_TLS
    if alert := (reason or "").partition("_ALERT_")[2]:
        return _TLS_ALERTS.get(alert)
    # If the other side has closed the connection, py-amqp raises a plain OSError.
    closed = isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionResetError | BrokenPipeError)
    if closed or (type(error) is OSError and "closed connection" in str(error)):
        return _CLOSED_TLS if tls else _CLOSED
    return None


def _fault(code: int) -> str:
    if code in _OTHER_NAME:
        return "name"
    if code in _UNKNOWN_CA:
        return "ca"
    return {_EXPIRED: "expired", _NOT_YET_VALID: "early"}.get(code, "other")
