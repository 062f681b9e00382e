"""What `check` and `train` say of Kafka inputs, without a broker."""

from __future__ import annotations

from google.protobuf import text_format

from easyrec_lite import _sources
from easyrec_lite.config import WARNING
from easyrec_lite.protos import pipeline_pb2

INPUT = 'kafka_train_input { server: "127.0.0.1:9092" topic: "clicks" group: "g" %s } data_config { %s }'


def problems(more: str = "", data: str = "") -> list[tuple[str, bool]]:
    config = text_format.Parse(INPUT % (more, data), pipeline_pb2.EasyRecConfig())
    return [(problem.path, problem.severity is WARNING) for problem in _sources.check(config)]


def test_a_sound_input() -> None:
    assert problems('start: LATEST end_offset_time: "20261122 08:30:00" config_global: "fetch.min.bytes=1"') == []


def test_all_problems_of_the_settings_at_once() -> None:
    found = problems(
        'offset_info: "{}}" end_offset_time: "yesterday" config_global: "sasl.pasword=env:X" workers: 2 worker: 2'
    )
    assert {path for path, _ in found} == {
        "kafka_train_input.offset_info",
        "kafka_train_input.end_offset_time",
        "kafka_train_input.config_global[0]",
        "kafka_train_input.worker",
    }
    assert not any(is_warning for _, is_warning in found)


def test_what_a_stream_does_not_do_is_a_warning() -> None:
    assert problems(data="shuffle: true drop_remainder: true") == [
        ("data_config.shuffle", True),
        ("data_config.drop_remainder", True),
    ]
    assert problems(data="shuffle: false") == problems() == []
