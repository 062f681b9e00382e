"""Topics of a Kafka cluster, whoever runs it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

from kafka import KafkaAdminClient, OffsetSpec, TopicPartition
from kafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError

from tools._kafka_jars import BrokerError

_CONNECT_MS = 10_000
_POLL_SECONDS = 0.02


class Cluster:
    """Makes, looks at and deletes topics.

    Every method opens a connection of its own, so that a broker may go away and come back in between, and raises
    `BrokerError` if the broker does not answer or refuses.

    Args:
        bootstrap: The broker to ask first, as host:port.
    """

    def __init__(self, bootstrap: str):
        self._bootstrap = bootstrap

    @property
    def bootstrap(self) -> str:
        """The address for clients, host:port."""
        return self._bootstrap

    def cluster_id(self) -> str:
        """The identity that the cluster keeps over restarts."""
        with self._admin() as admin:
            return admin.describe_cluster()["cluster_id"]

    def topics(self) -> list[str]:
        """The names of the topics, without Kafka's own."""
        with self._admin() as admin:
            return sorted(topic["name"] for topic in admin.describe_topics() if not topic["is_internal"])

    def topic_id(self, name: str) -> str:
        """The identity of a topic: one deleted and made again has another."""
        return str(self._describe(name)["topic_id"])

    def partitions(self, name: str) -> list[int]:
        """The partitions of a topic."""
        return sorted(partition["partition_index"] for partition in self._describe(name)["partitions"])

    def create_topic(self, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None) -> None:
        """Makes a topic and waits until every partition can be written to.

        Args:
            name: Its name.
            partitions: How many partitions.
            configs: Kafka's topic settings, such as `{"cleanup.policy": "compact"}`.
        """
        wanted = {name: {"num_partitions": partitions, "replication_factor": 1, "configs": dict(configs or {})}}
        with self._admin() as admin:
            try:
                admin.create_topics(wanted, wait_for_metadata=True)
            except TopicAlreadyExistsError as error:
                raise BrokerError(
                    f"{self.bootstrap}: topic {name!r} exists already. Delete it first, or take another name."
                ) from error

    def delete_topic(self, name: str) -> None:
        """Deletes a topic and waits until it is gone."""
        with self._admin() as admin:
            try:
                admin.delete_topics([name])
            except UnknownTopicOrPartitionError as error:
                raise self._unknown(name, admin.list_topics()) from error
            deadline = time.monotonic() + _CONNECT_MS / 1000
            while name in admin.list_topics():
                if time.monotonic() > deadline:
                    raise BrokerError(f"{self.bootstrap}: topic {name!r} is still there after its deletion.")
                time.sleep(_POLL_SECONDS)

    def add_partitions(self, name: str, total: int) -> None:
        """Adds partitions until there are `total`, and waits until every one can be written to."""
        with self._admin() as admin:
            admin.create_partitions({name: total})
            deadline = time.monotonic() + _CONNECT_MS / 1000
            while len(admin.describe_topics([name])[0]["partitions"]) < total:
                if time.monotonic() > deadline:
                    raise BrokerError(f"{self.bootstrap}: topic {name!r} did not grow to {total} partitions.")
                time.sleep(_POLL_SECONDS)
            admin.wait_for_topics([name])

    def offsets(self, name: str) -> dict[int, tuple[int, int]]:
        """Per partition the first offset that the broker still has, and the one that the next message will get."""
        places = [TopicPartition(name, partition) for partition in self.partitions(name)]
        with self._admin() as admin:
            first = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.EARLIEST))
            following = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST))
        return {place.partition: (first[place].offset, following[place].offset) for place in places}

    def delete_records(self, name: str, before: Mapping[int, int]) -> None:
        """Drops the messages below an offset of each given partition, as retention does in time."""
        with self._admin() as admin:
            admin.delete_records({TopicPartition(name, partition): offset for partition, offset in before.items()})

    def _describe(self, name: str) -> dict:
        with self._admin() as admin:
            # Asking for all keeps the broker from being asked to make a topic that isn't there.
            found = {topic["name"]: topic for topic in admin.describe_topics()}
        if name not in found:
            raise self._unknown(name, list(found))
        return found[name]

    def _unknown(self, name: str, topics: list[str]) -> BrokerError:
        known = ", ".join(sorted(topic for topic in topics if not topic.startswith("__"))) or "none"
        return BrokerError(f"{self.bootstrap}: no topic {name!r}. Topics there: {known}. Make it first.")

    @contextlib.contextmanager
    def _admin(self) -> Iterator[KafkaAdminClient]:
        try:
            admin = KafkaAdminClient(bootstrap_servers=self.bootstrap, bootstrap_timeout_ms=_CONNECT_MS)
        except (KafkaError, ValueError) as error:
            raise BrokerError(
                f"{self.bootstrap}: no Kafka broker answers there ({error}). Is it running, and is the address right?"
            ) from error
        try:
            yield admin
        except KafkaError as error:
            raise BrokerError(f"{self.bootstrap}: {error}") from error
        finally:
            admin.close()
