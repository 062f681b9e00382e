from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from easyrec_lite.config import ConfigError
from easyrec_lite.inputs.kafka import KafkaSource, open_kafka
from easyrec_lite.inputs.kafka.confluent import Confluent
from easyrec_lite.inputs.kafka.settings import Settings, Where, kafka_python_options
from easyrec_lite.inputs.messages import build_decoder
from easyrec_lite.protos import data_pb2

_Server = data_pb2.KafkaServer


def server(**options: Any) -> data_pb2.KafkaServer:
    return _Server(**{"server": "a:9092, b:9093", "topic": "clicks", "group": "g"} | options)


def problems(**options: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Settings.from_config(server(**options), "kafka_train_input")
    return [str(problem) for problem in caught.value.problems]


def test_reads_everything() -> None:
    found = Settings.from_config(
        server(
            start=_Server.LATEST, end_at_start=True, client=_Server.CONFLUENT, max_wait_ms=250, skip_lost=True,
            dead_letter_topic="bad", workers=4, worker=3, config_topic=["fetch.message.max.bytes=1000"],
        )
    )  # fmt: skip
    assert found == Settings(
        "kafka_train_input", ("a:9092", "b:9093"), "clicks", "g", _Server.CONFLUENT,
        {"fetch.message.max.bytes": "1000"}, Where("latest"), Where("latest"), 0.25, True, "bad", 4, 3,
    )  # fmt: skip
    assert [found.reads(partition) for partition in range(8)] == [False, False, False, True] * 2
    assert Settings.from_config(server()).end is None
    assert Settings.from_config(server(end_at_start=False)).end is None


def test_all_problems_at_once() -> None:
    found = problems(
        server="here", topic="", group=" ", workers=0, dead_letter_topic="a b", offset_info="[1]",
        end_offset_info='{"0": true}',
    )  # fmt: skip
    assert found == [
        "kafka_train_input.server: found 'here', expected host:port, several separated by commas",
        "kafka_train_input.topic: found nothing, expected the name of the topic",
        "kafka_train_input.group: found nothing, expected the name of the group",
        "kafka_train_input.dead_letter_topic: found 'a b', expected letters, digits, dots, dashes, underscores",
        "kafka_train_input.workers: found 0, expected at least 1",
        """kafka_train_input.offset_info: found '[1]', expected offsets by partition: {"0": 5, "1": 10}""",
        """kafka_train_input.end_offset_info: found '{"0": true}', expected offsets by partition: {"0": 5, "1": 10}""",
    ]
    assert "below workers = 2" in problems(workers=2, worker=2)[0]
    assert "another topic" in problems(dead_letter_topic="clicks")[0]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai"])
def test_times_are_local_or_seconds(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        local = Settings.from_config(server(offset_time="20261122 08:30:00")).start
        hours = {"UTC": 0, "Asia/Shanghai": 8}[zone]
        assert local == Where("time", (1_795_336_200 - 3600 * hours) * 1000)
    finally:
        monkeypatch.undo()
        time.tzset()
    for text, milliseconds in (("1795336200", 1_795_336_200_000), ("1.5", 1500), ("1795336200123", 1_795_336_200_123)):
        assert Settings.from_config(server(end_offset_time=text)).end == Where("time", milliseconds)
    assert "a time: `20261122 08:30:00` (local), or seconds since 1970" in problems(offset_time="yesterday")[0]


def test_offsets() -> None:
    found = Settings.from_config(server(offset_info='{"0": 5, "1": 10}', end_offset_info='{"0": 9}'))
    assert (found.start.offsets, found.end.offsets) == ({0: 5, 1: 10}, {0: 9})  # type: ignore[union-attr]


def test_keys_of_librdkafka_become_arguments_of_kafka_python(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hidden\n")
    (tmp_path / "ca.pem").touch()
    settings = Settings.from_config(
        server(
            config_global=[
                "security.protocol=sasl_ssl",
                f"ssl.ca.location={tmp_path / 'ca.pem'}",
                "ssl.endpoint.identification.algorithm=none",
                f"ssl.key.password=file:{tmp_path / 'key'}",
                "fetch.wait.max.ms=100",
                "check.crcs=false",
            ]
        )
    )
    assert kafka_python_options(settings.options) == {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(tmp_path / "ca.pem"),
        "ssl_check_hostname": False,
        "ssl_password": "hidden",
        "fetch_max_wait_ms": 100,
        "check_crcs": False,
    }
    assert "hidden" not in repr(settings)


def test_wrong_keys_and_values() -> None:
    found = problems(
        config_global=[
            "fetch.wait.max.millis=3",
            "no equals sign",
            "group.id=x",
            "fetch.min.bytes=many",
            "check.crcs=perhaps",
            "sasl.password=literal",
            "client.id=a",
            "ssl.key.location=nowhere.pem",
        ],
        config_topic=["auto.offset.reset=earliest", "client.id=b", "statistics.interval.ms=5"],
    )
    assert found == [
        "kafka_train_input.config_global[0]: found 'fetch.wait.max.millis', expected a key that kafka-python knows "
        "(did you mean 'fetch.wait.max.ms'? librdkafka's other keys take `client: CONFLUENT`)",
        "kafka_train_input.config_global[1]: found a setting without `=`, expected key=value",
        "kafka_train_input.config_global[2]: found 'group.id', expected no setting that is made elsewhere: "
        "use the field `group`",
        "kafka_train_input.config_global[3]: found fetch.min.bytes=many, expected a whole number",
        "kafka_train_input.config_global[4]: found check.crcs=perhaps, expected true or false",
        "kafka_train_input.config_global[5]: found a literal secret, expected env:NAME or file:PATH",
        "kafka_train_input.config_global[7]: found ssl.key.location=nowhere.pem, which can't be read, "
        "expected the path of a file",
        "kafka_train_input.config_topic[0]: found 'auto.offset.reset', expected no setting that is made elsewhere: "
        "use the field `start`, and `skip_lost` for messages that are gone",
        "kafka_train_input.config_topic[1]: found 'client.id' a second time, expected each key once",
        "kafka_train_input.config_topic[2]: found 'statistics.interval.ms', expected a key that kafka-python knows "
        "(librdkafka's other keys take `client: CONFLUENT`)",
    ]


def test_confluent_checks_its_own_keys() -> None:
    pytest.importorskip("confluent_kafka")
    options = {"client": _Server.CONFLUENT, "config_global": ["statistics.interval.ms=0", "no.such.key=1"]}
    settings = Settings.from_config(server(**options))
    with pytest.raises(ConfigError, match="No such configuration property"):
        Confluent().connect(settings, 30.0)


def test_confluent_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "confluent_kafka", None)
    with pytest.raises(ConfigError, match=r"pip install easyrec_lite\[confluent\]"):
        Confluent()


def test_open_kafka_checks_the_event_time_and_asks_no_broker() -> None:
    config = data_pb2.DatasetConfig(event_time_field="time")
    config.input_fields.add(input_name="time", input_type="STRING")
    config.input_fields.add(input_name="id", input_type="INT64")
    decoder = build_decoder(config, _Server.CSV, None, [])
    with pytest.raises(ConfigError) as caught:
        open_kafka(server(topic=""), config, decoder, batch_size=4)
    assert [problem.path for problem in caught.value.problems] == [
        "kafka_train_input.topic",
        "data_config.event_time_field",
    ]
    config.event_time_field = "id"
    source = open_kafka(server(), config, decoder, batch_size=4)
    assert isinstance(source, KafkaSource)
    assert list(source.columns) == ["time", "id"]
    assert source.lag() == {}
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        open_kafka(server(), config, decoder, batch_size=0)
