"""Sends rows of Parquet files to a Kafka topic, as the live system that they stand for would.

    python -m tools.kafka_replay --broker 127.0.0.1:9092 --topic clicks --data 'data/taobao/train/*.parquet' \
        --format json --rows_per_message 1 --rate 2000 --malformed 0.01 --manifest runs/clicks.json

Messages carry the time of the event as their timestamp and go to the partition of their key, at random with given
weights, or in turn. `--malformed` mixes in messages that can't be read, of 15 kinds (tools/_kafka_damage.py), as many
as that share of the sound ones; each stands beside the sound messages, never in place of one. The manifest says where
every one of them is, so that what a reader put aside can be compared. The same arguments send the same messages.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.producer.future import FutureRecordMetadata

from easyrec_lite.errors import UserError
from easyrec_lite.terminal import main_guard, table
from tools._kafka_damage import Damager, Mixture
from tools._kafka_formats import FORMATS, Format
from tools._kafka_jars import BROKER_VARIABLE, BrokerError
from tools._kafka_rows import Files, Message, Packer, Spreader
from tools._kafka_server import MAX_MESSAGE_BYTES
from tools._kafka_topics import Cluster
from tools.data._files import replacing

__all__ = ["Damaged", "Partition", "Replay", "replay"]

_PARTITIONS = 4
_DELIVERY_MS = 120_000
_BATCH_BYTES = 2**18
_LINGER_MS = 5


@dataclasses.dataclass(frozen=True)
class Damaged:
    """A message that can't be read; it was made from row `row`, which was also sent sound."""

    partition: int
    offset: int
    kind: str
    row: int
    bytes: int


@dataclasses.dataclass
class Partition:
    """What went to one partition.

    Attributes:
        rows: Sound rows.
        messages: Sound messages.
        damaged: Damaged messages.
        first_offset: The offset of the first message; None if none was sent.
        last_offset: The offset of the last one.
        surplus: Messages between these two beyond those: doubled when the broker crashed, or another producer's.
    """

    rows: int = 0
    messages: int = 0
    damaged: int = 0
    first_offset: int | None = None
    last_offset: int | None = None
    surplus: int = 0


