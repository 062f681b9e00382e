"""One suite for both clients, against a real broker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka_streams import full, ids, make_source, read_rows, reading

from easyrec_lite.inputs import BadRows, InputError
from easyrec_lite.inputs.kafka import confluent, kafka_python
from easyrec_lite.inputs.kafka.client import Client, Fetched, Library, OutOfRangeError
from easyrec_lite.inputs.kafka.ledger import Ledger
from easyrec_lite.inputs.kafka.opening import library as find_library
from easyrec_lite.inputs.kafka.settings import Settings, Where
from easyrec_lite.protos import data_pb2

pytestmark = pytest.mark.broker
CLIENTS = {"kafka-python": data_pb2.KafkaServer.KAFKA_PYTHON, "confluent": data_pb2.KafkaServer.CONFLUENT}
TIME = 1_700_000_000_000


@pytest.fixture(params=CLIENTS)
def client_type(request: pytest.FixtureRequest) -> int:
    if request.param == "confluent":
        pytest.importorskip("confluent_kafka")
    return CLIENTS[request.param]


def make_settings(bootstrap: str, topic: str, client: int, **options: Any) -> Settings:
    return Settings("kafka_train_input", (bootstrap,), topic, f"group-{topic}", client, **{"max_wait": 0.0} | options)


def send(bootstrap: str, topic: str, values: dict[int, list[bytes | None]], time: int = TIME) -> None:
    """Sends messages, each a second after the one before."""
    with closing(KafkaProducer(bootstrap_servers=bootstrap)) as producer:
        sent = [
            producer.send(topic, value, b"key", partition=partition, timestamp_ms=time + 1000 * index)
            for partition, messages in values.items()
            for index, value in enumerate(messages)
        ]
        for one in sent:
            one.get(30)


def send_in_transaction(bootstrap: str, topic: str, value: bytes, *, commit: bool) -> None:
    with closing(KafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"t-{topic}")) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topic, value, partition=0)
        producer.flush()
        producer.commit_transaction() if commit else producer.abort_transaction()


def numbers(first: int, count: int) -> list[bytes | None]:
    return [str(number).encode() for number in range(first, first + count)]


@pytest.fixture
def connect(kafka: Any, client_type: int) -> Iterator[Any]:
    opened: list[Client] = []

    def make(topic: str, refresh: float = 30.0) -> Client:
        settings = make_settings(kafka.bootstrap, topic, client_type)
        opened.append(find_library(settings).connect(settings, refresh))
        return opened[-1]

    yield make
    for client in opened:
        client.close()


def poll_until(client: Client, positions: dict[int, int], polls: int = 100) -> list[Fetched]:
    """Polls until every partition is where it should be."""
    fetched: list[Fetched] = []
    reached: dict[int, int] = {}
    while any(reached.get(number, -1) < offset for number, offset in positions.items()):
        assert (polls := polls - 1), f"only {reached} of {positions}"
        fetched += client.poll(0.2)
        reached |= {one.partition: one.next for one in fetched}
    assert reached == positions
    return fetched


def test_polls_messages_from_any_offset_on(kafka: Any, make_topic: Any, connect: Any) -> None:
    topic = make_topic(2)
    send(kafka.bootstrap, topic, {0: numbers(0, 5), 1: [b"a", None, b""]})
    client = connect(topic)
    assert client.poll(0) == []
    client.assign({0: 3, 1: 0})
    fetched = poll_until(client, {0: 5, 1: 3})
    found = {
        number: [
            m
            for one in fetched
            if one.partition == number
            for m in zip(one.offsets, one.timestamps, one.values, strict=True)
        ]
        for number in (0, 1)
    }
    assert found == {
        0: [(3, TIME + 3000, b"3"), (4, TIME + 4000, b"4")],
        1: [(0, TIME, b"a"), (1, TIME + 1000, None), (2, TIME + 2000, b"")],
    }
    assert client.high_watermarks() == {0: 5, 1: 3}


def test_asks_for_offsets(kafka: Any, make_topic: Any, connect: Any) -> None:
    topic = make_topic(2)
    send(kafka.bootstrap, topic, {0: numbers(0, 5)})
    kafka.delete_records(topic, {0: 2})
    client = connect(topic)
    assert client.beginnings([0, 1], 10) == {0: 2, 1: 0}
    assert client.ends([0, 1], 10) == {0: 5, 1: 0}
    assert client.offsets_at(TIME + 3000, [0, 1], 10) == {0: 3, 1: None}
    assert client.offsets_at(TIME + 2500, [0], 10) == {0: 3}
    assert client.beginnings([], 10) == client.ends([], 10) == client.offsets_at(1, [], 10) == {}


def test_describes_the_topic_the_same_way_with_either_client(kafka: Any, make_topic: Any) -> None:
    topic = make_topic(3)
    found = set()
    for client_type in CLIENTS.values():
        settings = make_settings(kafka.bootstrap, topic, client_type)
        with closing(find_library(settings).connect(settings, 30.0)) as client:
            found.add(client.describe(10))
    (one,) = found
    assert (one.cluster, one.partitions) == (kafka.cluster_id(), {0, 1, 2})
    assert len(one.id) == 22


def test_a_topic_that_is_not_there_has_no_partitions(connect: Any) -> None:
    topic = connect("no-such-topic").describe(10)
    assert topic is not None
    assert not topic.partitions


def test_moves_over_transactions_and_hides_those_that_failed(kafka: Any, make_topic: Any, connect: Any) -> None:
    topic = make_topic(1)
    send_in_transaction(kafka.bootstrap, topic, b"good", commit=True)
    send_in_transaction(kafka.bootstrap, topic, b"bad", commit=False)
    client = connect(topic)
    assert client.ends([0], 10) == {0: 4}
    client.assign({0: 0})
    assert [value for one in poll_until(client, {0: 4}) for value in one.values] == [b"good"]


def test_reads_nothing_of_an_open_transaction(kafka: Any, make_topic: Any, connect: Any) -> None:
    topic = make_topic(1)
    send(kafka.bootstrap, topic, {0: [b"before"]})
    with closing(KafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id="open")) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topic, b"open", partition=0)
        producer.flush()
        client = connect(topic)
        assert client.ends([0], 10) == {0: 1}
        client.assign({0: 0})
        poll_until(client, {0: 1})
        producer.commit_transaction()
        assert [value for one in poll_until(client, {0: 3}) for value in one.values] == [b"open"]


def test_an_offset_that_is_gone_raises_and_the_others_go_on(kafka: Any, make_topic: Any, connect: Any) -> None:
    topic = make_topic(2)
    send(kafka.bootstrap, topic, {0: numbers(0, 5), 1: numbers(5, 5)})
    kafka.delete_records(topic, {0: 3})
    client = connect(topic)
    client.assign({0: 1, 1: 0})
    found: list[int] = []
    fetched: list[Fetched] = []
    for _ in range(100):
        try:
            fetched += client.poll(0.2)
        except OutOfRangeError as error:
            found.append(error.partition)
            client.assign({1: max([one.next for one in fetched], default=0)})
            client.assign({1: max([one.next for one in fetched], default=0), 0: 3})
        if sum(len(one.offsets) for one in fetched) == 7:
            break
    assert found == [0]
    assert sorted(value for one in fetched for value in one.values) == [b"3", b"4", *(b"%d" % i for i in range(5, 10))]


def test_paused_partitions_give_nothing_and_lose_nothing(kafka: Any, make_topic: Any, connect: Any) -> None:
    topic = make_topic(2)
    send(kafka.bootstrap, topic, {0: numbers(0, 50), 1: numbers(50, 50)})
    client = connect(topic)
    client.assign({0: 0, 1: 0})
    client.pause([0])
    poll_until(client, {1: 50})
    client.pause([])
    assert [value for one in poll_until(client, {0: 50}) for value in one.values] == numbers(0, 50)


def test_a_partition_that_is_not_assigned_can_be_paused(kafka: Any, make_topic: Any, connect: Any) -> None:
    topic = make_topic(2)
    send(kafka.bootstrap, topic, {0: numbers(0, 5), 1: numbers(5, 5)})
    client = connect(topic)
    client.assign({1: 0})  # as where a run goes on whose other partition is at its end
    client.pause([0])
    assert [value for one in poll_until(client, {1: 5}) for value in one.values] == numbers(5, 5)


def test_commits_offsets_for_lag_tools(kafka: Any, make_topic: Any, client_type: int) -> None:
    from kafka import KafkaAdminClient

    topic = make_topic(2)
    settings = make_settings(kafka.bootstrap, topic, client_type)
    find_library(settings).commit(settings, {0: 7, 1: 9}, 10)
    with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
        found = admin.list_group_offsets({settings.group: None})[settings.group]
    assert {at.partition: one.offset for at, one in found.items()} == {0: 7, 1: 9}


def test_no_broker_is_an_error_with_the_address(client_type: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(kafka_python, "_CONNECT_MS", 300)
    monkeypatch.setattr(confluent, "_CONNECT_SECONDS", 0.3)
    with socket.socket() as listener:  # bound, so that nobody else answers, but not listening
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        settings = make_settings(address, "clicks", client_type)
        with pytest.raises(InputError, match=f"no broker at {address}"):
            find_library(settings).connect(settings, 30.0)


def test_sasl_with_the_password_by_reference(own_kafka: Any, client_type: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from tools._kafka_server import free_ports
    from tools.kafka_broker import KafkaBroker

    identity = own_kafka._identity()
    plain, controller = (
        f"PLAINTEXT://127.0.0.1:{identity['port']}",
        f"CONTROLLER://127.0.0.1:{identity['controller_port']}",
    )
    (port,) = free_ports(1)
    own_kafka.stop()
    settings = {
        "listeners": f"{plain},{controller},SASL://127.0.0.1:{port}",
        "advertised.listeners": f"{plain},SASL://127.0.0.1:{port}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT",
        "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl.plain.sasl.jaas.config": (
            'org.apache.kafka.common.security.plain.PlainLoginModule required user_reader="open sesame";'
        ),
    }
    server = data_pb2.KafkaServer(server=f"127.0.0.1:{port}", topic="clicks", group="g", client=client_type)
    server.config_global.extend(
        ["security.protocol=sasl_plaintext", "sasl.mechanism=PLAIN", "sasl.username=reader", "sasl.password=env:SESAME"]
    )
    monkeypatch.setenv("SESAME", "open sesame")
    with KafkaBroker(own_kafka.directory, settings=settings) as broker:
        broker.create_topic("clicks")
        send(broker.bootstrap, "clicks", {0: [b"1"]})
        checked = Settings.from_config(server)
        library = find_library(checked)
        assert [ids(batch) for batch in read_rows(make_source(library, checked), 1)] == [[1]]
        library.commit(checked, {0: 1}, 10)
        monkeypatch.setenv("SESAME", "wrong")
        monkeypatch.setattr(kafka_python, "_CONNECT_MS", 3000)  # it doesn't tell a refusal from silence
        with pytest.raises(InputError, match=r"(?i)authentication|security settings"):
            library.connect(Settings.from_config(server), 30.0)


# The source over both clients.


@pytest.fixture
def library(kafka: Any, client_type: int) -> Library:
    return find_library(make_settings(kafka.bootstrap, "any", client_type))


def test_every_row_once_and_the_same_batches_again(
    kafka: Any, make_topic: Any, client_type: int, library: Library, tmp_path: Any
) -> None:
    topic = make_topic(3)
    lines: dict[int, list[bytes | None]] = {
        number: [b"\n".join(b"%d" % (1000 * number + 10 * m + row) for row in range(m % 4)) for m in range(40)]
        for number in (0, 1)
    }
    send(kafka.bootstrap, topic, lines)
    settings = make_settings(kafka.bootstrap, topic, client_type)
    rows = sorted(int(line) for values in lines.values() for value in values for line in value.split() if value)
    batches = read_rows(make_source(library, settings, batch_size=7, ledger=Ledger(tmp_path)), len(rows))
    assert sorted(row for batch in batches for row in ids(batch)) == rows
    assert batches[0].event_time >= TIME / 1000
    send(kafka.bootstrap, topic, {2: [b"5000"]})
    again = read_rows(
        make_source(library, settings, batch_size=7, ledger=Ledger(tmp_path)),
        sum(batch.rows for batch in batches[4:]) + 1,
        batches[3].position.to_json(),
    )
    assert [ids(batch) for batch in again] == [*(ids(batch) for batch in batches[4:]), [5000]]
    assert [batch.position for batch in again[:-1]] == [batch.position for batch in batches[4:]]


def test_a_bounded_run_is_the_same_with_either_client(kafka: Any, make_topic: Any, client_type: int) -> None:
    topic = make_topic(2)
    send(kafka.bootstrap, topic, {0: numbers(0, 30)})
    send(kafka.bootstrap, topic, {1: numbers(100, 10)}, TIME + 4500)
    send_in_transaction(kafka.bootstrap, topic, b"7", commit=False)
    settings = make_settings(kafka.bootstrap, topic, client_type, end=Where("latest"))
    library = find_library(settings)
    batches = list(full(make_source(library, settings, batch_size=6).read()))
    expected = [*range(5)] + [row for at in range(10) for row in (100 + at, 5 + at)] + [*range(15, 30)]
    assert [row for batch in batches for row in ids(batch)] == expected
    assert [batch.rows for batch in batches] == [6] * 6 + [4]
    send(kafka.bootstrap, topic, {0: numbers(900, 5)})
    again = list(full(make_source(library, settings, batch_size=6).read(batches[2].position.to_json())))
    assert [(ids(batch), batch.position) for batch in again] == [(ids(b), b.position) for b in batches[3:]]


def test_new_partitions_are_found_while_running(
    kafka: Any, make_topic: Any, client_type: int, library: Library
) -> None:
    topic = make_topic(1)
    send(kafka.bootstrap, topic, {0: [b"0"]})
    source = make_source(library, make_settings(kafka.bootstrap, topic, client_type), refresh=0.2)
    with reading(source) as batches:
        assert ids(next(full(batches))) == [0]
        kafka.add_partitions(topic, 2)
        send(kafka.bootstrap, topic, {1: numbers(1, 3)})
        found: list[int] = []
        while len(found) < 3:
            found += ids(next(full(batches)))
        assert found == [1, 2, 3]


def test_a_topic_made_anew_is_an_error_at_the_start_and_while_running(
    kafka: Any, make_topic: Any, client_type: int, library: Library
) -> None:
    topic = make_topic(1)
    send(kafka.bootstrap, topic, {0: [b"0"]})
    source = make_source(library, make_settings(kafka.bootstrap, topic, client_type), refresh=0.2)
    with reading(source) as batches:
        position = next(full(batches)).position.to_json()
        kafka.delete_topic(topic)
        kafka.create_topic(topic, 1)
        with pytest.raises(InputError, match="a topic made anew"):
            for _ in batches:
                pass
    with pytest.raises(InputError, match="a topic made anew"):
        source.read(position)


def test_a_topic_that_goes_is_an_error(kafka: Any, make_topic: Any, client_type: int, library: Library) -> None:
    topic = make_topic(1)
    send(kafka.bootstrap, topic, {0: [b"0"]})
    source = make_source(library, make_settings(kafka.bootstrap, topic, client_type), refresh=0.2)
    with reading(source) as batches:
        next(full(batches))
        kafka.delete_topic(topic)
        with pytest.raises(InputError, match="no such topic"):
            for _ in batches:
                pass


def test_messages_that_are_gone(kafka: Any, make_topic: Any, client_type: int, library: Library) -> None:
    topic = make_topic(1)
    send(kafka.bootstrap, topic, {0: numbers(0, 10)})
    (first, *_) = read_rows(make_source(library, make_settings(kafka.bootstrap, topic, client_type)), 10)
    kafka.delete_records(topic, {0: 6})
    source = make_source(library, make_settings(kafka.bootstrap, topic, client_type))
    with reading(source, first.position) as batches, pytest.raises(InputError) as caught:
        next(full(batches))
    assert "partition 0: found the first message at offset 6, of 2023-11-14 22:13:26+00:00" in str(caught.value)
    assert "expected offset 4, the next one to read (the newest row read is of 2023-11-14 22:13:23" in str(caught.value)
    skipping = make_source(library, make_settings(kafka.bootstrap, topic, client_type, skip_lost=True))
    (rest,) = read_rows(skipping, 4, first.position)
    assert ids(rest) == [6, 7, 8, 9]
    assert '"lost":2' in rest.position.to_json()


def test_dead_letters_and_their_headers(
    kafka: Any, make_topic: Any, client_type: int, library: Library, tmp_path: Any
) -> None:
    topic, letters = make_topic(1), make_topic(1)
    send(kafka.bootstrap, topic, {0: [b"1\nx\n2", None, b"3"]})
    bad_rows = BadRows(tmp_path / "bad.jsonl", max_share=1.0)
    settings = make_settings(kafka.bootstrap, topic, client_type, dead_letter_topic=letters)
    read_rows(make_source(library, settings, bad_rows=bad_rows), 3)
    reader = make_settings(kafka.bootstrap, letters, client_type)
    with closing(library.connect(reader, 30.0)) as client:
        client.assign({0: 0})
        assert [value for one in poll_until(client, {0: 2}) for value in one.values] == [b"1\nx\n2", None]
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 2


def test_a_broker_that_is_killed_and_comes_back(
    own_kafka: Any, client_type: int, caplog: pytest.LogCaptureFixture
) -> None:
    own_kafka.create_topic("clicks", 2)
    send(own_kafka.bootstrap, "clicks", {0: numbers(0, 20), 1: numbers(20, 20)})
    settings = make_settings(own_kafka.bootstrap, "clicks", client_type)
    source = make_source(find_library(settings), settings, batch_size=8, max_rows=16, refresh=1.0)
    found: list[int] = []
    with caplog.at_level(logging.WARNING, "easyrec_lite"), reading(source) as batches:
        found += ids(next(full(batches)))
        own_kafka.kill()
        while not any("no broker answers" in message for message in caplog.messages):
            found += ids(next(batches))
        own_kafka.start()
        send(own_kafka.bootstrap, "clicks", {0: numbers(40, 20)})
        while len(found) < 60 or not any("answers again" in message for message in caplog.messages):
            found += ids(next(batches))
    assert sorted(found) == list(range(60))
    assert sum("no broker answers" in message for message in caplog.messages) == 1
    assert sum("a broker answers again" in message for message in caplog.messages) == 1
