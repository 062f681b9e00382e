import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from tools import _kafka_jars, kafka_broker
from tools._kafka_jars import BROKER_VARIABLE, CACHE_VARIABLE, BrokerError
from tools._kafka_server import free_ports, is_process
from tools.kafka_broker import Cluster, KafkaBroker, main

OWN = pytest.mark.skipif(BROKER_VARIABLE in os.environ, reason=f"{BROKER_VARIABLE} names a broker of somebody else")


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def send(bootstrap, topic, values, **more):
    producer = KafkaProducer(bootstrap_servers=bootstrap, max_request_size=2**25)
    futures = [producer.send(topic, value, partition=0, **more) for value in values]
    producer.flush()
    producer.close()
    return [future.get().offset for future in futures]


def read(bootstrap, topic, count, start=0):
    place = TopicPartition(topic, 0)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, max_partition_fetch_bytes=2**25, fetch_max_bytes=2**26)
    try:
        consumer.assign([place])
        consumer.seek(place, start)
        found, deadline = [], time.monotonic() + 20
        while len(found) < count and time.monotonic() < deadline:
            for records in consumer.poll(timeout_ms=500).values():
                found += records
        return found
    finally:
        consumer.close()


# What needs no broker.


@pytest.fixture
def no_external(monkeypatch):
    monkeypatch.delenv(BROKER_VARIABLE, raising=False)


def test_missing_java_is_said(no_external, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert main(["start", "--dir", str(tmp_path / "broker")]) == 2
    said = capsys.readouterr().err
    assert "no `java` was found" in said
    assert "apt install openjdk-17" in said
    assert BROKER_VARIABLE in said


def test_missing_maven_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerError, match=r"Maven, which fetches them, was not found .* apt install maven"):
        _kafka_jars.jars()


def test_failing_maven_is_quoted(monkeypatch, tmp_path):
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho no route to the repository\nexit 1\n")
    maven.chmod(0o755)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(BrokerError, match=r"exit code 1\). It said:\nno route to the repository"):
        _kafka_jars.jars()
    assert list((tmp_path / "cache").iterdir()) == []


def test_jars_are_fetched_once_and_again_when_damaged(monkeypatch, tmp_path):
    maven = tmp_path / "mvn"
    maven.write_text(
        f"#!/bin/sh\necho x >> {tmp_path}/calls\n"
        "for word; do case $word in -DoutputDirectory=*) out=${word#*=}; esac; done\n"
        'mkdir -p "$out" && echo jar > "$out/a.jar"\n'
    )
    maven.chmod(0o755)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    folder = _kafka_jars.jars()
    assert _kafka_jars.jars() == folder
    assert (tmp_path / "calls").read_text() == "x\n"
    (folder / "a.jar").write_text("cut short")
    assert _kafka_jars.jars() == folder
    assert (folder / "a.jar").read_text() == "jar\n"
    assert (tmp_path / "calls").read_text() == "x\nx\n"


def test_ports_are_free_different_and_not_handed_out_by_the_system():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(20_000 <= port < 32_000 for port in ports)


def test_commands_on_an_empty_directory(no_external, tmp_path, capsys):
    where = ["--dir", str(tmp_path / "none")]
    assert main(["stop", *where]) == 0
    assert main(["status", *where]) == 1
    assert main(["topics", "list", *where]) == 2
    assert "no broker was started in this directory" in capsys.readouterr().err


def test_directory_of_another_version_is_refused(tmp_path):
    (tmp_path / "broker.json").write_text(json.dumps({"version": "2.0.0"}))
    with pytest.raises(BrokerError, match=r"made by Kafka 2\.0\.0"):
        KafkaBroker(tmp_path).bootstrap  # noqa: B018


def test_number_of_another_process_is_not_taken_for_the_broker(tmp_path):
    (tmp_path / "pid").write_text(str(os.getpid()))
    broker = KafkaBroker(tmp_path)
    assert broker.pid is None
    broker.kill()  # ends nothing: this test goes on
    assert not is_process(os.getpid(), "server.properties")


def test_address_where_nobody_answers(monkeypatch, capsys):
    monkeypatch.setattr("tools._kafka_topics._CONNECT_MS", 200)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(BrokerError, match=f"{address}: no Kafka broker answers there"):
        Cluster(address).topics()
    monkeypatch.setenv(BROKER_VARIABLE, address)
    assert main(["start"]) == 2
    assert main(["kill"]) == 2
    assert "did not start and can't kill" in capsys.readouterr().err


def test_topic_setting_without_value(no_external, capsys):
    assert main(["topics", "create", "t", "--config", "retention.ms", "--broker", "127.0.0.1:1"]) == 2
    assert "expected KEY=VALUE" in capsys.readouterr().err


# Against the broker that the session shares.