@dataclasses.dataclass
class Replay:
    """What was sent.

    Attributes:
        topic: The topic.
        topic_id: Its identity.
        format: The format of the messages.
        rows_per_message: Rows in each of them, but perhaps the last of a partition.
        columns: The columns in them, in order.
        first_row: The number of the first row in the data.
        rows: Sound rows.
        messages: Sound messages.
        seconds: How long it took.
        partitions: What each partition got.
        damaged: The messages that can't be read, in the order of sending.
    """

    topic: str
    topic_id: str
    format: str
    rows_per_message: int
    columns: list[str]
    first_row: int
    rows: int = 0
    messages: int = 0
    seconds: float = 0.0
    partitions: dict[int, Partition] = dataclasses.field(default_factory=dict)
    damaged: list[Damaged] = dataclasses.field(default_factory=list)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the manifest as JSON."""
        with replacing(Path(path)) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")


def replay(
    broker: str,
    topic: str,
    data: str,
    format: str = "csv",
    *,
    rows_per_message: int = 1,
    columns: Sequence[str] | None = None,
    separator: str = ",",
    list_separator: str = "|",
    rows: int | None = None,
    skip_rows: int = 0,
    rate: float | None = None,
    partitions: int | None = None,
    key: str | None = None,
    weights: Sequence[float] | None = None,
    event_time_field: str | None = "event_time",
    malformed: float = 0.0,
    label: str = "clk",
    seed: int = 1,
) -> Replay:
    """Sends rows to a topic and waits until the broker has them all.

    A broker that crashes meanwhile and comes back loses none of them. It doubles none either if the messages' times are
    of the last days; by old ones it has forgotten whom they came from, and may keep the batch that it could not
    acknowledge twice: `Partition.surplus`.

    Args:
        broker: host:port.
        topic: Made with `partitions` partitions if it isn't there.
        data: Parquet: a file, a folder or a glob.
        format: "csv", "json", "arrow" or "tfexample"; see `tools._kafka_formats.Format`.
        rows_per_message: Rows in each message.
        columns: The columns to send, in order; None for all.
        separator: Between the cells of CSV.
        list_separator: Between the values of a list in CSV.
        rows: How many to send; None for all.
        skip_rows: Rows to leave out at the beginning.
        rate: Rows a second; None for as fast as it goes.
        partitions: How many a new topic gets (4 unless given); an existing one must have as many.
        key: Column whose hash chooses the partition, and which is the key of messages of one row.
        weights: Shares of the partitions, chosen at random; 0 keeps a partition silent. Without this and `key`
            messages go to the partitions in turn.
        event_time_field: Column with the timestamps, in seconds since 1970 or as Arrow's timestamps; the latest of a
            message counts. None for the time of sending.
        malformed: Damaged messages for each sound one.
        label: The number that damaged messages are wrong in.
        seed: Of the weights and the damage.

    Raises:
        UserError: An argument or the data is wrong, or the broker is not reached.
    """
    files = Files(data)
    columns = list(files.columns if columns is None else columns)
    needed = dict.fromkeys([*columns, *([key] if key else []), *([event_time_field] if event_time_field else [])])
    for name in needed:
        if name not in files.columns:
            raise UserError(f"{data}: no column {name!r}. Columns there: {', '.join(files.columns)}")
    if malformed and label not in columns:
        raise UserError(f"label {label!r}: damaged messages take a number among the columns: {', '.join(columns)}")
    for name, value in {"rate": rate, "rows": rows, "partitions": partitions}.items():
        if value is not None and value <= 0:
            raise UserError(f"{name}: expected more than 0. Received: {value}")
    if malformed < 0 or skip_rows < 0:
        raise UserError(f"expected at least 0. Received: malformed {malformed}, skip_rows {skip_rows}")
    writer = Format(format, rows_per_message, separator, list_separator)
    sending = max(0, min(files.rows - skip_rows, files.rows if rows is None else rows))

    cluster = Cluster(broker)
    count = _topic(cluster, topic, partitions)
    spreader = Spreader(count, rows_per_message, key, weights, seed)
    packer = Packer(writer, columns, spreader, key, event_time_field, skip_rows)
    damaged = round(malformed * -(-sending // rows_per_message))
    shares = weights or [1.0] * count
    mixture = Mixture(Damager(writer, label), columns, damaged, skip_rows, sending, shares, event_time_field, seed)
    sent = Replay(topic, cluster.topic_id(topic), format, rows_per_message, columns, skip_rows)
    sent.partitions = {partition: Partition() for partition in range(count)}
    pace = _Pace(rate, skip_rows)
    with _Sender(broker, sent) as sender:
        for chunk in files.chunks(list(needed), skip_rows, sending):
            for message in sorted([*mixture.add(chunk), *packer.add(chunk)], key=lambda message: message.row):
                pace.wait(message.row)
                sender.send(message)
            sender.bound()
        for message in packer.rest():
            sender.send(message)
    return sent


def _topic(cluster: Cluster, topic: str, partitions: int | None) -> int:
    """Makes the topic unless it is there; returns the number of its partitions."""
    if topic not in cluster.topics():
        cluster.create_topic(topic, partitions or _PARTITIONS)
    found = len(cluster.partitions(topic))
    if partitions not in (None, found):
        raise UserError(
            f"topic {topic!r}: expected {partitions} partitions. Found: {found}. Delete it, or say {found}."
        )
    return found


class _Pace:
    """Holds rows back to a rate."""

    def __init__(self, rate: float | None, first_row: int):
        self._seconds = 0.0 if rate is None else 1 / rate
        self._first_row = first_row
        self._began = time.monotonic()

    def wait(self, row: int) -> None:
        """Waits until it is this row's turn."""
        early = self._began + (row - self._first_row) * self._seconds - time.monotonic()
        if early > 0:
            time.sleep(early)


