"""kafka-python behind `Client`."""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.structs import OffsetAndMetadata

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.inputs.errors import InputError
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
from easyrec_lite.inputs.kafka.fewer_copies import copy_less
from easyrec_lite.inputs.kafka.last_words import hear_last_words
from easyrec_lite.inputs.kafka.settings import Settings, kafka_python_options

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_CONNECT_MS = 30_000
_POLL_RECORDS = 5000
_RETRY_SECONDS = 0.2
_FETCH_BYTES, _PARTITION_BYTES = 2**24, 2**22  # each request costs milliseconds of Python; 1 MiB is the default
_ADMIN_KEYS = frozenset(KafkaAdminClient.DEFAULT_CONFIG)
_PRODUCER_KEYS = frozenset(KafkaProducer.DEFAULT_CONFIG)
_NO_ID = UUID(int=0)

copy_less()
hear_last_words()


class KafkaPython(Library):
    """kafka-python."""

    def connect(self, settings: Settings, refresh: float) -> Client:
        """See `Library`."""
        return _Client(settings, refresh)

    def commit(self, settings: Settings, offsets: Mapping[int, int], timeout: float) -> None:
        """See `Library`."""
        options = {key: value for key, value in _options(settings).items() if key in _ADMIN_KEYS}
        admin = KafkaAdminClient(**options, bootstrap_timeout_ms=int(timeout * 1000))
        try:
            places = {
                TopicPartition(settings.topic, number): OffsetAndMetadata(offset, "", -1)
                for number, offset in offsets.items()
            }
            results = _retry(lambda: admin.alter_group_offsets(settings.group, places), timeout)
        finally:
            admin.close()
        for error in results.values():
            if error is not kafka_errors.NoError:
                raise error()

    def producer(self, settings: Settings) -> Producer:
        """See `Library`."""
        return _Producer(settings)


