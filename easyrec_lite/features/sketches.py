"""Summaries of a stream of batches in bounded memory: mergeable, deterministic, restorable.

Each has `update`, `merge` and `arrays`/`restore`, a dict of NumPy arrays that a checkpoint can hold. The same rows give
the same summary wherever the stream is cut into batches or stopped and resumed (moments: up to float64 rounding).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from easyrec_lite.features.hashing import CYCLE_BUCKETS, HISTOGRAM_BUCKETS, SLOTS, STRIDE, HashedIds, splitmix64

Arrays = dict[str, np.ndarray]

HOURS, DAYS = 24, 7  # of the day, of the week: UTC; day 0 is a Thursday, as 1970-01-01 was
_BY_TIME_EVERY = 4  # of the ids are counted by time: enough to know the shares of 64 buckets
_CYCLE_SHIFT = int(math.log2(SLOTS // CYCLE_BUCKETS))


class RowSample:
    """A uniform sample of rows: the `size` rows of smallest priority, a pseudo-random function of the row's number.

    One sample serves every column, so a batch costs one comparison a row and, in the long run, a copy of few rows.
    A quantile read from it is off by at most sqrt(ln(2/d) / (2 size)) of the rows with probability 1-d (Dvoretzky,
    Kiefer and Wolfowitz 1956, Massart 1990): 2.2 % at size 8192 and d = 0.1 %; typically 0.5 %.

    Args:
        columns: their names.
        size: rows kept.
        seed: summaries that will be merged should differ in it.
    """

    def __init__(self, columns: Sequence[str], size: int = 8192, seed: int = 0) -> None:
        self.columns = tuple(columns)
        self.size = size
        self.seed = seed
        self.seen = 0
        self._filled = 0
        self._threshold = np.uint64(2**64 - 1)
        self._priorities = np.empty(0, np.uint64)
        self._values = np.empty((len(self.columns), 0), np.float32)

    def priorities(self, rows: int) -> npt.NDArray[np.uint64]:
        """Priorities of the next `rows` rows."""
        first = (self.seed << 40) + self.seen
        return splitmix64(np.arange(first, first + rows, dtype=np.uint64))

    def update(self, columns: Sequence[np.ndarray], priorities: npt.NDArray[np.uint64]) -> None:
        """Adds rows.

        Args:
            columns: one value a row, `[rows]`, of each column.
            priorities: `[rows]`, from `priorities`.
        """
        self.seen += len(priorities)
        chosen = np.flatnonzero(priorities < self._threshold)
        if len(chosen):
            self._append(priorities[chosen], np.stack([column[chosen] for column in columns]))

    def _append(self, priorities: npt.NDArray[np.uint64], values: npt.NDArray[np.float32]) -> None:
        end = self._filled + len(priorities)
        if end > len(self._priorities):
            room = max(2 * self.size, end)
            kept_priorities, kept_values = self._priorities, self._values
            self._priorities = np.empty(room, np.uint64)
            self._values = np.empty((len(self.columns), room), np.float32)
            self._priorities[: self._filled] = kept_priorities[: self._filled]
            self._values[:, : self._filled] = kept_values[:, : self._filled]
        self._priorities[self._filled : end] = priorities
        self._values[:, self._filled : end] = values
        self._filled = end
        if self._filled > self.size + self.size // 4:
            self._cut()

    def _cut(self) -> None:
        """Keeps the rows of smallest priority, in the order of their priorities."""
        order = np.argsort(self._priorities[: self._filled], kind="stable")[: self.size]
        self._filled = len(order)
        self._priorities[: self._filled] = self._priorities[order]
        self._values[:, : self._filled] = self._values[:, order]
        if self._filled == self.size:
            self._threshold = self._priorities[self.size - 1]

    def values(self, column: str) -> npt.NDArray[np.float32]:
        """The sampled values of a column; NaN where a row had none."""
        self._cut()
        return self._values[self.columns.index(column), : self._filled]

    def merge(self, other: RowSample) -> None:
        """Adds the rows that `other` saw; its columns must be the same."""
        other._cut()
        self._append(other._priorities[: other._filled], other._values[:, : other._filled])
        self.seen += other.seen
        self._cut()

    def arrays(self) -> Arrays:
        """The state."""
        self._cut()
        return {
            "numbers": np.array([self.size, self.seed, self.seen], np.int64),
            "priorities": self._priorities[: self._filled].copy(),
            "values": self._values[:, : self._filled].copy(),
        }

    @classmethod
    def restore(cls, columns: Sequence[str], arrays: Mapping[str, np.ndarray]) -> RowSample:
        """The sample whose `arrays` these are."""
        size, seed, seen = (int(number) for number in arrays["numbers"])
        sample = cls(columns, size, seed)
        sample._append(arrays["priorities"], arrays["values"])
        sample._cut()
        sample.seen = seen
        return sample


class Moments:
    """Count, mean, squared deviations, least and greatest value of columns; NaN does not count.

    Batches are joined by Chan, Golub and LeVeque's formula (1979), in float64.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self.count = np.zeros(len(self.columns))
        self.mean = np.zeros(len(self.columns))
        self.deviations = np.zeros(len(self.columns))
        self.min = np.full(len(self.columns), np.inf)
        self.max = np.full(len(self.columns), -np.inf)

    def update(self, place: int, values: np.ndarray) -> None:
        """Adds values, of any shape, to the column at `place`."""
        values = values.reshape(-1).astype(np.float64)
        mean = values.mean() if values.size else math.nan
        if math.isnan(mean):
            values = values[~np.isnan(values)]
            if not values.size:
                return
            mean = values.mean()
        deviations = np.square(values - mean).sum()
        self._join(place, values.size, float(mean), float(deviations), float(values.min()), float(values.max()))

    def _join(self, place: int, count: float, mean: float, deviations: float, least: float, greatest: float) -> None:
        total = self.count[place] + count
        if not total:
            return
        delta = mean - self.mean[place]
        self.deviations[place] += deviations + delta * delta * self.count[place] * count / total
        self.mean[place] += delta * count / total
        self.count[place] = total
        self.min[place] = min(self.min[place], least)
        self.max[place] = max(self.max[place], greatest)

    def std(self, column: str) -> float:
        """Standard deviation of the values themselves (not of a population that they stand for)."""
        place = self.columns.index(column)
        return math.sqrt(self.deviations[place] / self.count[place]) if self.count[place] else 0.0

    def merge(self, other: Moments) -> None:
        """Adds what `other` saw; its columns must be the same."""
        for place, row in enumerate(other.arrays()["moments"]):
            self._join(place, *(float(number) for number in row))

    def arrays(self) -> Arrays:
        """The state."""
        parts = (self.count, self.mean, self.deviations, self.min, self.max)
        return {"moments": np.stack(parts, axis=1)}

    @classmethod
    def restore(cls, columns: Sequence[str], arrays: Mapping[str, np.ndarray]) -> Moments:
        """The moments whose `arrays` these are."""
        moments = cls(columns)
        parts = np.array(arrays["moments"], np.float64).reshape(len(moments.columns), 5).T
        moments.count, moments.mean, moments.deviations, moments.min, moments.max = (part.copy() for part in parts)
        return moments