class _Sender:
    """Sends messages and notes where they went; leaving the block well means that the broker has them all."""

    def __init__(self, broker: str, sent: Replay):
        self._broker = broker
        self._sent = sent
        self._began = time.monotonic()
        self._failures: list[BaseException] = []
        self._firsts: dict[int, FutureRecordMetadata] = {}
        self._lasts: dict[int, FutureRecordMetadata] = {}
        self._damaged: list[tuple[FutureRecordMetadata, Message]] = []
        self._chunk_before: list[FutureRecordMetadata] = []
        # Idempotent, which is the default: what is sent again after a broken connection is kept once. One request at a
        # time, for the client puts several that failed back in the wrong order.
        self._producer = KafkaProducer(
            bootstrap_servers=broker,
            batch_size=_BATCH_BYTES,
            linger_ms=_LINGER_MS,
            max_in_flight_requests_per_connection=1,
            max_request_size=MAX_MESSAGE_BYTES + 2**16,
            delivery_timeout_ms=_DELIVERY_MS,
            reconnect_backoff_max_ms=1000,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        try:
            if kind is None:
                self._producer.flush()
                self._note_offsets()
        except KafkaError as error:
            raise self._undelivered(error) from error
        finally:
            with contextlib.suppress(KafkaError):  # what is left unsent after a failure
                self._producer.close(timeout=0)
        self._sent.seconds = time.monotonic() - self._began

    def send(self, message: Message) -> None:
        """Hands a message to the client, which sends it in the background."""
        partition = self._sent.partitions[message.partition]
        try:
            future = self._producer.send(
                self._sent.topic, message.value, message.key, None, message.partition, message.timestamp_ms
            )
        except KafkaError as error:
            raise self._undelivered(error) from error
        future.add_errback(self._failures.append)
        self._firsts.setdefault(message.partition, future)
        self._lasts[message.partition] = future
        if message.kind is None:
            partition.rows += message.rows
            partition.messages += 1
            self._sent.rows += message.rows
            self._sent.messages += 1
        else:
            partition.damaged += 1
            self._damaged.append((future, message))

    def bound(self) -> None:
        """Waits until what was sent up to the last call has arrived, which bounds what is in memory."""
        try:
            for future in self._chunk_before:
                future.get(_DELIVERY_MS / 1000)
        except KafkaError as error:
            raise self._undelivered(error) from error
        self._chunk_before = list(self._lasts.values())

    def _note_offsets(self) -> None:
        if self._failures:
            raise self._undelivered(self._failures[0]) from self._failures[0]
        for number, future in self._firsts.items():
            partition = self._sent.partitions[number]
            first, last = future.get().offset, self._lasts[number].get().offset
            partition.first_offset, partition.last_offset = first, last
            partition.surplus = last - first + 1 - partition.messages - partition.damaged
        for future, message in self._damaged:
            assert message.kind is not None
            length = 0 if message.value is None else len(message.value)
            self._sent.damaged.append(
                Damaged(message.partition, future.get().offset, message.kind, message.row, length)
            )

    def _undelivered(self, error: BaseException) -> BrokerError:
        return BrokerError(
            f"{self._broker}: a message for topic {self._sent.topic!r} could not be delivered ({error}). "
            f"Up to {self._sent.rows:,} rows were. Look at the broker's log, delete the topic and start again."
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.kafka_replay", description="Sends rows of Parquet files to a Kafka topic."
    )
    add = parser.add_argument
    add("--broker", default=os.environ.get(BROKER_VARIABLE), help=f"host:port (default: {BROKER_VARIABLE})")
    add("--topic", required=True, help="made if it isn't there")
    add("--data", required=True, help="Parquet: a file, a folder or a glob in quotes")
    add("--format", choices=FORMATS, default="csv", help="of the messages (default: %(default)s)")
    add("--rows_per_message", type=int, default=1, help="(default: %(default)s)")
    add("--columns", type=_names, help="columns to send, in order, with commas between (default: all)")
    add("--separator", default=",", help="between the cells of CSV (default: %(default)s)")
    add("--list_separator", default="|", help="between the values of a list in CSV (default: %(default)s)")
    add("--rows", type=int, help="how many to send (default: all)")
    add("--skip_rows", type=int, default=0, help="rows to leave out at the beginning")
    add("--rate", type=float, help="rows a second (default: as fast as it goes)")
    add("--partitions", type=int, help=f"of the topic (default: those it has; {_PARTITIONS} for a new one)")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--key", help="column whose hash chooses the partition (default: partitions in turn)")
    way.add_argument("--weights", type=_numbers, help="shares of the partitions, such as 8,4,2,0")
    add("--event_time_field", default="event_time", help="column of the timestamps, '' for none (default: %(default)s)")
    add("--malformed", type=float, default=0.0, help="damaged messages for each sound one (default: %(default)s)")
    add("--label", default="clk", help="the number that damaged messages are wrong in (default: %(default)s)")
    add("--seed", type=int, default=1, help="of weights and damage (default: %(default)s)")
    add("--manifest", help="JSON file to write: what went where, and every damaged message")
    return parser


def _names(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


@main_guard
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = vars(_parser().parse_args(arguments))
    manifest = options.pop("manifest")
    if not options["broker"]:
        raise UserError(f"--broker: expected host:port here or in {BROKER_VARIABLE}. Received: nothing")
    options["event_time_field"] = options["event_time_field"] or None
    sent = replay(**options)
    if manifest:
        sent.write(manifest)
    rows = [(number, *dataclasses.astuple(partition)) for number, partition in sent.partitions.items()]
    titles = ("partition", "rows", "messages", "damaged", "first offset", "last offset", "surplus")
    table(f"{sent.topic} {sent.topic_id}", titles, rows)
    if sent.damaged:
        counts = sorted(Counter(damaged.kind for damaged in sent.damaged).items())
        table("damaged messages", ("kind", "messages"), counts)
    rates = f"{sent.rows / sent.seconds:,.0f} rows/s, {sent.messages / sent.seconds:,.0f} messages/s"
    print(f"{sent.rows:,} rows in {sent.messages:,} messages, {sent.seconds:.1f} s: {rates}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
