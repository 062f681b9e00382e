"""What a decoder gives, and what all decoders share: typing, the taking out of unusable rows, the order of the rest."""

from __future__ import annotations

import abc
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from easyrec_lite.inputs.rows import RawColumn, as_text, show_row, typed
from easyrec_lite.inputs.schema import ColumnSpec, Kind

_CHUNK_BYTES = 8 << 20
_TYPES = {Kind.INT: pa.int64(), Kind.FLOAT: pa.float32(), Kind.TEXT: pa.string()}


@dataclass(frozen=True, slots=True)
class BadMessageRow:
    """A row, or a whole message, that can't be used.

    Attributes:
        message: Index of the message in `values`.
        row: Index of the row in its message; None where the message as a whole can't be read.
        reason: What is wrong, without any value of the row.
        column: The column at fault, where it is one.
        value: The cell at fault, as text; None if it is missing.
        cells: The cells of the decoder's columns, where they could be told apart.
    """

    message: int
    row: int | None
    reason: str
    column: str | None = None
    value: str | None = None
    cells: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """The rows of M messages.

    Attributes:
        rows: The R usable ones: int64, float32, string, or lists of these; null where a cell is missing.
        message: int64 `[R]`: the message of each row, as an index into `values`; ascending.
        row: int64 `[R]`: its index in that message, unusable rows counted; ascending inside a message.
        counts: int64 `[M]`: rows of each message, unusable ones included. At least 1: what can't be read counts as one.
        bad: The unusable ones, in order.
    """

    rows: pa.RecordBatch
    message: np.ndarray
    row: np.ndarray
    counts: np.ndarray
    bad: Sequence[BadMessageRow]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that a format could tell apart, cells as they came.

    Attributes:
        columns: The cells of R rows, by name; columns that are left out are missing in every row.
        message: int64 `[R]`.
        row: int64 `[R]`.
    """

    columns: Mapping[str, RawColumn]
    message: np.ndarray
    row: np.ndarray


@dataclass(slots=True)
class Cut:
    """Messages cut into rows: parts, in any order, and what couldn't be cut."""

    parts: list[Part] = field(default_factory=list)
    bad: list[BadMessageRow] = field(default_factory=list)

    def spoil(self, message: int, reason: str, row: int | None = None, column: str | None = None) -> None:
        """Notes a message, or a row of it, that can't be used."""
        self.bad.append(BadMessageRow(message, row, reason, column))


class Decoder(abc.ABC):
    """Reads the values of messages in one format.

    A message that can't be read costs itself, a row with a cell that can't be read costs that row, and neither has any
    influence on what becomes of others: rows depend on their message alone, not on which messages are decoded together.

    Args:
        specs: How each wanted column is read.
        required: The columns without which a row can't be used: those of labels, weights and event times. An empty
            text or list is missing there too.
        limits: The smallest and the largest value that a row may have in a column of single numbers.
    """

    # Messages that are read at once: enough that the cost of a call doesn't count, few enough that what must be read
    # again on account of a damaged message isn't much.
    chunk = 4096

    def __init__(
        self,
        specs: Mapping[str, ColumnSpec],
        required: Collection[str] = (),
        limits: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self.specs: Mapping[str, ColumnSpec] = dict(specs)
        self._required = [name for name in self.specs if name in required]
        self._limits = dict(limits or {})
        types = {name: _TYPES[spec.kind] for name, spec in self.specs.items()}
        self._schema = pa.schema(
            [(name, pa.list_(type_) if self.specs[name].ragged else type_) for name, type_ in types.items()]
        )

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """Reads messages; never raises on account of what they hold.

        Args:
            values: The values of M messages; None is a message without one, which can't be read.
        """
        counts, bad = np.zeros(len(values), np.int64), list[BadMessageRow]()
        batches: list[pa.RecordBatch] = []
        messages, rows = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for start, chunk in self._chunks(values):
            cut = self._cut(chunk)
            found = [part.message for part in cut.parts] + [np.array([one.message for one in cut.bad], np.int64)]
            counts[start : start + len(chunk)] = np.bincount(np.concatenate(found), minlength=len(chunk))
            worse = list(cut.bad)
            for part in cut.parts:
                batch, message, row = self._clean(part, worse)
                batches.append(batch)
                messages.append(message + start)
                rows.append(row)
            bad += [replace(one, message=one.message + start) for one in worse] if start else worse
        bad.sort(key=lambda one: (one.message, -1 if one.row is None else one.row))
        return self._in_order(batches, np.concatenate(messages), np.concatenate(rows), counts, bad)

    @abc.abstractmethod
    def _cut(self, values: Sequence[bytes | None]) -> Cut:
        """Cuts messages into rows; each message gives at least one, if only a bad one."""

    def _chunks(self, values: Sequence[bytes | None]) -> Iterator[tuple[int, Sequence[bytes | None]]]:
        """Some messages at a time, with the index of the first."""
        ends = np.cumsum([len(value or b"") for value in values], dtype=np.int64)
        start = 0
        while start < len(values):
            limit = (ends[start - 1] if start else 0) + _CHUNK_BYTES
            stop = max(start + 1, min(start + self.chunk, int(np.searchsorted(ends, limit, side="right"))))
            yield start, values[start:stop]
            start = stop

    def _clean(self, part: Part, bad: list[BadMessageRow]) -> tuple[pa.RecordBatch, np.ndarray, np.ndarray]:
        """The usable rows of a part, typed, with their messages and rows; the others are added to `bad`."""
        columns = {name: self._column(part, name) for name in self.specs}
        batch, reasons = typed(columns, self.specs, self._required)
        for name, (low, high) in self._limits.items():
            for row in np.flatnonzero(_outside(batch.column(name), low, high)).tolist():
                reasons.setdefault(row, (name, f"is outside of {low:g} .. {high:g}"))
        if not reasons:
            return batch, part.message, part.row
        for row, (name, reason) in reasons.items():
            cells = show_row(columns, row)
            value = None if cells[name] is None else as_text(cells[name])
            bad.append(BadMessageRow(int(part.message[row]), int(part.row[row]), reason, name, value, cells))
        usable = np.ones(len(batch), bool)
        usable[list(reasons)] = False
        return batch.filter(pa.array(usable)), part.message[usable], part.row[usable]

    def _column(self, part: Part, name: str) -> RawColumn:
        column = part.columns.get(name)
        if column is None or (isinstance(column, pa.Array) and pa.types.is_null(column.type)):
            return pa.nulls(len(part.message), self._schema.field(name).type)
        return column

    def _in_order(
        self,
        batches: Sequence[pa.RecordBatch],
        message: np.ndarray,
        row: np.ndarray,
        counts: np.ndarray,
        bad: Sequence[BadMessageRow],
    ) -> Decoded:
        if len(batches) == 1:
            rows = batches[0]
        else:
            columns = pa.Table.from_batches(batches, self._schema).combine_chunks().columns
            arrays = [column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in columns]
            rows = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        steps = np.diff(message)
        if np.any(steps < 0) or np.any((steps == 0) & (np.diff(row) < 0)):
            order = np.lexsort((row, message))
            rows, message, row = rows.take(pa.array(order)), message[order], row[order]
        return Decoded(rows, message, row, counts, bad)


def _outside(column: pa.Array, low: float, high: float) -> np.ndarray:
    outside = pc.or_(pc.less(column, low), pc.greater(column, high))
    return pc.fill_null(outside, False).to_numpy(zero_copy_only=False)
