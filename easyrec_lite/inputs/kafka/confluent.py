"""confluent-kafka, that is librdkafka, behind `Client`; an optional extra."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.inputs.kafka.client import (
    Client,
    Fetched,
    Library,
    OutOfRangeError,
    Producer,
    Topic,
    refused,
    unreachable,
)
from easyrec_lite.inputs.kafka.settings import Settings

_LOG = logging.getLogger(__name__)
_CONNECT_SECONDS = 30.0
_RETRY_SECONDS = 1.0
_POLL_MESSAGES = 5000


class Confluent(Library):
    """confluent-kafka; raises ConfigError where it isn't installed."""

    def __init__(self, path: str = "kafka_train_input") -> None:
        try:
            import confluent_kafka
            import confluent_kafka.admin
        except ImportError as error:
            raise ConfigError(
                [
                    Problem(
                        f"{path}.client",
                        "CONFLUENT, but confluent-kafka isn't installed",
                        "an installed client",
                        "pip install easyrec_lite[confluent], or leave `client` out",
                    )
                ]
            ) from error
        self.kafka: Any = confluent_kafka

    def connect(self, settings: Settings, refresh: float) -> Client:
        """See `Library`."""
        return _Client(self, settings, refresh)

    def commit(self, settings: Settings, offsets: Mapping[int, int], timeout: float) -> None:
        """See `Library`."""
        kafka = self.kafka
        places = [kafka.TopicPartition(settings.topic, number, offset) for number, offset in offsets.items()]
        admin = kafka.admin.AdminClient(self.options(settings, reader=False))
        group = kafka.ConsumerGroupTopicPartitions(settings.group, places)
        (answer,) = admin.alter_consumer_group_offsets([group], request_timeout=timeout).values()
        for place in answer.result(timeout).topic_partitions:
            if place.error is not None:
                raise kafka.KafkaException(place.error)

    def producer(self, settings: Settings) -> Producer:
        """See `Library`."""
        return _Producer(self.kafka.Producer({**self.options(settings, reader=False), "linger.ms": 50}))

    def options(self, settings: Settings, *, reader: bool) -> dict[str, Any]:
        """librdkafka's settings."""
        # Its own log tells of every try to connect while a broker is away; we say that once.
        options: dict[str, Any] = {"bootstrap.servers": settings.bootstrap, "log_level": 0}
        if reader:
            # A full queue that is looked at once a second, as by default, would starve the reader.
            options |= {"queued.max.messages.kbytes": 2**14, "fetch.queue.backoff.ms": 10}
        else:
            fetching = ("fetch.", "queued.", "max.partition.", "check.crcs", "client.rack")
            return options | {k: v for k, v in settings.options.items() if not k.startswith(fetching)}
        return options | dict(settings.options)


