"""Fixtures of the tests marked `broker`: one Kafka broker a session, topics of their own."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # the fixtures import what they use: most sessions run without them
    from tools.kafka_broker import Cluster, KafkaBroker

MakeTopic = Callable[..., str]


def _skip_without_parts() -> None:
    from tools._kafka_jars import BROKER_VARIABLE, cache_directory

    instead = f"set {BROKER_VARIABLE}=host:port to use a broker that runs"
    if shutil.which("java") is None:
        pytest.skip(f"Apache Kafka needs Java; {instead}")
    if shutil.which("mvn") is None and not cache_directory().exists():
        pytest.skip(f"Maven is needed once, to fetch Apache Kafka; {instead}")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker that tests share: ours, or the one that EASYREC_LITE_KAFKA names."""
    from tools.kafka_broker import any_broker, existing_broker

    if existing_broker() is None:
        _skip_without_parts()
    with any_broker(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.fixture
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A running broker that the test may kill and start again."""
    from tools.kafka_broker import BROKER_VARIABLE, KafkaBroker, existing_broker

    if existing_broker() is not None:
        pytest.skip(f"{BROKER_VARIABLE} names a broker that tests must not kill")
    _skip_without_parts()
    with KafkaBroker(tmp_path_factory.mktemp("own_kafka")) as broker:
        yield broker


@pytest.fixture
def make_topic(kafka: Cluster) -> Iterator[MakeTopic]:
    """A function (partitions=1, configs=None) -> name of a new topic, which is deleted after the test."""
    made: list[str] = []

    def make(partitions: int = 1, configs: dict[str, str] | None = None) -> str:
        name = f"test-{uuid.uuid4().hex[:12]}"
        kafka.create_topic(name, partitions, configs)
        made.append(name)
        return name

    yield make
    for name in made:
        if name in kafka.topics():
            kafka.delete_topic(name)