class _Client(Client):
    def __init__(self, settings: Settings, refresh: float) -> None:
        self._settings = settings
        options: dict[str, Any] = {
            "fetch_max_bytes": _FETCH_BYTES,
            "max_partition_fetch_bytes": _PARTITION_BYTES,
            "metrics_enabled": False,
        } | _options(settings)

        def make_client(**config: Any) -> KafkaNetClient:
            # The documented way to bring one's own client is also the one to keep hold of it, and of its metadata.
            self._net = KafkaNetClient(**config)
            return self._net

        failures = _Failures()
        try:
            with failures:
                self._consumer = self._connect(options, make_client, refresh)
        except (kafka_errors.RetriableError, kafka_errors.KafkaConnectionError) as error:
            if failures.refusal is not None:
                raise refused(settings, failures.refusal) from error
            raise unreachable(settings, failures.newest or error) from error
        except kafka_errors.KafkaConfigurationError as error:
            raise ConfigError(
                [Problem(f"{settings.path}.config_global", str(error), "what kafka-python takes")]
            ) from error
        except (kafka_errors.KafkaError, OSError, ValueError) as error:
            raise refused(settings, error) from error
        self._next: dict[int, int] = {}
        self._active: set[int] = set()
        self._high: dict[int, int] = {}
        self._nothing = threading.Event()
        self._answered = threading.Event()
        self._answered.set()
        self._net.cluster.add_listener(lambda _: self._answered.set())

    @staticmethod
    def _connect(options: Mapping[str, Any], make_client: Callable[..., KafkaNetClient], refresh: float) -> Any:
        return KafkaConsumer(
            **options,
            kafka_client=make_client,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            max_poll_records=_POLL_RECORDS,
            metadata_max_age_ms=max(1, int(refresh * 1000)),
            bootstrap_timeout_ms=_CONNECT_MS,
        )

    def describe(self, timeout: float | None = None) -> Topic | None:
        cluster = self._net.cluster
        if timeout is not None:
            done = threading.Event()
            cluster.add_topic(self._settings.topic)
            answer = cluster.request_update()
            answer.add_both(lambda _: done.set())
            done.wait(timeout)
            # A topic that isn't there fails the answer, but is one.
            if not answer.is_done or isinstance(answer.exception, kafka_errors.KafkaConnectionError):
                return None
        if not cluster.cluster_id:
            return None
        partitions = cluster.partitions_for_topic(self._settings.topic)
        id_ = cluster.topic_id(self._settings.topic)
        known = base64.urlsafe_b64encode(id_.bytes).decode()[:22] if id_ not in (None, _NO_ID) else ""
        return Topic(cluster.cluster_id, known, frozenset(partitions or ()))

    def assign(self, positions: Mapping[int, int]) -> None:
        for number in [number for number in self._active if positions.get(number) != self._next[number]]:
            self._active.remove(number)
        self._next = dict(positions)
        self._activate(set(positions))

    def pause(self, partitions: Collection[int]) -> None:
        # Not by the consumer's own `pause`: of several partitions that were paused with messages at hand, it may go on
        # with one only when another has been fetched, and that may never be (kafka-python 3.0.12).
        self._activate(set(self._next).difference(partitions))

    def _activate(self, partitions: set[int]) -> None:
        if partitions != self._active:
            self._consumer.assign([self._at(number) for number in partitions])
            for number in partitions - self._active:
                self._consumer.seek(self._at(number), self._next[number])
            self._active = partitions

    def poll(self, timeout: float) -> list[Fetched]:
        if not self._active:
            self._nothing.wait(timeout)
            return []
        try:
            polled = self._consumer.poll(timeout_ms=int(timeout * 1000))
        except kafka_errors.OffsetOutOfRangeError as error:
            raise OutOfRangeError(next(iter(error.args[0])).partition) from error
        except kafka_errors.LogTruncationError as error:
            raise InputError(
                f"topic {self._settings.topic!r} at {self._settings.bootstrap}",
                f"a log that lost messages we had read ({error})",
                "the log as it was",
                "a broker took over that lacked them; start with a new model_dir, or from the offsets that you want",
            ) from error
        except kafka_errors.UnsupportedCodecError as error:
            raise InputError(
                f"topic {self._settings.topic!r}",
                f"compressed messages ({error})",
                "a codec that is installed",
                "install python-snappy, lz4 or zstandard, or take `client: CONFLUENT`",
            ) from error
        except kafka_errors.RetriableError as error:
            _LOG.debug("poll: %s", error)
            return []
        except kafka_errors.KafkaError as error:
            raise refused(self._settings, error) from error
        fetched = []
        for at, records in polled.items():
            offsets = [record.offset for record in records]
            timestamps = [record.timestamp for record in records]
            values = [record.value for record in records]
            fetched.append(Fetched(at.partition, offsets, timestamps, values, self._position(at, offsets[-1] + 1)))
        if not polled:
            for number in self._active:
                known = self._next[number]
                if (offset := self._position(self._at(number), known)) > known:
                    fetched.append(Fetched(number, (), (), (), offset))
        self._next |= {one.partition: one.next for one in fetched}
        return fetched

    def beginnings(self, partitions: Collection[int], timeout: float) -> dict[int, int]:
        return self._ask(self._consumer.beginning_offsets, [self._at(number) for number in partitions], timeout)

    def ends(self, partitions: Collection[int], timeout: float) -> dict[int, int]:
        return self._ask(self._consumer.end_offsets, [self._at(number) for number in partitions], timeout)

    def offsets_at(self, time_ms: int, partitions: Collection[int], timeout: float) -> dict[int, int | None]:
        times = {self._at(number): time_ms for number in partitions}
        found = self._ask(self._consumer.offsets_for_times, times, timeout)
        return {number: None if one is None else one.offset for number, one in found.items()}

    def high_watermarks(self) -> dict[int, int]:
        known = {number: self._consumer.highwater(self._at(number)) for number in self._active}
        self._high |= {number: offset for number, offset in known.items() if offset is not None}
        return dict(self._high)

    @property
    def connected(self) -> bool:
        # A connection counts once the broker has said something over it: one that is just being tried looks the same.
        if not any(self._net.connected(broker.node_id) for broker in self._net.cluster.brokers()):
            self._answered.clear()
        elif not self._answered.is_set():
            self._net.cluster.request_update()
        return self._answered.is_set()

    def close(self) -> None:
        self._consumer.close(timeout_ms=1000)

    def _at(self, partition: int) -> TopicPartition:
        return TopicPartition(self._settings.topic, partition)

    def _position(self, at: TopicPartition, known: int) -> int:
        position = self._consumer.position(at, timeout_ms=0)
        return known if position is None else max(known, position)

    def _ask(self, question: Any, of: Any, timeout: float) -> dict[int, Any]:
        if not of:
            return {}
        try:
            return {at.partition: answer for at, answer in question(of, timeout_ms=int(timeout * 1000)).items()}
        except kafka_errors.RetriableError as error:
            raise unreachable(self._settings, error) from error
        except kafka_errors.KafkaError as error:
            raise refused(self._settings, error) from error


