"""A topic in memory that behaves as Kafka does, and a decoder of lines, for the tests of streams."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from easyrec_lite.inputs import BadRows, RawBatch
from easyrec_lite.inputs.errors import InputError
from easyrec_lite.inputs.kafka.client import Client, Fetched, Library, OutOfRangeError, Producer, Topic
from easyrec_lite.inputs.kafka.ledger import Ledger
from easyrec_lite.inputs.kafka.settings import Settings
from easyrec_lite.inputs.kafka.source import KafkaSource
from easyrec_lite.inputs.messages import BadMessageRow, Decoded
from easyrec_lite.inputs.schema import ColumnSpec
from easyrec_lite.protos import data_pb2

_Type = data_pb2.DatasetConfig


class LineDecoder:
    """Reads messages of lines, each a whole number; a line that isn't one is a bad row, no value a bad message."""

    def __init__(self) -> None:
        self.specs = {
            "id": ColumnSpec("id", _Type.INT64, -1),
            "word": ColumnSpec("word", _Type.STRING, "none"),
            "list": ColumnSpec("list", _Type.FLOAT, 0.0, ragged=True),
        }

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        ids, messages, rows, counts, bad = [], [], [], [], []
        for message, value in enumerate(values):
            if value is None:
                bad.append(BadMessageRow(message, None, "no value", None, None, None))
                counts.append(1)
                continue
            lines = value.split(b"\n") if value else []
            counts.append(len(lines))
            for row, line in enumerate(lines):
                try:
                    ids.append(int(line))
                    messages.append(message)
                    rows.append(row)
                except ValueError:
                    text = line.decode()
                    bad.append(BadMessageRow(message, row, "is not a whole number", "id", text, {"id": text}))
        table = pa.RecordBatch.from_arrays(
            [
                pa.array(ids, pa.int64()),
                pa.array([f"w{id_}" if id_ % 3 else None for id_ in ids], pa.string()),
                pa.array([[id_ / 2] * (id_ % 3) for id_ in ids], pa.list_(pa.float32())),
            ],
            names=list(self.specs),
        )
        return Decoded(table, np.array(messages, np.int64), np.array(rows, np.int64), np.array(counts, np.int64), bad)


class Log:
    """One topic: its messages by partition and offset, and what was done to it."""

    def __init__(self, partitions: int = 2) -> None:
        self.name, self.id, self.cluster = "clicks", "id-1", "cluster-1"
        self.messages: dict[int, list[tuple[int, int, bytes | None]]] = {p: [] for p in range(partitions)}
        self.first = dict.fromkeys(range(partitions), 0)
        self.end = dict.fromkeys(range(partitions), 0)
        self.away = False
        self.cut = False  # it lost messages that were read
        self.starting = 0  # so often it is described as not there
        self.changed = threading.Condition()
        self.committed: dict[int, int] = {}
        self.letters: list[tuple[str, bytes | None, dict[str, str]]] = []

    def send(self, partition: int, value: bytes | None, time: int = 0, gap: int = 0) -> None:
        """Appends a message behind a gap of so many offsets."""
        with self.changed:
            offset = self.end[partition] + gap
            self.messages[partition].append((offset, time, value))
            self.end[partition] = offset + 1
            self.changed.notify_all()

    def change(self, **state: Any) -> None:
        """Sets attributes, and wakes those who wait."""
        with self.changed:
            for name, value in state.items():
                setattr(self, name, value)
            self.changed.notify_all()

    def delete(self, partition: int, before: int) -> None:
        """Retention: what is before an offset goes."""
        with self.changed:
            self.first[partition] = before
            self.messages[partition] = [one for one in self.messages[partition] if one[0] >= before]

    def grow(self) -> None:
        """Adds a partition."""
        with self.changed:
            self.messages[len(self.messages)] = []
            self.first[len(self.first)] = self.end[len(self.end)] = 0
            self.changed.notify_all()

    def rows(self) -> list[int]:
        """All sound rows, in order of their numbers."""
        values = [value for messages in self.messages.values() for _, _, value in messages if value]
        return sorted(int(line) for value in values for line in value.split(b"\n") if line.isdigit())


class MemoryLibrary(Library):
    """Reads a `Log`; `amounts` says how many messages each poll gives at most, and `turns` which partition is first."""

    def __init__(self, log: Log, amounts: Iterable[int] = (3,), turns: Iterable[int] = (0, 1)) -> None:
        self.log = log
        self.amounts, self.turns = itertools.cycle(amounts), itertools.cycle(turns)

    def connect(self, settings: Settings, refresh: float) -> Client:
        return _Client(self)

    def commit(self, settings: Settings, offsets: Mapping[int, int], timeout: float) -> None:
        if self.log.away:
            raise TimeoutError("away")
        self.log.committed |= offsets

    def producer(self, settings: Settings) -> Producer:
        return _Producer(self.log)


