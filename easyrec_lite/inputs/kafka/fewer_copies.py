"""kafka-python, with fewer calls and copies between the socket and the messages.

Version 3.0.12 takes 4,096 bytes a call from a socket, and each call gives the interpreter lock away and waits to get it
back; then it copies a whole response twice before it looks at it. With large messages that is more than half of what
polling costs: `tools/bench/kafka.py`, Arrow messages of 100 rows. There is no setting for it, so one method of its
transport and one of its buffer are replaced; connections by TLS have a transport of their own, and keep it.
"""

from __future__ import annotations

import logging

from kafka import errors as kafka_errors
from kafka.net.transport import KafkaTCPTransport
from kafka.protocol.frame import KafkaBytes

_LOG = logging.getLogger(__name__)
_BYTES = 2**20
_ORIGINAL_READ = KafkaBytes.read
_LARGE = 2**16  # bytes: only fetched messages are that large, and they are decoded from any buffer


def copy_less() -> None:
    """Has all connections of this process read up to a mebibyte a call, and look at responses where they lie.

    What is replaced is private: where another version has none of it, it is left alone.
    """
    if hasattr(KafkaTCPTransport, "_sock_recv"):
        KafkaTCPTransport._sock_recv = _receive
    if hasattr(KafkaBytes(0), "_idx"):
        KafkaBytes.read = _read


def _receive(transport: KafkaTCPTransport) -> tuple[bytes | memoryview, Exception | None]:
    """What is there, without waiting; or the error that ends the connection. Valid until the next call."""
    try:
        buffer = transport._wide_buffer
    except AttributeError:
        buffer = transport._wide_buffer = memoryview(bytearray(_BYTES))
    try:
        count = transport._sock.recv_into(buffer)
    except (BlockingIOError, InterruptedError):
        return b"", None
    except OSError as error:
        _LOG.debug("%s: %s", transport, error)
        return b"", kafka_errors.KafkaConnectionError(error)
    return buffer[:count], None if count else kafka_errors.KafkaConnectionError("socket disconnected")


def _read(frame: KafkaBytes, nbytes: int | None = None) -> bytes | memoryview:
    """Hands out all of a large response, which nobody writes to any more, without a copy."""
    if nbytes is not None or len(frame) < _LARGE:
        return _ORIGINAL_READ(frame, nbytes)
    start, frame._idx = frame._idx, len(frame)
    return memoryview(frame)[start:]