class _Client(Client):
    def __init__(self, library: Confluent, settings: Settings, refresh: float) -> None:
        self._kafka, self._settings, self._refresh = library.kafka, settings, refresh
        self._next: dict[int, int] = {}
        self._paused: frozenset[int] = frozenset()
        self._down = False
        self._failure: Any = None
        self._out_of_range: list[int] = []
        options = library.options(settings, reader=True)
        try:
            self._consumer = self._kafka.Consumer(
                {
                    **options,
                    "group.id": settings.group,
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "auto.offset.reset": "error",
                    "isolation.level": "read_committed",
                    "allow.auto.create.topics": False,
                    "topic.metadata.refresh.interval.ms": max(10, int(refresh * 1000)),
                    "error_cb": self._on_error,
                }
            )
        except self._kafka.KafkaException as error:
            raise ConfigError(
                [Problem(f"{settings.path}.config_global", error.args[0].str(), "settings that librdkafka takes")]
            ) from error
        self._admin = self._kafka.admin.AdminClient(library.options(settings, reader=False))
        self._topic: Topic | None = None
        self._asked = 0.0
        self._answers: tuple[Future[Any], Future[Any]] | None = None
        if self.describe(_CONNECT_SECONDS) is None:
            self.close()
            raise refused(settings, self._failure) if self._failure else unreachable(settings)

    def describe(self, timeout: float | None = None) -> Topic | None:
        if timeout is not None:
            deadline = time.monotonic() + timeout
            self._answers, answer = None, None
            while answer is None and time.monotonic() < deadline and not self._failure:
                if self._answers is None:
                    self._ask_for_topic(min(timeout, 10.0))
                self._admin.poll(0.02)
                self._consumer.poll(0) if not self._next else None  # serves error_cb
                answer = self._take_answer()
            return answer
        if self._answers is not None:
            self._take_answer()
        elif time.monotonic() - self._asked > (_RETRY_SECONDS if self._down else self._refresh):
            self._ask_for_topic(10.0)
        return self._topic

    def assign(self, positions: Mapping[int, int]) -> None:
        gone = [number for number in self._next if positions.get(number) != self._next[number]]
        come = [number for number in positions if positions[number] != self._next.get(number)]
        if gone:
            self._consumer.incremental_unassign([self._at(number) for number in gone])
        if come:
            self._consumer.incremental_assign([self._at(number, positions[number]) for number in come])
        self._next = dict(positions)
        self._paused = frozenset(self._paused - set(gone))

    def pause(self, partitions: Collection[int]) -> None:
        wanted = frozenset(partitions) & frozenset(self._next)
        if wanted - self._paused:
            self._consumer.pause([self._at(number) for number in wanted - self._paused])
        if self._paused - wanted:
            self._consumer.resume([self._at(number) for number in self._paused - wanted])
        self._paused = wanted

    def poll(self, timeout: float) -> list[Fetched]:
        if self._out_of_range:
            raise OutOfRangeError(self._out_of_range.pop())
        # `consume` waits for as many messages as it is told; so wait for the first, then take what is there.
        messages = self._consumer.consume(_POLL_MESSAGES, 0) or self._consumer.consume(1, timeout)
        if len(messages) == 1:
            messages += self._consumer.consume(_POLL_MESSAGES - 1, 0)
        if self._failure:
            raise refused(self._settings, self._failure)
        if not messages:
            return []
        by_partition: dict[int, list[Any]] = {}
        for message in messages:
            by_partition.setdefault(message.partition(), []).append(message)
        fetched = [self._fetched(number, ours) for number, ours in by_partition.items() if number in self._next]
        fetched = [one for one in fetched if one.next > self._next[one.partition]]  # the same end is told repeatedly
        self._next |= {one.partition: one.next for one in fetched}
        if self._out_of_range and not any(one.offsets for one in fetched):
            raise OutOfRangeError(self._out_of_range.pop())
        return fetched

    def beginnings(self, partitions: Collection[int], timeout: float) -> dict[int, int]:
        return {number: self._watermarks(number, timeout)[0] for number in partitions}

    def ends(self, partitions: Collection[int], timeout: float) -> dict[int, int]:
        return {number: self._watermarks(number, timeout)[1] for number in partitions}

    def offsets_at(self, time_ms: int, partitions: Collection[int], timeout: float) -> dict[int, int | None]:
        if not partitions:
            return {}
        try:
            found = self._consumer.offsets_for_times([self._at(number, time_ms) for number in partitions], timeout)
        except self._kafka.KafkaException as error:
            raise unreachable(self._settings, error.args[0].str()) from error
        return {place.partition: place.offset if place.offset >= 0 else None for place in found}

    def high_watermarks(self) -> dict[int, int]:
        known = {
            number: self._consumer.get_watermark_offsets(self._at(number), cached=True)[1] for number in self._next
        }
        return {number: offset for number, offset in known.items() if offset >= 0}

    @property
    def connected(self) -> bool:
        return not self._down

    def close(self) -> None:
        self._consumer.close()

    def _at(self, partition: int, offset: int = -1001) -> Any:
        return self._kafka.TopicPartition(self._settings.topic, partition, offset)

    def _fetched(self, number: int, messages: list[Any]) -> Fetched:
        known = self._next[number]
        if events := [message for message in messages if message.error() is not None]:
            known = max(known, *map(self._noted, events))
            messages = [message for message in messages if message.error() is None]
        offsets = [message.offset() for message in messages]
        return Fetched(
            number,
            offsets,
            [message.timestamp()[1] for message in messages],
            [message.value() for message in messages],
            max(known, offsets[-1] + 1) if offsets else known,
        )

    def _noted(self, message: Any) -> int:
        """What an event among the messages says: the next offset to read, where it is the end of the partition."""
        error, codes = message.error(), self._kafka.KafkaError
        if error.code() == codes._PARTITION_EOF:
            return int(message.offset())
        if error.code() == codes._AUTO_OFFSET_RESET:
            self._out_of_range.append(message.partition())
        elif error.code() in (codes.TOPIC_AUTHORIZATION_FAILED, codes._BAD_MSG, codes._BAD_COMPRESSION):
            self._failure = error.str()
        return -1

    def _on_error(self, error: Any) -> None:
        codes = self._kafka.KafkaError
        if error.code() == codes._ALL_BROKERS_DOWN:
            self._down = True
        elif error.code() in (codes._AUTHENTICATION, codes._SSL) or error.fatal():
            self._failure = error.str()

    def _ask_for_topic(self, timeout: float) -> None:
        topics = self._kafka.TopicCollection([self._settings.topic])
        self._asked = time.monotonic()
        (topic,) = self._admin.describe_topics(topics, request_timeout=timeout).values()
        self._answers = (topic, self._admin.describe_cluster(request_timeout=timeout))

    def _take_answer(self) -> Topic | None:
        if self._answers is None or not all(answer.done() for answer in self._answers):
            return None
        (topic, cluster), self._answers = self._answers, None
        unknown = self._kafka.KafkaError.UNKNOWN_TOPIC_OR_PART
        if cluster.exception() is not None:
            return None
        self._down = False
        error = topic.exception()
        if error is None:
            found = topic.result()
            id_ = str(found.topic_id).rstrip("=").replace("+", "-").replace("/", "_")
            self._topic = Topic(cluster.result().cluster_id, id_, frozenset(one.id for one in found.partitions))
        elif error.args[0].code() == unknown:
            self._topic = Topic(cluster.result().cluster_id, "", frozenset())
        else:
            return None
        return self._topic

    def _watermarks(self, partition: int, timeout: float) -> tuple[int, int]:
        try:
            found = self._consumer.get_watermark_offsets(self._at(partition), timeout)
        except self._kafka.KafkaException as error:
            raise unreachable(self._settings, error.args[0].str()) from error
        if found is None:
            raise unreachable(self._settings)
        first, end = found
        return first, end


class _Producer(Producer):
    def __init__(self, producer: Any) -> None:
        self._producer = producer

    def send(self, topic: str, key: bytes, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> None:
        try:
            self._producer.produce(topic, value, key, headers=list(headers), on_delivery=self._delivered)
        except BufferError as error:
            _LOG.warning("a dead letter for topic %r was dropped: %s", topic, error)
        self._producer.poll(0)

    def close(self, timeout: float) -> None:
        if left := self._producer.flush(timeout):
            _LOG.warning("%d dead letters weren't delivered", left)

    @staticmethod
    def _delivered(error: Any, message: Any) -> None:
        if error is not None:
            _LOG.warning("a dead letter for topic %r wasn't delivered: %s", message.topic(), error.str())
