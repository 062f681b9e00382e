"""What comes together with the end of a connection is not lost."""

from __future__ import annotations

import ssl
from types import SimpleNamespace

import pytest
from kafka.errors import KafkaConnectionError
from kafka.net.transport import KafkaSSLTransport

from easyrec_lite.inputs.kafka import kafka_python  # noqa: F401 - from here on connections hear last words
from easyrec_lite.inputs.kafka.last_words import hear_last_words


class Socket:
    """Gives what it was given, piece by piece, and raises what is an error."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = list(pieces)

    def recv(self, size: int) -> bytes:
        piece = self._pieces.pop(0) if self._pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece


def receive(*pieces: bytes | Exception, times: int) -> list[tuple[bytes, bool]]:
    """What so many reads of a TLS connection give, and whether each says that it ended."""
    transport = SimpleNamespace(_sock=Socket(*pieces))
    reads = [KafkaSSLTransport._sock_recv(transport) for _ in range(times)]
    assert all(error is None or isinstance(error, KafkaConnectionError) for _, error in reads)
    return [(bytes(data), error is not None) for data, error in reads]


def test_an_answer_before_the_end_is_handed_on() -> None:
    assert receive(b"wrong ", b"password", times=2) == [(b"wrong password", False), (b"", True)]


def test_the_end_alone_ends_the_connection() -> None:
    assert receive(times=1) == [(b"", True)]


def test_an_answer_before_an_error_is_handed_on() -> None:
    reset = ConnectionResetError()
    assert receive(b"answer", reset, times=2) == [(b"answer", False), (b"", True)]
    assert receive(reset, times=1) == [(b"", True)]


@pytest.mark.parametrize("wait", [ssl.SSLWantReadError(), BlockingIOError()])
def test_an_open_connection_stays_open(wait: Exception) -> None:
    assert receive(b"part", wait, wait, times=2) == [(b"part", False), (b"", False)]


def test_it_is_done_once() -> None:
    before = KafkaSSLTransport._sock_recv
    hear_last_words()
    assert KafkaSSLTransport._sock_recv is before