class _Producer(Producer):
    def __init__(self, settings: Settings) -> None:
        options = {key: value for key, value in _options(settings).items() if key in _PRODUCER_KEYS}
        try:
            self._producer = KafkaProducer(**options, max_block_ms=1000, linger_ms=50)
        except kafka_errors.RetriableError as error:
            raise unreachable(settings, error) from error
        except (kafka_errors.KafkaError, OSError, ValueError) as error:
            raise refused(settings, error) from error

    def send(self, topic: str, key: bytes, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> None:
        try:
            self._producer.send(topic, value, key, headers=list(headers)).add_errback(self._failed, topic)
        except kafka_errors.KafkaError as error:
            self._failed(topic, error)

    def close(self, timeout: float) -> None:
        try:
            self._producer.flush(timeout)
        except kafka_errors.KafkaError as error:
            _LOG.warning("dead letters that weren't delivered: %s", error)
        self._producer.close(timeout=0)

    def _failed(self, topic: str, error: Exception) -> None:
        _LOG.warning("a dead letter for topic %r wasn't delivered: %s", topic, error)


def _retry(action: Callable[[], T], timeout: float) -> T:
    """Does something until it works, for so long: the first commit of all makes Kafka's own topic first."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return action()
        except kafka_errors.RetriableError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_RETRY_SECONDS)


class _Failures(logging.Handler):
    """Why kafka-python could not connect, while entered: it only logs that, and says in the end that it took too long.

    Attributes:
        newest: the last error, or None.
        refusal: the last one that has to do with certificates or passwords, or None.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.newest: Exception | None = None
        self.refusal: Exception | None = None
        self._logger = logging.getLogger("kafka.net")

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        for error in (one for one in arguments if isinstance(one, Exception)):
            if isinstance(error, kafka_errors.SaslAuthenticationFailedError) or "Handshake" in str(error):
                self.refusal = error
            elif not isinstance(error, kafka_errors.KafkaTimeoutError):  # that time is up says nothing of why
                self.newest = error

    def __enter__(self) -> None:
        self._before = self._logger.level, self._logger.propagate
        if not self._logger.isEnabledFor(logging.WARNING):
            self._logger.setLevel(logging.WARNING)
            self._logger.propagate = False
        self._logger.addHandler(self)

    def __exit__(self, *exception: object) -> None:
        self._logger.removeHandler(self)
        level, self._logger.propagate = self._before
        self._logger.setLevel(level)


def _options(settings: Settings) -> dict[str, Any]:
    logger = logging.getLogger("kafka")
    if logger.level == logging.NOTSET:
        # It reports every try to connect while a broker is away; we say that once.
        logger.setLevel(logging.CRITICAL)
    return {"bootstrap_servers": list(settings.servers), **kafka_python_options(settings.options)}
