"""kafka-python, with fewer calls and copies between the socket and the messages.

Version 3.0.12 takes 4,096 bytes a call from a socket, and each call gives the interpreter lock away and waits to get it
back; then it copies a whole response twice before it looks at it, and the records of each partition once more; and each
response lies in memory that is new to the process, which the kernel must clear, page by page. With large messages that
is more than half of what polling costs: `tools/bench/kafka.py`, Arrow messages of 100 rows. There is no setting for it,
so a method of its transport and one of its decoder are replaced, and the buffer of its parser; connections by TLS have
a transport of their own, and keep it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable
from typing import Any

from kafka import errors as kafka_errors
from kafka.net.transport import KafkaTCPTransport
from kafka.protocol import parser
from kafka.protocol.frame import KafkaBytes

_LOG = logging.getLogger(__name__)
_BYTES = 2**20
_LARGE = 2**16  # bytes: only fetched messages are that large, and they are decoded from any buffer
_KEPT = 4  # memories, each as large as the largest responses
_memories: list[bytearray] = []
_lock = threading.Lock()


def copy_less() -> None:
    """Has all connections of this process read up to a mebibyte a call, and look at responses where they lie.

    What is replaced is private: where another version has none of it, it is left alone.
    """
    if hasattr(KafkaTCPTransport, "_sock_recv"):
        KafkaTCPTransport._sock_recv = _receive
    if hasattr(parser, "KafkaBytes"):
        parser.KafkaBytes = _buffer
    with contextlib.suppress(ImportError):
        from kafka.protocol.schemas.fields.codecs.types import Bytes

        original = Bytes.emit_decode_from
        if not isinstance(original, functools.partial):
            Bytes.emit_decode_from = functools.partial(_emit_decode_from, original)


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


class LargeResponse:
    """A response as KafkaBytes holds it, but in memory that was used before; what is left is read without a copy.

    Args:
        memory: at least so large.
        size: of the response, bytes.
    """

    def __init__(self, memory: bytearray, size: int) -> None:
        self._bytes = memoryview(memory)[:size]
        self._at = 0

    def __len__(self) -> int:
        return len(self._bytes)

    def read(self, nbytes: int | None = None) -> bytes | memoryview:
        """The next bytes; without a number all that are left, where they lie."""
        start = self._at
        self._at = len(self) if nbytes is None else min(start + nbytes, len(self))
        found = self._bytes[start : self._at]
        return found if nbytes is None else bytes(found)

    def write(self, data: bytes | memoryview) -> None:
        """Puts bytes at the current place."""
        self._bytes[self._at : self._at + len(data)] = data
        self._at += len(data)

    def seek(self, at: int) -> None:
        """Goes to a place."""
        self._at = at

    def tell(self) -> int:
        """The current place."""
        return self._at


def _buffer(size: int) -> KafkaBytes | LargeResponse:
    if size < _LARGE:
        return KafkaBytes(size)
    with _lock:
        free: list[bytearray] = []
        busy: list[bytearray] = []
        for memory in _memories:
            (free if _is_free(memory) else busy).append(memory)
        fitting = next((memory for memory in free if len(memory) >= size), None)
        if fitting is None:
            fitting = bytearray(1 << (size - 1).bit_length())
            _memories[:] = [*busy, fitting][:_KEPT]
        return LargeResponse(fitting, size)


def _is_free(memory: bytearray) -> bool:
    """Whether nobody looks at any part of it; Python refuses to change the size of memory that somebody looks at."""
    try:
        memory.append(memory.pop())
    except BufferError:
        return False
    return True


def _emit_decode_from(original: Callable[..., None], context: Any, *arguments: Any, **options: Any) -> None:
    """Has the code that is generated for a response take `bytes` from it without a copy, where they are many."""
    original(context, *arguments, **options)
    if hasattr(context, "globs"):
        context.globs["bytes"] = _bytes


def _bytes(data: memoryview) -> bytes | memoryview:
    return bytes(data) if len(data) < _LARGE else data
