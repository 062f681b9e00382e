"""Decoded messages, and rows taken from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from easyrec_lite.inputs.bad_rows import BadRow
from easyrec_lite.inputs.kafka.client import Fetched
from easyrec_lite.inputs.kafka.position import Place

if TYPE_CHECKING:
    from easyrec_lite.inputs.messages import BadMessageRow, Decoder

_TEXT_LENGTH = 1000


class Bad(NamedTuple):
    """A row that can't be used, with the message that it was in."""

    row: BadRow
    partition: int
    offset: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive rows, taken from a stretch.

    Attributes:
        rows: The usable ones.
        count: All of them.
        bad: The others.
        time: The newest message time of the usable ones, in seconds since 1970; NaN for none.
        moved: The next place of each partition that this piece moved.
    """

    rows: pa.RecordBatch
    count: int
    bad: Sequence[Bad]
    time: float
    moved: Mapping[int, Place]


@dataclass(slots=True)
class Stretch:
    """M messages in the order in which their rows are used, taken from the front.

    Rows are numbered through over all messages, the unusable ones included; each message has a range of numbers.

    Attributes:
        partitions: The partition of each message, int64 [M].
        offsets: Its offset.
        times: Its time in milliseconds since 1970; -1 for none.
        bounds: The number of its first row, and at last the number of all rows; int64 [M + 1].
        first: The index in its message of that first row: above 0 only where the message's start was taken before.
        rows: The usable rows.
        numbers: Their numbers, ascending.
        bad: The others.
        bad_numbers: Their numbers, ascending.
        next: The offset to read after the last message of a partition, where it is known; it covers gaps.
        size: Bytes of the values.
        arrived: When it was read, by the clock of the reader.
        taken: The number of the next row to take.
    """

    partitions: np.ndarray
    offsets: np.ndarray
    times: np.ndarray
    bounds: np.ndarray
    first: np.ndarray
    rows: pa.RecordBatch
    numbers: np.ndarray
    bad: Sequence[Bad]
    bad_numbers: np.ndarray
    next: Mapping[int, int]
    size: int = 0
    arrived: float = math.inf
    taken: int = 0
    _messages: int = field(default=0, repr=False)  # those taken whole

    @property
    def usable(self) -> int:
        """Usable rows that are left."""
        return len(self.numbers) - int(np.searchsorted(self.numbers, self.taken))

    @property
    def left(self) -> int:
        """All rows that are left."""
        return int(self.bounds[-1]) - self.taken

    def after(self, usable: int) -> int:
        """The number behind the next so many usable rows; behind everything if there are fewer.

        What else follows is left, even where a batch ends with it: so batches don't depend on where stretches end.
        """
        last = int(np.searchsorted(self.numbers, self.taken)) + usable - 1
        return int(self.numbers[last]) + 1 if last < len(self.numbers) else int(self.bounds[-1])

    def at(self, place: Place) -> int:
        """The number of the row at a place, for the messages of one partition."""
        message = int(np.searchsorted(self.offsets, place.offset))
        if message < len(self.offsets) and self.offsets[message] == place.offset:
            inside = max(0, place.row - int(self.first[message]))
            return min(int(self.bounds[message]) + inside, int(self.bounds[message + 1]))
        return int(self.bounds[message])

    def take(self, end: int) -> Piece:
        """Takes the rows below number `end`."""
        low, high = np.searchsorted(self.numbers, (self.taken, end))
        bad_low, bad_high = np.searchsorted(self.bad_numbers, (self.taken, end))
        # The messages that are done with: up to the first one that ends at `end`, or lies around it.
        whole = int(np.searchsorted(self.bounds[1:], end))
        whole += whole < len(self.offsets) and int(self.bounds[whole + 1]) == end
        moved = self._finish(whole)
        if end == self.bounds[-1]:
            moved |= {partition: Place(offset) for partition, offset in self.next.items()}
        elif end > self.bounds[whole]:
            row = end - int(self.bounds[whole]) + int(self.first[whole])
            moved[int(self.partitions[whole])] = Place(int(self.offsets[whole]), row)
        piece = Piece(
            self.rows.slice(low, high - low),
            end - self.taken,
            self.bad[bad_low:bad_high],
            self._newest(self.numbers[low:high]),
            moved,
        )
        self.taken = end
        return piece

    def take_empty(self) -> Mapping[int, Place]:
        """Takes the messages without rows that are left when all rows are taken; the next places."""
        return self._finish(len(self.offsets))

    def message_of(self, numbers: np.ndarray) -> np.ndarray:
        """The message of each numbered row."""
        return np.searchsorted(self.bounds, numbers, side="right") - 1

    def _finish(self, whole: int) -> dict[int, Place]:
        """The places behind the messages up to number `whole`, those of before left out."""
        done = slice(self._messages, whole)
        self._messages = whole
        partitions, last = np.unique(self.partitions[done][::-1], return_index=True)
        nexts = self.offsets[done][::-1][last] + 1
        return {number: Place(offset) for number, offset in zip(partitions.tolist(), nexts.tolist(), strict=True)}

    def _newest(self, numbers: np.ndarray) -> float:
        if not len(numbers):
            return math.nan
        newest = int(self.times[self.message_of(numbers)].max())
        return newest / 1000 if newest >= 0 else math.nan


def decode(fetched: Sequence[Fetched], decoder: Decoder, topic: str, arrived: float) -> list[Stretch]:
    """Decodes what was fetched, all of it at once, into a stretch for each piece of a partition."""
    values = [value for one in fetched for value in one.values]
    decoded = decoder.decode(values)
    bad_messages = np.array([bad.message for bad in decoded.bad], np.int64)
    stretches, begin = [], 0
    for one in fetched:
        end = begin + len(one.values)
        bounds = np.concatenate([[0], np.cumsum(decoded.counts[begin:end])]).astype(np.int64)
        low, high = np.searchsorted(decoded.message, (begin, end))
        bad_low, bad_high = np.searchsorted(bad_messages, (begin, end))
        bad = decoded.bad[bad_low:bad_high]
        offsets = np.asarray(one.offsets, np.int64)
        stretches.append(
            Stretch(
                np.full(len(offsets), one.partition, np.int64),
                offsets,
                np.asarray(one.timestamps, np.int64),
                bounds,
                np.zeros(len(offsets), np.int64),
                decoded.rows.slice(low, high - low),
                bounds[decoded.message[low:high] - begin] + decoded.row[low:high],
                [_bad(row, one, begin, topic, several=decoded.counts[row.message] > 1) for row in bad],
                np.array([bounds[row.message - begin] + (row.row or 0) for row in bad], np.int64),
                {one.partition: one.next},
                sum(len(value) for value in one.values if value is not None),
                arrived,
            )
        )
        begin = end
    return stretches


def _bad(row: BadMessageRow, fetched: Fetched, begin: int, topic: str, *, several: bool) -> Bad:
    index = row.message - begin
    value, offset = fetched.values[index], fetched.offsets[index]
    text = None
    if value is not None and not several:
        text = value[:_TEXT_LENGTH].decode("utf-8", "backslashreplace")
    place = f"{topic}/{fetched.partition}"
    record = BadRow(place, offset, row.reason, row.column, row.value, row.cells, text, row=row.row if several else None)
    return Bad(record, fetched.partition, offset, value)
