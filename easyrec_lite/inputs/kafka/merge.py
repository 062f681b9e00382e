"""Partitions merged by the time of their messages, the same way however they arrive."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from easyrec_lite.inputs.kafka.backlog import Lost
from easyrec_lite.inputs.kafka.position import Place
from easyrec_lite.inputs.kafka.stretch import Stretch


class Merge:
    """Merges partitions message by message: next is always the head with the smallest (time, partition).

    The order depends on the messages alone. It needs the head of every partition that isn't at its end yet, but not
    one message at a time: taking heads in that order is sorting by (newest time so far in the partition, partition),
    for a message that is older than one before it follows at once. So whatever sorts before the last known message of
    each partition is merged in one go.

    Args:
        places: The next place of each partition.
        ends: Where each ends.

    Attributes:
        ends: The same.
    """

    def __init__(self, places: Mapping[int, Place], ends: Mapping[int, int]) -> None:
        self._places, self.ends = places, ends
        self._read = {number: place.offset for number, place in places.items()}
        self._queues: dict[int, deque[Stretch | Lost]] = {number: deque() for number in sorted(places)}

    def add(self, item: Stretch | Lost, partition: int) -> None:
        """Appends what follows in a partition."""
        if isinstance(item, Lost):
            self._read[partition] = item.next
            self._queues[partition].append(item)
            return
        place = self._places[partition]
        if place.row and len(item.offsets) and item.offsets[0] == place.offset:
            item.take(item.at(place))
        self._read[partition] = item.next[partition]
        if len(item.offsets):
            self._queues[partition].append(item)

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return sum(item.left for queue in self._queues.values() for item in queue if isinstance(item, Stretch))

    def starving(self) -> list[int]:
        """Partitions that must be read before anything can be merged."""
        return [number for number, queue in self._queues.items() if not queue and not self._finished(number)]

    @property
    def over(self) -> bool:
        """Whether everything was read and taken."""
        return not any(self._queues.values()) and not self.starving()

    @property
    def gaps(self) -> bool:
        """Whether it didn't start at the ends."""
        return any(place.offset < self.ends[number] for number, place in self._places.items())

    def lost(self) -> list[Lost]:
        """Takes the gaps that are next in their partitions."""
        return [
            queue.popleft()  # type: ignore[misc]
            for queue in self._queues.values()
            if queue and isinstance(queue[0], Lost)
        ]

    def take(self) -> Stretch | None:
        """Takes all messages whose order is certain; None if there are none."""
        if self.starving():
            return None
        known = {
            number: list(itertools.takewhile(lambda item: isinstance(item, Stretch), queue))
            for number, queue in self._queues.items()
        }
        newest: dict[int, list[np.ndarray]] = {}
        horizon: tuple[int, int] | None = None
        for number, stretches in known.items():
            newest[number] = _newest_so_far(stretches)  # type: ignore[arg-type]
            certain = self._finished(number) and len(stretches) == len(self._queues[number])
            if not certain:
                last = (int(newest[number][-1][-1]), number) if stretches else (-(2**62), number)
                horizon = last if horizon is None else min(horizon, last)
        taken: list[Stretch] = []
        keys: list[np.ndarray] = []
        for number, queue in self._queues.items():
            for times in newest[number]:
                if horizon is None:
                    count = len(times)
                else:
                    # Up to the horizon's time; of that very time only partitions that don't come behind its own.
                    side = "right" if number <= horizon[1] else "left"
                    count = int(np.searchsorted(times, horizon[0], side=side))  # type: ignore[call-overload]
                if count == 0:
                    break
                stretch = queue.popleft()
                assert isinstance(stretch, Stretch)
                if count < len(times):
                    stretch, rest = _split(stretch, count)
                    queue.appendleft(rest)
                taken.append(stretch)
                keys.append(times[:count])
                if count < len(times):
                    break
        return _join(taken, np.concatenate(keys)) if taken else None

    def _finished(self, number: int) -> bool:
        return self._read[number] >= self.ends[number]


