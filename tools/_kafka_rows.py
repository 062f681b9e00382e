"""Rows of Parquet files on their way into the partitions of a topic."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from kafka.partitioner.default import murmur2

from easyrec_lite.errors import UserError
from tools._kafka_formats import Format

_CHUNK_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Message:
    """One message to send.

    Attributes:
        row: The number of its last row in the data, from 0.
        rows: How many rows are in it; 0 for a damaged one.
        partition: Where it goes.
        timestamp_ms: The time of its last event since 1970; None for the time of sending.
        kind: What is wrong with it; None for a sound one.
    """

    row: int
    rows: int
    partition: int
    timestamp_ms: int | None
    key: bytes | None
    value: bytes | None
    kind: str | None = None


class Files:
    """Rows of Parquet files, in the order of the files' names.

    Args:
        pattern: A file, a folder, or a glob.

    Raises:
        UserError: No file is there, or they differ in their columns.
    """

    def __init__(self, pattern: str):
        found = Path(pattern)
        names = sorted(map(str, found.glob("*.parquet"))) if found.is_dir() else sorted(glob.glob(pattern))
        if not names:
            raise UserError(f"data: no Parquet file matches {pattern!r}. Expected a file, a folder or a glob.")
        try:
            self._files = [pq.ParquetFile(name) for name in names]
        except pa.ArrowInvalid as error:
            raise UserError(f"data: {pattern!r} holds a file that is not Parquet: {error}") from error
        self.columns: tuple[str, ...] = tuple(self._files[0].schema_arrow.names)
        for name, file in zip(names, self._files, strict=True):
            if missing := set(self.columns) ^ set(file.schema_arrow.names):
                raise UserError(f"{name}: expected the columns of {names[0]}. Different: {sorted(missing)}")
        self.rows = sum(file.metadata.num_rows for file in self._files)

    def chunks(self, columns: Sequence[str], skip: int, rows: int) -> Iterator[pa.Table]:
        """Yields these columns of `rows` rows after the first `skip`, some thousands at a time."""
        for file in self._files:
            if skip >= file.metadata.num_rows:
                skip -= file.metadata.num_rows
                continue
            for batch in file.iter_batches(_CHUNK_ROWS, columns=list(columns)):
                chunk = pa.Table.from_batches([batch]).select(columns).slice(skip, rows)
                skip = max(0, skip - len(batch))
                rows -= len(chunk)
                if len(chunk):
                    yield chunk
                if not rows:
                    return


class Spreader:
    """Gives every row a partition: by the hash of a column, at random with given weights, or in turn.

    The hash is that of Kafka's own clients, over the key's text. At random and in turn go whole messages.

    Args:
        partitions: How many partitions there are.
        rows_per_message: Rows that go to the same partition, unless by a hash.
        key: The column of the hash.
        weights: Of the partitions, in proportion; 0 keeps one silent.
        seed: Of the random choice.
    """

    def __init__(
        self, partitions: int, rows_per_message: int, key: str | None, weights: Sequence[float] | None, seed: int
    ):
        if key is not None and weights is not None:
            raise UserError("partitions are chosen by a key or by weights, not by both. Received: key and weights")
        if weights is not None and (len(weights) != partitions or min(weights) < 0 or not sum(weights)):
            raise UserError(
                f"weights: expected {partitions} numbers of at least 0, one for each partition, not all of them 0. "
                f"Received: {list(weights)}"
            )
        self._partitions = partitions
        self._rows_per_message = rows_per_message
        self._key = key
        self._shares = None if weights is None else np.cumsum(weights) / np.sum(weights)
        self._seed = seed
        self._hashes: dict[str, int] = {}

    def partitions(self, chunk: pa.Table, first_row: int) -> np.ndarray:
        """The partition [B] of each row; `first_row` is the number of the first of them."""
        if self._key is not None:
            keys = chunk[self._key].cast(pa.string()).combine_chunks().dictionary_encode()
            hashes = np.array([self._hash(key) for key in keys.dictionary.to_pylist()] or [0])
            return hashes[pc.fill_null(keys.indices, 0).to_numpy(zero_copy_only=False)] % self._partitions
        message = (first_row + np.arange(len(chunk))) // self._rows_per_message
        if self._shares is None:
            return message % self._partitions
        # A function of the message's number, whatever the chunks.
        first, last = message[0], message[-1]
        tosses = np.array([np.random.default_rng((self._seed, at)).random() for at in range(first, last + 1)])
        return np.searchsorted(self._shares, tosses, side="right")[message - first]

    def _hash(self, key: str) -> int:
        if key not in self._hashes:
            self._hashes[key] = murmur2(key.encode()) & 0x7FFFFFFF
        return self._hashes[key]


class Packer:
    """Collects the rows of each partition and cuts them into messages.

    Args:
        format: How messages are written.
        columns: The columns in them, in order.
        spreader: Where the rows go.
        key: The column whose text is the key of a message of one row.
        event_time: The column with the time of the event; None for none.
        first_row: The number of the first row.
    """

    def __init__(
        self,
        format: Format,
        columns: Sequence[str],
        spreader: Spreader,
        key: str | None,
        event_time: str | None,
        first_row: int,
    ):
        self._format = format
        self._columns = list(columns)
        self._spreader = spreader
        self._key = key if format.rows_per_message == 1 else None
        self._event_time = event_time
        self._row = first_row
        self._waiting: dict[int, list[tuple[pa.Table, np.ndarray]]] = {}

    def add(self, chunk: pa.Table) -> list[Message]:
        """Takes rows [B]; the messages that are full now, in the order of their last rows."""
        partitions = self._spreader.partitions(chunk, self._row)
        numbers = self._row + np.arange(len(chunk))
        self._row += len(chunk)
        messages = []
        for partition in np.unique(partitions).tolist():
            mine = np.flatnonzero(partitions == partition)
            self._waiting.setdefault(partition, []).append((chunk.take(mine), numbers[mine]))
            messages += self._cut(partition, only_full=True)
        return sorted(messages, key=lambda message: message.row)

    def rest(self) -> list[Message]:
        """The messages that did not get full."""
        messages = [message for partition in list(self._waiting) for message in self._cut(partition, only_full=False)]
        return sorted(messages, key=lambda message: message.row)

    def _cut(self, partition: int, *, only_full: bool) -> list[Message]:
        parts, size = self._waiting.pop(partition), self._format.rows_per_message
        rows = pa.concat_tables([table for table, _ in parts])
        numbers = np.concatenate([part for _, part in parts])
        end = len(rows) // size * size if only_full else len(rows)
        if end < len(rows):
            self._waiting[partition] = [(rows.slice(end), numbers[end:])]
        if not end:
            return []
        rows = rows.slice(0, end).combine_chunks()
        starts = np.arange(0, end, size)
        ends = np.minimum(starts + size, end)
        times = [None] * len(starts)
        if self._event_time is not None:
            times = np.maximum.reduceat(milliseconds(rows, self._event_time), starts).tolist()
        keys = [None] * len(starts)
        if self._key is not None:
            texts = rows[self._key].cast(pa.string()).to_pylist()
            keys = [None if text is None else text.encode() for text in texts]
        values = self._format.messages(rows.select(self._columns))
        return [
            Message(row, count, partition, time, key, value)
            for row, count, time, key, value in zip(
                numbers[ends - 1].tolist(), (ends - starts).tolist(), times, keys, values, strict=True
            )
        ]


def milliseconds(rows: pa.Table, column: str) -> np.ndarray:
    """Times [B] since 1970; whole numbers are seconds."""
    times = rows[column]
    if times.null_count:
        raise UserError(f"event_time_field {column!r}: {times.null_count} of {len(times)} cells are missing.")
    if pa.types.is_timestamp(times.type):
        times = times.cast(pa.timestamp("ms", times.type.tz), safe=False).cast(pa.int64())
    elif pa.types.is_integer(times.type):
        times = pc.multiply(times.cast(pa.int64()), 1000)
    else:
        raise UserError(f"event_time_field {column!r}: expected seconds since 1970 or timestamps. Found: {times.type}")
    return times.to_numpy()
