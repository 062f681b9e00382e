"""Rows of files as batches: epochs, seeded windowed shuffling, exact positions."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from easyrec_lite.inputs.bad_rows import MASK, BadRow, BadRows
from easyrec_lite.inputs.batch import HasJson, RawBatch, join, to_batch
from easyrec_lite.inputs.errors import InputError
from easyrec_lite.inputs.position import Cursor, Position
from easyrec_lite.inputs.rows import Rows, clean
from easyrec_lite.inputs.schema import ColumnSpec
from easyrec_lite.inputs.source import Source

T = TypeVar("T")
_FILE_STREAM, _WINDOW_STREAM = 0, 1  # keep the two uses of the seed apart


@dataclass(frozen=True, slots=True)
class _Window:
    """Consecutive rows, shuffled if so wished; `start` has index 0, `end` is the start of the next window."""

    rows: pa.RecordBatch
    start: Position
    end: Position


@dataclass(frozen=True, slots=True)
class Peek:
    """The first rows of a source.

    Attributes:
        rows: Usable rows, None where a cell is missing; values of private columns are masked.
        bad: One line for each unusable row met on the way.
    """

    rows: list[dict[str, Any]]
    bad: list[str]


class WindowedSource(Source):
    """Reads rows as batches.

    The files' order in an epoch is a function of (seed, epoch). The rows in that order are cut into windows of
    `window` usable rows, and a window's permutation is a function of (seed, epoch, window number). So the order of all
    rows follows from the seed and the data, and the position of a row is its window's place in the files plus an
    index: to resume, one window is read again, however far into the data it lies. Batches run across the ends of
    windows, files and epochs; only the very last one may be shorter. The next window is read and shuffled in a thread
    while this one is used, so up to three windows are in memory.

    Args:
        rows: The files.
        batch_size: Rows a batch.
        window: Rows a window, also when nothing is shuffled.
        shuffle: Whether to shuffle files and rows.
        seed: The seed of the order; at least 0.
        epochs: How often to read everything; None means for ever.
        drop_remainder: Leave a last batch out that is shorter than the others.
        bad_rows: Where unusable rows are counted and kept.
        required: Columns without which a row can't be used.
        keep: Columns to hand on as they are read; among those of `rows`.
        columns: Those of `rows` that batches have as typed columns; None means all.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        batch_size: int,
        window: int = 65536,
        shuffle: bool = False,
        seed: int = 1,
        epochs: int | None = 1,
        drop_remainder: bool = False,
        bad_rows: BadRows | None = None,
        required: Collection[str] = (),
        keep: Sequence[str] = (),
        columns: Collection[str] | None = None,
    ) -> None:
        for name, value in (
            ("batch_size", batch_size),
            ("window", window),
            ("epochs", 1 if epochs is None else epochs),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {value}")
        self._rows, self._batch_size, self._window = rows, batch_size, window
        self._seed = seed if shuffle else None
        self._epochs, self._drop_remainder, self._required = epochs, drop_remainder, frozenset(required)
        self.bad_rows = bad_rows if bad_rows is not None else BadRows()
        self._columns = {n: spec for n, spec in rows.specs.items() if columns is None or n in columns}
        self._keep, self._kept_types = tuple(keep), list[pa.DataType]()
        how = f"shuffled with seed {seed}" if shuffle else "in the order of the files"
        self._identity = replace(rows.identity, order=f"{how}, in windows of {window} rows")

    @property
    def columns(self) -> Mapping[str, ColumnSpec]:
        """What is read, by name."""
        return self._columns

    @property
    def num_rows(self) -> int | None:
        """Rows of one epoch, unusable ones included; None where that isn't known without reading them."""
        return self._rows.num_rows

    def read(self, start: HasJson | str | None = None) -> Iterator[RawBatch]:
        """Reads from a position on; see `Source.read`."""
        if start is None:
            position = Position(0, 0, 0, Cursor(), self._identity)
        else:
            position = Position.from_json(start if isinstance(start, str) else start.to_json())
            position.check(self._identity)
        self.bad_rows.rewind(position.cursor.tally)
        return self._batches(position)

    def peek(self, rows: int) -> Peek:
        """Reads the first rows in the order of the files, for people to look at; counts and writes nothing."""
        good: list[dict[str, Any]] = []
        bad: list[BadRow] = []
        private = self.bad_rows.private
        blocks = ((name, block) for file, name in enumerate(self._rows.names) for block in self._rows.blocks(file))
        for name, block in blocks:
            table, unusable = clean(block, self.columns, name, self._required)
            good += table.slice(0, rows - len(good)).to_pylist()
            bad += unusable[: rows - len(bad)]
            if len(good) >= rows:
                break
        shown = [{name: MASK if name in private else cell for name, cell in row.items()} for row in good]
        return Peek(shown, [row.describe(private) for row in bad])

    def _batches(self, start: Position) -> Iterator[RawBatch]:
        pieces: list[pa.RecordBatch] = []
        wanted, index, position = self._batch_size, start.index, start
        for window in _one_ahead(self._windows(start)):
            while index < len(window.rows):
                piece = window.rows.slice(index, wanted)
                pieces.append(piece)
                index += len(piece)
                wanted -= len(piece)
                position = window.end if index == len(window.rows) else replace(window.start, index=index)
                if not wanted:
                    yield to_batch(join(pieces), self.columns, position)
                    pieces, wanted = [], self._batch_size
            index = 0
        if pieces and not self._drop_remainder:
            yield to_batch(join(pieces), self.columns, position)

    def _windows(self, start: Position) -> Iterator[_Window]:
        cursor, number = start.cursor, start.window
        epochs = itertools.count(start.epoch) if self._epochs is None else range(start.epoch, self._epochs)
        for epoch in epochs:
            pieces: list[pa.RecordBatch] = []
            count, position = 0, Position(epoch, number, 0, cursor, self._identity)
            for table, here in self._tables(epoch, cursor, self._files(epoch)):
                used = 0
                while used < len(table):
                    if not pieces:
                        position = replace(position, cursor=replace(here, skip=here.skip + used))
                    pieces.append(table.slice(used, self._window - count))
                    used += len(pieces[-1])
                    count += len(pieces[-1])
                    if count == self._window:
                        there = replace(here, skip=here.skip + used)
                        end = replace(position, window=position.window + 1, cursor=there)
                        yield self._finish(pieces, position, end)
                        pieces, count, position = [], 0, end
            self.bad_rows.check()
            cursor, number = Cursor(tally=self.bad_rows.tally), 0
            if pieces:
                yield self._finish(pieces, position, Position(epoch + 1, 0, 0, cursor, self._identity))
            elif position.window == 0:
                raise InputError(self._rows.names[0], "no usable row in any file", "rows to read")

    def _finish(self, pieces: list[pa.RecordBatch], start: Position, end: Position) -> _Window:
        rows = join(pieces)
        if self._seed is not None:
            order = _permutation(len(rows), self._seed, start.epoch, _WINDOW_STREAM, start.window)
            rows = rows.take(pa.array(order))
        return _Window(rows, start, end)

    def _tables(self, epoch: int, start: Cursor, files: list[int]) -> Iterator[tuple[pa.RecordBatch, Cursor]]:
        """The usable rows from a cursor on, block by block, each with the cursor of its first row."""
        skip = start.skip
        for file in range(start.file, len(files)):
            offset, line = (start.offset, start.line) if file == start.file else (0, 0)
            name = self._rows.names[files[file]]
            for block in self._rows.blocks(files[file], offset, line):
                cursor = Cursor(file, block.offset, block.line, 0, self.bad_rows.tally)
                table, bad = clean(block, self.columns, name, self._required, self._keep)
                table = self._with_first_types(table, name)
                self.bad_rows.add(len(table) + len(bad), bad, keep=epoch == 0)
                skipped = min(skip, len(table))
                skip -= skipped
                yield table.slice(skipped), replace(cursor, skip=skipped)

    def _with_first_types(self, table: pa.RecordBatch, file: str) -> pa.RecordBatch:
        """The table, kept columns of the types that they have in the first file; text if it only has empty cells."""
        count = len(self._columns)
        found_types = (column.type for column in table.columns[count:])
        self._kept_types = self._kept_types or [pa.string() if pa.types.is_null(t) else t for t in found_types]
        for place, (name, type_) in enumerate(zip(self._keep, self._kept_types, strict=True), start=count):
            if (found := table.column(place).type) != type_:
                try:
                    table = table.set_column(place, name, table.column(place).cast(type_))
                except pa.ArrowException:
                    raise InputError(file, f"{found} in column {name!r}", f"{type_}, as in the first file") from None
        return table

    def _files(self, epoch: int) -> list[int]:
        count = len(self._rows.names)
        if self._seed is None:
            return list(range(count))
        return [int(file) for file in _permutation(count, self._seed, epoch, _FILE_STREAM)]


def _permutation(count: int, *seed: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed))).permutation(count)


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """Gets the next item in a thread while this one is used; closing waits for the thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="inputs") as pool:
        future = pool.submit(next, items, None)
        while (item := future.result()) is not None:
            future = pool.submit(next, items, None)
            yield item