class _Client(Client):
    def __init__(self, library: MemoryLibrary) -> None:
        self._library, self._log = library, library.log
        self._next: dict[int, int] = {}
        self._paused: set[int] = set()

    def describe(self, timeout: float | None = None) -> Topic | None:
        if self._log.starting:
            self._log.starting -= 1
            return Topic(self._log.cluster, "", frozenset())
        return Topic(self._log.cluster, self._log.id, frozenset(self._log.messages) if self._log.id else frozenset())

    def assign(self, positions: Mapping[int, int]) -> None:
        self._next = dict(positions)

    def pause(self, partitions: Collection[int]) -> None:
        self._paused = set(partitions)

    def poll(self, timeout: float) -> list[Fetched]:
        if self._log.cut:
            raise InputError("the topic", "a log that lost messages we had read", "the log as it was")
        with self._log.changed:
            if not (fetched := self._take()):
                self._log.changed.wait(timeout)
                fetched = self._take()
        return fetched

    def _take(self) -> list[Fetched]:
        if self._log.away:
            return []
        turn, left, fetched = next(self._library.turns), next(self._library.amounts), []
        numbers = sorted(set(self._next) - self._paused)
        for number in numbers[turn % max(1, len(numbers)) :] + numbers[: turn % max(1, len(numbers))]:
            position = self._next[number]
            if position < self._log.first[number] or position > self._log.end[number]:
                if fetched:
                    break
                raise OutOfRangeError(number)
            here = [one for one in self._log.messages[number] if one[0] >= position][:left]
            left -= len(here)
            following = here[-1][0] + 1 if here else self._log.end[number] if left else position
            if following > position:
                offsets, times, values = zip(*here, strict=True) if here else ((), (), ())
                fetched.append(Fetched(number, offsets, times, values, following))
                self._next[number] = following
        return fetched

    def beginnings(self, partitions: Collection[int], timeout: float) -> dict[int, int]:
        return {number: self._log.first[number] for number in partitions}

    def ends(self, partitions: Collection[int], timeout: float) -> dict[int, int]:
        return {number: self._log.end[number] for number in partitions}

    def offsets_at(self, time_ms: int, partitions: Collection[int], timeout: float) -> dict[int, int | None]:
        return {
            number: next((offset for offset, time, _ in self._log.messages[number] if time >= time_ms), None)
            for number in partitions
        }

    def high_watermarks(self) -> dict[int, int]:
        return {number: self._log.end[number] for number in self._next}

    @property
    def connected(self) -> bool:
        return not self._log.away

    def close(self) -> None:
        pass


class _Producer(Producer):
    def __init__(self, log: Log) -> None:
        self._log = log

    def send(self, topic: str, key: bytes, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> None:
        self._log.letters.append((topic, value, {name: text.decode() for name, text in headers}))

    def close(self, timeout: float) -> None:
        pass


def make_settings(**options: Any) -> Settings:
    return Settings("kafka_train_input", ("here:9092",), "clicks", "group", **{"max_wait": 0.0} | options)


def make_source(
    library: Library,
    settings: Settings | None = None,
    *,
    batch_size: int = 4,
    ledger: Ledger | None = None,
    bad_rows: BadRows | None = None,
    **options: Any,
) -> KafkaSource:
    return KafkaSource(
        settings if settings is not None else make_settings(),
        LineDecoder(),  # type: ignore[arg-type]
        batch_size=batch_size,
        library=library,
        ledger=ledger,
        bad_rows=bad_rows if bad_rows is not None else BadRows(max_share=1.0),
        **options,
    )


def ids(batch: RawBatch) -> list[int]:
    return list(batch.columns["id"].tolist())


def show(batch: RawBatch) -> tuple[Any, ...]:
    """All of a batch, comparable."""
    column = batch.columns["list"]
    lists = (column.values.tolist(), column.row_splits.tolist())  # type: ignore[union-attr]
    texts = batch.columns["word"].tolist()  # type: ignore[union-attr]
    return ids(batch), texts, lists, batch.position.to_json(), dict(batch.missing), repr(batch.event_time)


def full(batches: Iterable[RawBatch]) -> Iterator[RawBatch]:
    """The batches with rows."""
    return (batch for batch in batches if batch.rows)


@contextlib.contextmanager
def reading(source: KafkaSource, start: Any = None) -> Iterator[Iterator[RawBatch]]:
    """The batches of a source, which are closed in the end."""
    batches = source.read(start)
    with contextlib.closing(batches):  # type: ignore[type-var]
        yield batches


def read_rows(source: KafkaSource, rows: int, start: Any = None) -> list[RawBatch]:
    """Batches with rows until so many rows were read."""
    found, count = [], 0
    with reading(source, start) as batches:
        while count < rows:
            batch = next(batches)
            count += batch.rows
            found += [batch] if batch.rows else []
    return found
