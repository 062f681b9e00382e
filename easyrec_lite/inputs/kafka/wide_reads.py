"""kafka-python, reading its sockets in larger bites.

It takes 4,096 bytes a call (3.0.12), and each call gives the interpreter lock away and waits to get it back. With large
messages that is half of what polling costs: `tools/bench/kafka.py`, Arrow messages of 100 rows. There is no setting for
it, so one method of its transport is replaced; connections by TLS have one of their own, and keep it.
"""

from __future__ import annotations

import logging

from kafka import errors as kafka_errors
from kafka.net.transport import KafkaTCPTransport

_LOG = logging.getLogger(__name__)
_BYTES = 2**20


def read_wide() -> None:
    """Has all connections of this process read up to a mebibyte a call."""
    if hasattr(KafkaTCPTransport, "_sock_recv"):  # it is private: another version may have none, and then is left alone
        KafkaTCPTransport._sock_recv = _receive


def _receive(transport: KafkaTCPTransport) -> tuple[bytes, Exception | None]:
    """What is there, without waiting; or the error that ends the connection."""
    try:
        data = transport._sock.recv(_BYTES)
    except (BlockingIOError, InterruptedError):
        return b"", None
    except OSError as error:
        _LOG.debug("%s: %s", transport, error)
        return b"", kafka_errors.KafkaConnectionError(error)
    return data, None if data else kafka_errors.KafkaConnectionError("socket disconnected")