class Clock(NamedTuple):
    """When the rows of a batch happened: the hour of the day and the day of the week of each, `[B]`, in UTC."""

    hours: npt.NDArray[np.int64]
    days: npt.NDArray[np.int64]

    @classmethod
    def of(cls, times: npt.NDArray[np.float64]) -> Clock:
        """From seconds since 1970."""
        hours = (times // 3600.0).astype(np.int64)
        return cls(hours % HOURS, hours // HOURS % DAYS)

    def of_values(self, lengths: npt.NDArray[np.int64] | None, chosen: slice) -> Clock:
        """Of the chosen values, where a row has one, or so many."""
        if lengths is None:
            return Clock(self.hours[chosen], self.days[chosen])
        rows = np.repeat(np.arange(len(lengths)), lengths)[chosen]
        return Clock(self.hours[rows], self.days[rows])

    def tally(self, chosen: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
        """Rows of each hour of the day, then of each day of the week, `[HOURS + DAYS]`."""
        hours, days = (part if chosen is None else part[chosen] for part in self)
        return np.concatenate([np.bincount(hours, minlength=HOURS), np.bincount(days, minlength=DAYS)])

    def sum(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sums of one value a row by hour of the day, then by day of the week."""
        return np.concatenate([np.bincount(self.hours, values, HOURS), np.bincount(self.days, values, DAYS)])


class IdCounts:
    """How often ids occur, and how many different ones: a histogram over 1024 hashed buckets, and linear counting.

    Linear counting (Whang, Vander-Zanden and Taylor 1990) with 262,144 slots is off by about 1 % up to a million
    different ids, and says "at least 3,200,000" beyond what it can tell. Where the time of the rows is known, ids are
    also counted, every fourth of them, by hour of the day and by day of the week, in 64 buckets.
    """

    def __init__(self, features: Sequence[str]) -> None:
        self.features = tuple(features)
        self.counts = np.zeros((len(self.features), HISTOGRAM_BUCKETS + 1), np.int64)  # the last: negative ids
        self.by_time = np.zeros((len(self.features), HOURS + DAYS, CYCLE_BUCKETS + 1), np.int64)
        self._seen = np.zeros((len(self.features), STRIDE), np.bool_)

    def update(
        self,
        ids: HashedIds,
        clock: Clock | None = None,
        lengths: Sequence[npt.NDArray[np.int64] | None] = (),
    ) -> None:
        """Adds a batch.

        Args:
            ids: of these features, in this order.
            clock: when the rows happened, if that is known.
            lengths: ids a row of each feature, None where each has one. Steps of several ids are not counted by time.
        """
        if clock is not None:
            self._add_by_time(ids, clock, lengths)
        self._seen.reshape(-1)[ids.index] = True
        self.counts += ids.counts

    def _add_by_time(self, ids: HashedIds, clock: Clock, lengths: Sequence[npt.NDArray[np.int64] | None]) -> None:
        timed = []
        for place, each in enumerate(lengths):
            # By their number since the first, so that batches don't matter.
            chosen = slice(-int(self.counts[place].sum()) % _BY_TIME_EVERY, None, _BY_TIME_EVERY)
            slots = ids.slots(place)
            if len(slots[chosen]) and (each is None or each.sum() == len(slots)):
                timed.append((place, slots[chosen], clock.of_values(each, chosen)))
        if not timed:
            return
        places = np.repeat([place for place, _, _ in timed], [len(part) for _, part, _ in timed])
        buckets = np.concatenate([part for _, part, _ in timed])
        buckets >>= _CYCLE_SHIFT
        buckets += places * (HOURS + DAYS) * (CYCLE_BUCKETS + 1)
        hours, days = (np.concatenate([clock[part] for _, _, clock in timed]) for part in (0, 1))
        index = np.concatenate([hours, days + HOURS]) * (CYCLE_BUCKETS + 1)
        index.reshape(2, -1)[:] += buckets
        self.by_time += np.bincount(index, minlength=self.by_time.size).reshape(self.by_time.shape)

    def histogram(self, feature: str) -> npt.NDArray[np.int64]:
        """Counts of the hashed buckets."""
        return self.counts[self.features.index(feature), :HISTOGRAM_BUCKETS]

    def cycle(self, feature: str) -> npt.NDArray[np.int64]:
        """Counts of the hashed buckets by hour of the day, then by day of the week: `[HOURS + DAYS, CYCLE_BUCKETS]`."""
        return self.by_time[self.features.index(feature), :, :CYCLE_BUCKETS]

    def seen(self, feature: str) -> npt.NDArray[np.bool_]:
        """Which slots were hit, `[SLOTS]`."""
        return self._seen[self.features.index(feature), :SLOTS]

    def distinct(self, feature: str) -> int:
        """Estimated number of different ids."""
        free = max(SLOTS - int(np.count_nonzero(self.seen(feature))), 1)
        return round(SLOTS * math.log(SLOTS / free))

    def merge(self, other: IdCounts) -> None:
        """Adds what `other` saw; its features must be the same."""
        self.counts += other.counts
        self.by_time += other.by_time
        self._seen |= other._seen

    def arrays(self) -> Arrays:
        """The state."""
        return {"counts": self.counts.copy(), "by_time": self.by_time.copy(), "seen": np.packbits(self._seen, axis=1)}

    @classmethod
    def restore(cls, features: Sequence[str], arrays: Mapping[str, np.ndarray]) -> IdCounts:
        """The counts whose `arrays` these are."""
        counts = cls(features)
        counts.counts[...] = arrays["counts"]
        counts.by_time[...] = arrays["by_time"]
        counts._seen[...] = np.unpackbits(arrays["seen"], axis=1, count=STRIDE)
        return counts