@pytest.mark.broker
def test_topics(kafka, make_topic, capsys):
    name = make_topic(3)
    assert name in kafka.topics()
    assert kafka.partitions(name) == [0, 1, 2]
    first_id = kafka.topic_id(name)
    with pytest.raises(BrokerError, match="exists already"):
        kafka.create_topic(name)
    kafka.add_partitions(name, 5)
    assert kafka.partitions(name) == [0, 1, 2, 3, 4]
    assert main(["topics", "describe", name, "--broker", kafka.bootstrap]) == 0
    assert first_id in capsys.readouterr().out
    kafka.delete_topic(name)
    assert name not in kafka.topics()
    with pytest.raises(BrokerError, match=f"no topic '{name}'"):
        kafka.offsets(name)
    with pytest.raises(BrokerError, match=f"no topic '{name}'"):
        kafka.delete_topic(name)
    kafka.create_topic(name)
    assert kafka.topic_id(name) != first_id


@pytest.mark.broker
def test_old_and_future_times_are_kept_as_sent(kafka, make_topic):
    topic = make_topic()
    times = [1, 4_000_000_000_000, 1_000_000_000_000]  # 1970, 2096, 2001
    for time_ms in times:
        send(kafka.bootstrap, topic, [b"x"], timestamp_ms=time_ms)
    assert [record.timestamp for record in read(kafka.bootstrap, topic, 3)] == times
    assert kafka.offsets(topic) == {0: (0, 3)}


@pytest.mark.broker
def test_large_messages_and_deleted_records(kafka, make_topic):
    topic = make_topic()
    large = os.urandom(2**12) * 2**12
    assert len(large) == 16 * 2**20
    assert send(kafka.bootstrap, topic, [b"first", large, b"last"]) == [0, 1, 2]
    assert [record.value for record in read(kafka.bootstrap, topic, 3)] == [b"first", large, b"last"]
    kafka.delete_records(topic, {0: 2})
    assert kafka.offsets(topic) == {0: (2, 3)}


# Brokers of their own.


@OWN
@pytest.mark.broker
def test_broker_keeps_address_identity_and_messages(tmp_path):
    with KafkaBroker(tmp_path / "broker") as broker:
        address, cluster, first_pid = broker.bootstrap, broker.cluster_id(), broker.pid
        assert broker.start().pid == first_pid  # it runs already
        broker.create_topic("t")
        topic_id = broker.topic_id("t")
        send(address, "t", [b"a", b"b"])
        broker.kill()
        assert broker.pid is None
        assert not is_process(first_pid, str(tmp_path / "broker" / "server.properties"))
        broker.start()
        assert broker.pid != first_pid
        assert (broker.bootstrap, broker.cluster_id(), broker.topic_id("t")) == (address, cluster, topic_id)
        send(address, "t", [b"c"])
        broker.restart()
        assert [record.value for record in read(address, "t", 3)] == [b"a", b"b", b"c"]
        assert broker.bootstrap == address
    assert broker.pid is None
    broker.stop()  # once more is fine
    _busy_port_is_said(broker)


def _busy_port_is_said(broker):
    host, port = broker.bootstrap.split(":")
    with socket.socket() as taken:
        taken.bind((host, int(port)))
        taken.listen()
        with pytest.raises(BrokerError, match="Address already in use"):
            broker.start()
    assert broker.pid is None


@OWN
@pytest.mark.broker
def test_broker_dies_with_a_killed_parent(tmp_path):
    program = (
        "import sys; from tools.kafka_broker import KafkaBroker\n"
        "broker = KafkaBroker(sys.argv[1]).start(); print(broker.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        pid = int(parent.stdout.readline())
        assert KafkaBroker(tmp_path).pid == pid
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.communicate()
    wait_for(lambda: not is_process(pid, str(tmp_path / "server.properties")))


@OWN
@pytest.mark.broker
def test_command_line_leaves_a_broker_that_another_stops(tmp_path, capsys, monkeypatch):
    where = ["--dir", str(tmp_path)]
    command = [sys.executable, "-m", "tools.kafka_broker"]
    started = subprocess.run([*command, "start", *where], capture_output=True, text=True, check=True)
    try:
        address = started.stdout.strip()
        assert main(["status", *where]) == 0
        assert main(["topics", "create", "clicks", "--partitions", "2", "--config", "retention.ms=-1", *where]) == 0
        assert main(["topics", "list", *where]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "clicks"
        assert Cluster(address).partitions("clicks") == [0, 1]
        # The same broker as one that somebody else runs.
        monkeypatch.setenv(BROKER_VARIABLE, address)
        with kafka_broker.any_broker(tmp_path / "unused") as cluster:
            assert cluster.topics() == ["clicks"]
        assert not (tmp_path / "unused").exists()
        assert main(["start", *where]) == 0
        assert main(["stop", *where]) == 0
        assert KafkaBroker(tmp_path).pid is not None
        monkeypatch.delenv(BROKER_VARIABLE)
    finally:
        subprocess.run([*command, "stop", *where], env=_without_external(), check=True)
    assert KafkaBroker(tmp_path).pid is None


def _without_external():
    return {name: value for name, value in os.environ.items() if name != BROKER_VARIABLE}
