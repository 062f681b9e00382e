from __future__ import annotations

import socket
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from kafka import errors as kafka_errors
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.protocol import parser
from kafka.protocol.consumer import FetchResponse

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
    frame = parser.KafkaBytes(size)
    assert len(frame) == size
    frame.write(memoryview(content)[: size // 2])
    assert frame.tell() == size // 2
    frame.write(memoryview(content)[size // 2 : size])
    frame.seek(0)
    assert frame.read(4) == content[: min(4, size)]
    rest = frame.read()
    assert bytes(rest) == content[4:size]
    assert frame.tell() == size
    assert frame.read(3) == b""
    assert isinstance(rest, memoryview if size >= 2**16 else bytes)


def test_memory_is_used_again_when_nobody_looks_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fewer_copies, "_memories", [])

    def response(size: int, fill: bytes) -> Any:
        frame = parser.KafkaBytes(size)
        frame.write(fill * size)
        frame.seek(0)
        return frame

    first = response(100_000, b"a")
    memory = fewer_copies._memories[0]
    part = first.read()[10:20]
    del first  # the part still looks at it
    second = response(100_000, b"b")
    assert bytes(part) == b"a" * 10
    assert len(fewer_copies._memories) == 2
    del part
    third = response(90_000, b"c")
    assert third.read().obj is memory
    assert bytes(second.read()) == b"b" * 100_000
    assert len(fewer_copies._memories) == 2
    del second, third
    large = response(10**6, b"d")  # those that are too small go
    assert [len(one) for one in fewer_copies._memories] == [2**20]
    held = [large, *(response(10**6, bytes([number])) for number in range(6))]
    assert len(fewer_copies._memories) == 4
    assert [bytes(one.read())[:1] for one in held] == [b"d", *(bytes([number]) for number in range(6))]


@pytest.mark.parametrize("size", [0, 5, 2**16 - 1, 2**16, 300_000])
def test_the_records_of_a_partition(size: int) -> None:
    """Nothing of many records is copied when a response is decoded."""
    response_type, version = FetchResponse, 12
    records = bytes(range(256)) * (size // 256) + bytes(size % 256)
    partition = response_type.FetchableTopicResponse.PartitionData(
        partition_index=3, error_code=0, high_watermark=7, last_stable_offset=7, log_start_offset=0,
        aborted_transactions=[], preferred_read_replica=-1, records=records,
    )  # fmt: skip
    topic = response_type.FetchableTopicResponse(topic="t", partitions=[partition])
    response = response_type(throttle_time_ms=0, error_code=0, session_id=0, responses=[topic])
    sent = bytes(response.encode(version=version))
    (decoded,) = response_type.decode(sent, version=version).responses[0].partitions
    assert (decoded.partition_index, decoded.high_watermark) == (3, 7)
    assert bytes(decoded.records) == records
    assert isinstance(decoded.records, memoryview if size >= 2**16 else bytes)


def test_it_is_replaced_once() -> None:
    fewer_copies.copy_less()
    first = KafkaTCPTransport._sock_recv, parser.KafkaBytes
    fewer_copies.copy_less()
    assert (KafkaTCPTransport._sock_recv, parser.KafkaBytes) == first


def test_a_version_without_the_methods_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Transport:
        """A transport of another version."""

    monkeypatch.setattr(fewer_copies, "KafkaTCPTransport", Transport)
    other = ModuleType("parser")
    monkeypatch.setattr(fewer_copies, "parser", other)
    fewer_copies.copy_less()
    assert not hasattr(Transport, "_sock_recv")
    assert not hasattr(other, "KafkaBytes")
