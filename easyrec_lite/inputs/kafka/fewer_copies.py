"""kafka-python, with fewer calls and copies between the socket and the messages.

Version 3.0.12 takes 4,096 bytes a call from a socket, and each call gives the interpreter lock away and waits to get it
back; then it copies a whole response twice before it looks at it, and the records of each partition once more. With
large messages that is more than half of what polling costs: `tools/bench/kafka.py`, Arrow messages of 100 rows. There
is no setting for it, so one method each of its transport, its buffer and its decoder are replaced; connections by TLS
have a transport of their own, and keep it.
"""

from __future__ import annotations

import logging
from typing import Any

from kafka import errors as kafka_errors
from kafka.net.transport import KafkaTCPTransport
from kafka.protocol.frame import KafkaBytes
from kafka.protocol.schemas.fields.codecs.types import Bytes

_LOG = logging.getLogger(__name__)
_BYTES = 2**20
_ORIGINAL_READ = KafkaBytes.read
_ORIGINAL_EMIT = Bytes.emit_decode_from
_LARGE = 2**16  # bytes: only fetched messages are that large, and they are decoded from any buffer


def copy_less() -> None:
    """Has all connections of this process read up to a mebibyte a call, and look at responses where they lie.

    What is replaced is private: where another version has none of it, it is left alone.
    """
    if hasattr(KafkaTCPTransport, "_sock_recv"):
        KafkaTCPTransport._sock_recv = _receive
    if hasattr(KafkaBytes(0), "_idx"):
        KafkaBytes.read = _read
    Bytes.emit_decode_from = _emit_decode_from


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


def _emit_decode_from(context: Any, *arguments: Any, **options: Any) -> None:
    """Has the code that is generated for a response take `bytes` from it without a copy, where they are many."""
    _ORIGINAL_EMIT(context, *arguments, **options)
    if hasattr(context, "globs"):
        context.globs["bytes"] = _bytes


def _bytes(data: memoryview) -> bytes | memoryview:
    return bytes(data) if len(data) < _LARGE else data
