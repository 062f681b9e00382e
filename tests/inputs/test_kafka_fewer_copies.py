from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest
from kafka import errors as kafka_errors
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.protocol.frame import KafkaBytes

from easyrec_lite.inputs.kafka import fewer_copies


def test_a_connection_reads_all_there_is_in_one_call() -> None:
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        transport = SimpleNamespace(_sock=here)
        assert KafkaTCPTransport._sock_recv(transport) == (b"", None)  # nothing yet
        there.sendall(b"x" * 50_000)
        assert KafkaTCPTransport._sock_recv(transport) == (b"x" * 50_000, None)
        there.close()
        data, error = KafkaTCPTransport._sock_recv(transport)
        assert data == b""
        assert isinstance(error, kafka_errors.KafkaConnectionError)
    assert isinstance(KafkaTCPTransport._sock_recv(transport)[1], kafka_errors.KafkaConnectionError)  # closed here


def test_connections_by_tls_are_left_alone() -> None:
    fewer_copies.copy_less()
    assert KafkaSSLTransport._sock_recv is not KafkaTCPTransport._sock_recv


@pytest.mark.parametrize("size", [0, 5, 2**16 - 1, 2**16, 300_000])
def test_the_rest_of_a_response(size: int) -> None:
    """Small ones are bytes, as SASL wants them; of large ones nothing is copied."""
    content = bytes(range(256)) * (size // 256 + 1)
    frame = KafkaBytes(size)
    frame.write(memoryview(content)[:size])
    frame.seek(0)
    assert frame.read(4) == content[: min(4, size)]
    rest = frame.read()
    assert bytes(rest) == content[4:size]
    assert frame.tell() == size
    assert isinstance(rest, memoryview if size >= 2**16 else bytes)
    if size >= 2**16:
        assert rest.obj is frame


def test_it_is_replaced_once() -> None:
    fewer_copies.copy_less()
    first = KafkaBytes.read
    fewer_copies.copy_less()
    assert KafkaBytes.read is first


def test_a_version_without_the_methods_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Transport:
        """A transport of another version."""

    class Buffer(bytearray):
        """A buffer of another version."""

    monkeypatch.setattr(fewer_copies, "KafkaTCPTransport", Transport)
    monkeypatch.setattr(fewer_copies, "KafkaBytes", Buffer)
    fewer_copies.copy_less()
    assert not hasattr(Transport, "_sock_recv")
    assert not hasattr(Buffer, "read")
