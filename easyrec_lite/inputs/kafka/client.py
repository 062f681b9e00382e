"""What the reader needs of a Kafka client; kafka_python.py and confluent.py give it."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from easyrec_lite.inputs.errors import InputError
from easyrec_lite.inputs.kafka.settings import Settings


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the brokers describe it.

    Attributes:
        cluster: The identity of the cluster.
        id: The identity of the topic as Kafka's own tools write it (base64); "" for brokers before Kafka 2.8.
        partitions: Its partitions; none if there is no such topic.
    """

    cluster: str
    id: str
    partitions: frozenset[int]


@dataclass(frozen=True, slots=True)
class Fetched:
    """Consecutive messages of one partition, M of them; M may be 0 where there is only a gap.

    Attributes:
        partition: The partition.
        offsets: Their offsets, ascending.
        timestamps: Their times in milliseconds since 1970; -1 for none.
        values: Their values.
        next: The offset to read next; beyond the last message where compaction or transactions left a gap.
    """

    partition: int
    offsets: Sequence[int]
    timestamps: Sequence[int]
    values: Sequence[bytes | None]
    next: int


class OutOfRangeError(Exception):
    """The broker doesn't have the offset that is to be read next."""

    def __init__(self, partition: int) -> None:
        super().__init__(partition)
        self.partition = partition


class UnreachableError(InputError):
    """No broker answers."""


class Client(abc.ABC):
    """A connection that reads one topic, committed messages only. One thread uses it.

    No method but `close` waits longer than it is told, and a broker that is away is no error: there is just nothing to
    poll until it is back.
    """

    @abc.abstractmethod
    def describe(self, timeout: float | None = None) -> Topic | None:
        """The topic as it was when it was last looked at, which happens now and then in the background.

        Args:
            timeout: Look now, and wait this many seconds at most; None for the ones last known.

        Returns:
            None if nothing is known yet, or no answer came in time.
        """

    @abc.abstractmethod
    def assign(self, positions: Mapping[int, int]) -> None:
        """Reads these partitions from these offsets on, and no others; those that stay where they are lose nothing."""

    @abc.abstractmethod
    def pause(self, partitions: Collection[int]) -> None:
        """Reads nothing from these, and from all others that are assigned."""

    @abc.abstractmethod
    def poll(self, timeout: float) -> list[Fetched]:
        """What has come, or comes in the next `timeout` seconds; [] if nothing does.

        Raises:
            OutOfRangeError: An offset is not there; all messages before it were returned.
            InputError: The brokers refuse to serve us.
        """

    @abc.abstractmethod
    def beginnings(self, partitions: Collection[int], timeout: float) -> dict[int, int]:
        """The first offset that each partition still has. Raises UnreachableError if no answer comes."""

    @abc.abstractmethod
    def ends(self, partitions: Collection[int], timeout: float) -> dict[int, int]:
        """The offset behind the last message of each partition that may be read. Raises as `beginnings`."""

    @abc.abstractmethod
    def offsets_at(self, time_ms: int, partitions: Collection[int], timeout: float) -> dict[int, int | None]:
        """The first offset of each partition with this timestamp or a later one; None where there is none."""

    @abc.abstractmethod
    def high_watermarks(self) -> dict[int, int]:
        """The offset behind the last message of each assigned partition, as known by the last answer; no request."""

    @property
    @abc.abstractmethod
    def connected(self) -> bool:
        """Whether a broker is there, as far as is known."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends all connections and threads."""


class Producer(abc.ABC):
    """Sends messages in the background; failures are logged, no more."""

    @abc.abstractmethod
    def send(self, topic: str, key: bytes, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> None:
        """Queues a message; never waits, and drops it if the queue is full."""

    @abc.abstractmethod
    def close(self, timeout: float) -> None:
        """Sends what is queued, for so many seconds at most."""


class Library(abc.ABC):
    """A client library."""

    @abc.abstractmethod
    def connect(self, settings: Settings, refresh: float) -> Client:
        """Connects.

        Args:
            settings: The brokers and how to talk to them.
            refresh: Seconds after which the topic is looked at again.

        Raises:
            ConfigError: The library doesn't take the settings, or isn't installed.
            InputError: No broker answers.
        """

    @abc.abstractmethod
    def commit(self, settings: Settings, offsets: Mapping[int, int], timeout: float) -> None:
        """Commits offsets to the group over a connection of its own. Raises whatever goes wrong."""

    @abc.abstractmethod
    def producer(self, settings: Settings) -> Producer:
        """A producer on the same brokers."""


def refused(settings: Settings, error: object) -> InputError:
    """The error for brokers that refuse to serve us."""
    return InputError(
        f"topic {settings.topic!r} at {settings.bootstrap}",
        f"the error {error}",
        "brokers that let us read",
        f"look at {settings.path}: server, the security settings in config_global, and the rights of the user",
    )


def unreachable(settings: Settings, error: object = "no answer") -> UnreachableError:
    """The error for brokers that don't answer."""
    return UnreachableError(
        f"{settings.path}.server", f"no broker at {settings.bootstrap} ({error})", "a Kafka broker that answers",
        "look whether it is running, at the address, and at the security settings, if it wants some",
    )  # fmt: skip
