from __future__ import annotations

import socket
from types import SimpleNamespace

from kafka import errors as kafka_errors
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from easyrec_lite.inputs.kafka import wide_reads


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
    wide_reads.read_wide()
    assert KafkaSSLTransport._sock_recv is not KafkaTCPTransport._sock_recv


def test_a_version_without_the_method_is_left_alone(monkeypatch) -> None:
    class Other:
        """A transport of another version."""

    monkeypatch.setattr(wide_reads, "KafkaTCPTransport", Other)
    wide_reads.read_wide()
    assert not hasattr(Other, "_sock_recv")