def _newest_so_far(stretches: Sequence[Stretch]) -> list[np.ndarray]:
    if not stretches:
        return []
    times = np.maximum.accumulate(np.concatenate([stretch.times for stretch in stretches]))
    return np.split(times, np.cumsum([len(stretch.times) for stretch in stretches])[:-1])


def _split(stretch: Stretch, messages: int) -> tuple[Stretch, Stretch]:
    """Cuts a stretch between two messages; at most rows of its first message were taken."""
    border = int(stretch.bounds[messages])
    row, bad = np.searchsorted(stretch.numbers, border), int(np.searchsorted(stretch.bad_numbers, border))
    head = replace(
        stretch,
        partitions=stretch.partitions[:messages],
        offsets=stretch.offsets[:messages],
        times=stretch.times[:messages],
        bounds=stretch.bounds[: messages + 1],
        first=stretch.first[:messages],
        rows=stretch.rows.slice(0, row),
        numbers=stretch.numbers[:row],
        bad=stretch.bad[:bad],
        bad_numbers=stretch.bad_numbers[:bad],
    )
    tail = replace(
        stretch,
        partitions=stretch.partitions[messages:],
        offsets=stretch.offsets[messages:],
        times=stretch.times[messages:],
        bounds=stretch.bounds[messages:] - border,
        first=stretch.first[messages:],
        rows=stretch.rows.slice(row),
        numbers=stretch.numbers[row:] - border,
        bad=stretch.bad[bad:],
        bad_numbers=stretch.bad_numbers[bad:] - border,
        taken=0,
        _messages=0,
    )
    return head, tail


def _join(stretches: Sequence[Stretch], keys: np.ndarray) -> Stretch:
    """One stretch of all messages, ordered by (key, partition); those of one partition keep their order."""
    partitions = np.concatenate([stretch.partitions for stretch in stretches])
    order = np.lexsort((partitions, keys))
    counts: list[np.ndarray] = []
    firsts: list[np.ndarray] = []
    rows_at: list[tuple[np.ndarray, np.ndarray]] = []
    bads_at: list[tuple[np.ndarray, np.ndarray]] = []
    begin = 0
    for stretch in stretches:
        count, first = np.diff(stretch.bounds), stretch.first.copy()
        skipped = np.zeros(len(count), np.int64)
        skipped[0] = stretch.taken
        counts.append(count - skipped)
        firsts.append(first + skipped)
        for numbers, places in ((stretch.numbers, rows_at), (stretch.bad_numbers, bads_at)):
            numbers = numbers[np.searchsorted(numbers, stretch.taken) :]
            message = stretch.message_of(numbers)
            places.append((begin + message, numbers - stretch.bounds[message] - skipped[message]))
        begin += len(count)
    bounds = np.concatenate([[0], np.cumsum(np.concatenate(counts)[order])])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))

    def renumber(places: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        message, inside = (np.concatenate(part) for part in zip(*places, strict=True))
        return bounds[rank[message]] + inside

    numbers, bad_numbers = renumber(rows_at), renumber(bads_at)
    by_number, bad_by_number = np.argsort(numbers, kind="stable"), np.argsort(bad_numbers, kind="stable")
    rows = pa.concat_batches([s.rows.slice(int(np.searchsorted(s.numbers, s.taken))) for s in stretches])
    bad = [one for s in stretches for one in s.bad[int(np.searchsorted(s.bad_numbers, s.taken)) :]]
    sorted_already = bool((np.diff(numbers) > 0).all())
    return Stretch(
        partitions[order],
        np.concatenate([stretch.offsets for stretch in stretches])[order],
        np.concatenate([stretch.times for stretch in stretches])[order],
        bounds,
        np.concatenate(firsts)[order],
        rows if sorted_already else rows.take(pa.array(by_number)),
        numbers[by_number],
        [bad[index] for index in bad_by_number],
        bad_numbers[bad_by_number],
        {},
    )
