"""Statistics of the training data, gathered while a model trains on it.

On one core: 0.5 ms for a batch of 4,096 rows with 20 features; sequences 6 ns an id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from easyrec_lite.features.base import Encoded, Ids
from easyrec_lite.features.hashing import HashedIds
from easyrec_lite.features.profile import (
    QUANTILE_GRID,
    FeatureProfile,
    IdProfile,
    LabelProfile,
    NumberProfile,
    Profile,
    pack_slots,
)
from easyrec_lite.features.sketches import Arrays, Clock, IdCounts, Moments, RowSample

MAX_NUMBERS = 16  # of one feature
_PARTS = ("ids", "moments", "sample", "labels")
# A count of a batch says something of the hours of its rows if these span no more seconds, but for a share of them.
_NEAR, _FAR_SHARE = 6 * 3600.0, 0.1


class Statistics:
    """Accumulates over encoded batches; see `Profile` for what comes out.

    The features and labels of the first batch are those of all batches.

    Args:
        seed: of the row sample; workers whose statistics will be merged should differ in it.
        sample_rows: size of the row sample that quantiles are read from.
    """

    def __init__(self, seed: int = 0, sample_rows: int = 8192) -> None:
        self._seed = seed
        self._sample_rows = sample_rows
        self.rows = 0
        self._events = np.array([np.inf, -np.inf])
        self._missing: dict[str, int] = {}
        self._unknown: dict[str, int] = {}
        self._ids = IdCounts(())
        self._moments = Moments(())
        self._sample = RowSample((), sample_rows, seed)
        self._labels = Moments(())
        self._cycles: dict[str, npt.NDArray[Any]] = {}  # [HOURS + DAYS] of rows, labels and missing values

    def update(
        self,
        encoded: Mapping[str, Encoded],
        labels: Mapping[str, Any] | None = None,
        event_time: npt.ArrayLike | None = None,
        missing: Mapping[str, int] | None = None,
        unknown: Mapping[str, int] | None = None,
        hashed: Callable[[], HashedIds] | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            encoded: features by name, as eager tensors or NumPy arrays (ragged: `flat_values` and `row_splits`).
            labels: by name, `[B]` or `[B, dim]`.
            event_time: `[B]`, seconds since 1970 (UTC); 0 and below is missing.
            missing: rows without a value, by feature, where the reader knows better: a missing number is encoded as 0,
                a missing whole number as any other id.
            unknown: values that mean nothing, by feature (`Feature.count_unknown`), if counted.
            hashed: the ids of `encoded`, if somebody else counts them too.
        """
        labels = labels or {}
        batch = _Batch(encoded, self._sample, hashed)
        if not self.rows:
            self._start(batch, labels)
        _same("features of ids", self._ids.features, batch.ids)
        _same("columns of numbers", self._moments.columns, batch.columns)
        _same("labels", self._labels.columns, labels)
        times = None if event_time is None else np.asarray(event_time, np.float64)
        clock = None if times is None or not times.size or times.min() <= 0 else Clock.of(times)
        names, ids = self._ids.features, batch.hashed
        if ids.features != names:  # in another order
            ids = HashedIds.of({name: batch.ids[name] for name in names})
        self._ids.update(ids, clock, [batch.lengths.get(name) for name in names])
        for place, name in enumerate(self._moments.columns):
            self._moments.update(place, batch.columns[name].all)
        if self._moments.columns:
            self._sample.update([batch.columns[name].one_a_row for name in self._sample.columns], batch.priorities)
        for place, name in enumerate(self._labels.columns):
            self._labels.update(place, np.asarray(labels[name]))
        counted = {name: max(count, int((missing or {}).get(name, 0))) for name, count in batch.missing.items()}
        if times is not None and clock is not None:
            self._add_cycles(clock, times, batch, labels, counted)
        if times is not None:
            times = times[times > 0]
            if times.size:
                self._events = np.array([min(self._events[0], times.min()), max(self._events[1], times.max())])
        for name, count in counted.items():
            self._missing[name] = self._missing.get(name, 0) + count
        for name, count in (unknown or {}).items():
            self._unknown[name] = self._unknown.get(name, 0) + int(count)
        self.rows += batch.rows

    def _start(self, batch: _Batch, labels: Mapping[str, Any]) -> None:
        self._ids = IdCounts(tuple(batch.ids))
        self._moments = Moments(tuple(batch.columns))
        self._sample = RowSample(tuple(batch.columns), self._sample_rows, self._seed)
        self._labels = Moments(tuple(labels))

    def _add_cycles(
        self,
        clock: Clock,
        times: npt.NDArray[np.float64],
        batch: _Batch,
        labels: Mapping[str, Any],
        missing: Mapping[str, int],
    ) -> None:
        """What happens at which time of the day and of the week."""
        counts: dict[str, npt.NDArray[Any]] = {"rows": clock.tally()}
        for name, values in labels.items():
            values = np.nan_to_num(np.asarray(values, np.float64).reshape(batch.rows, -1)).sum(axis=1)
            counts[f"labels/{name}"] = clock.sum(values)
        counted = any(count > batch.missing[name] for name, count in missing.items())
        is_far = counted and np.diff(np.quantile(times, (0.05, 0.95))).item() > _NEAR  # whatever comes late
        for name, count in missing.items():
            rows = batch.empty(name) if count or not self.rows else None
            if count > batch.missing[name]:  # the reader knows how many, not which
                counts[f"missing/{name}"] = counts["rows"] * (count / batch.rows)
                if is_far:
                    counts[f"far/{name}"] = np.array(count)
            elif rows is not None:
                counts[f"missing/{name}"] = clock.tally(rows)
        for key, tally in counts.items():
            self._cycles[key] = self._cycles.get(key, 0.0) + tally

    def merge(self, other: Statistics) -> None:
        """Adds what another worker's statistics saw of other rows.

        Raises:
            ValueError: it saw other features or labels.
        """
        if not other.rows:
            return
        if not self.rows:
            restored = Statistics.restore(other.state())
            restored._seed, restored._sample.seed = self._seed, self._seed
            self.__dict__.update(restored.__dict__)
            return
        _same("features of ids", self._ids.features, other._ids.features)
        _same("columns of numbers", self._moments.columns, other._moments.columns)
        _same("labels", self._labels.columns, other._labels.columns)
        self.rows += other.rows
        self._events = np.array([min(self._events[0], other._events[0]), max(self._events[1], other._events[1])])
        for mine, others in ((self._missing, other._missing), (self._unknown, other._unknown)):
            for name, count in others.items():
                mine[name] = mine.get(name, 0) + count
        for key, cycle in other._cycles.items():
            self._cycles[key] = self._cycles.get(key, 0.0) + cycle
        self._ids.merge(other._ids)
        self._moments.merge(other._moments)
        self._sample.merge(other._sample)
        self._labels.merge(other._labels)

    # ---- results

    def profile(self) -> Profile:
        """What was seen so far."""
        first, last = (float(time) if np.isfinite(time) else None for time in self._events)
        labels = {}
        for place, name in enumerate(self._labels.columns):
            labels[name] = LabelProfile(
                int(self._labels.count[place]),
                float(self._labels.mean[place]),
                self._labels.std(name),
                self._cycles[f"labels/{name}"].tolist() if f"labels/{name}" in self._cycles else None,
            )
        features = {name: self._feature(name) for name in self._missing}
        return Profile(self.rows, first, last, labels, features, self._cycle("rows"))

    def _cycle(self, key: str) -> list[int] | None:
        return np.rint(self._cycles[key]).astype(np.int64).tolist() if key in self._cycles else None

    def to_json(self) -> str:
        """The profile as JSON."""
        return self.profile().to_json()

    def _feature(self, name: str) -> FeatureProfile:
        missing, unknown = self._missing[name], self._unknown.get(name)
        is_timed = self._cycles.get(f"far/{name}", 0) <= _FAR_SHARE * missing
        missing_cycle = self._cycle(f"missing/{name}") if is_timed else None
        if name not in self._ids.features:
            own = [column for column in self._moments.columns if column.rsplit("/", 1)[0] == name]
            return FeatureProfile(missing, unknown, None, [self._number(column) for column in own], missing_cycle)
        histogram = self._ids.histogram(name)
        length = column_name(name, "length")
        lengths = self._number(length) if length in self._moments.columns else None
        cycle = self._ids.cycle(name)
        ids = IdProfile(
            int(histogram.sum()),
            self._ids.distinct(name),
            histogram.tolist(),
            lengths,
            pack_slots(self._ids.seen(name)),
            cycle.tolist() if cycle.any() else None,
        )
        return FeatureProfile(missing, unknown, ids=ids, cycle=missing_cycle)

    def _number(self, column: str) -> NumberProfile:
        place = self._moments.columns.index(column)
        count = int(self._moments.count[place])
        if not count:
            return NumberProfile(0, 0.0, 0.0, 0.0, 0.0, [])
        least, greatest = float(self._moments.min[place]), float(self._moments.max[place])
        values = self._sample.values(column)
        inner = np.nanquantile(values, QUANTILE_GRID[1:-1]) if not np.isnan(values).all() else np.full(99, least)
        quantiles = [least, *inner.tolist(), greatest]
        mean, std = float(self._moments.mean[place]), self._moments.std(column)
        return NumberProfile(count, mean, std, least, greatest, quantiles)

    # ---- state

    def state(self) -> dict[str, np.ndarray]:
        """All of it as numeric arrays, for a checkpoint; names are in the keys."""
        state = {"rows": np.int64(self.rows), "seed": np.int64(self._seed), "events": self._events.copy()}
        state["sample_rows"] = np.int64(self._sample_rows)
        state |= {f"missing/{name}": np.int64(count) for name, count in self._missing.items()}
        state |= {f"unknown/{name}": np.int64(count) for name, count in self._unknown.items()}
        state |= {f"cycles/{key}": cycle.copy() for key, cycle in self._cycles.items()}
        names = (self._ids.features, self._moments.columns, self._labels.columns)
        for kind, members in zip(("ids", "numbers", "labels"), names, strict=True):
            state |= {f"names/{kind}/{name}": np.int64(place) for place, name in enumerate(members)}
        for part in _PARTS:
            state |= {f"{part}/{key}": array for key, array in getattr(self, f"_{part}").arrays().items()}
        return {key: np.asarray(array) for key, array in state.items()}

    @classmethod
    def restore(cls, state: Mapping[str, np.ndarray]) -> Statistics:
        """The statistics whose `state` this is."""
        statistics = cls(int(state["seed"]), int(state["sample_rows"]))
        statistics.rows = int(state["rows"])
        statistics._events = np.array(state["events"])
        statistics._missing = {name: int(count) for name, count in _below(state, "missing").items()}
        statistics._unknown = {name: int(count) for name, count in _below(state, "unknown").items()}
        statistics._cycles = {key: np.array(cycle) for key, cycle in _below(state, "cycles").items()}
        ids, numbers, labels = (
            tuple(sorted(places, key=lambda name, places=places: int(places[name])))  # type: ignore[misc]
            for places in (_below(state, f"names/{kind}") for kind in ("ids", "numbers", "labels"))
        )
        arrays: list[Arrays] = [_below(state, part) for part in _PARTS]
        statistics._ids = IdCounts.restore(ids, arrays[0])
        statistics._moments = Moments.restore(numbers, arrays[1])
        statistics._sample = RowSample.restore(numbers, arrays[2])
        statistics._labels = Moments.restore(labels, arrays[3])
        return statistics


class _Column(NamedTuple):
    """Numbers of a batch: all of them, and one for each row (NaN = none)."""

    all: np.ndarray
    one_a_row: np.ndarray


class _Batch:
    """The encoded features of a batch as flat arrays.

    Attributes:
        rows: how many rows.
        priorities: of the rows in the sample.
        ids: flat ids by feature.
        columns: numbers and lengths by column.
        missing: rows without a value, by feature.
        lengths: values a row, of features that may have several.
        hashed: `ids`.
    """

    def __init__(
        self, encoded: Mapping[str, Encoded], sample: RowSample, hashed: Callable[[], HashedIds] | None
    ) -> None:
        parts = {name: flat_parts(output[0]) for name, output in encoded.items()}
        values, splits = next(iter(parts.values()))
        self.rows = len(values) if splits is None else len(splits) - 1
        self.priorities = sample.priorities(self.rows)
        self.ids: dict[str, npt.NDArray[np.int64]] = {}
        self.columns: dict[str, _Column] = {}
        self.missing: dict[str, int] = {}
        self.lengths: dict[str, npt.NDArray[np.int64]] = {}
        for name, (values, splits) in parts.items():
            lengths = None if splits is None else np.diff(splits)
            self.missing[name] = 0
            if lengths is not None:
                self.lengths[name] = lengths
                self.missing[name] = self.rows - int(np.count_nonzero(lengths))
            if not isinstance(encoded[name], Ids):
                a_row = values if splits is None else one_step(values, splits, self.priorities)
                for place in range(min(values.shape[-1], MAX_NUMBERS)):
                    self.columns[column_name(name, place)] = _Column(values[:, place], a_row[:, place])
                continue
            self.ids[name] = values
            if lengths is not None:
                lengths = lengths.astype(np.float32)
                self.columns[column_name(name, "length")] = _Column(lengths, lengths)
        self.hashed = HashedIds.of(self.ids) if hashed is None else hashed()
        for name, negative in zip(self.hashed.features, self.hashed.counts[:, -1], strict=True):
            if name not in self.lengths:
                self.missing[name] = int(negative)

    def empty(self, name: str) -> npt.NDArray[np.bool_] | None:
        """Which rows have no value of a feature, `[rows]`; None where it can't be seen."""
        if name in self.lengths:
            return self.lengths[name] == 0
        return self.ids[name] < 0 if name in self.ids else None


def column_name(name: str, part: str | int) -> str:
    """Of the numbers at one place of a feature, or of its lengths."""
    return f"{name}/{part}"


def _below(state: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    return {key[len(prefix) + 1 :]: array for key, array in state.items() if key.startswith(f"{prefix}/")}


def _same(what: str, known: tuple[str, ...], found: Any) -> None:
    if len(known) != len(found) or any(name not in found for name in known):
        raise ValueError(f"The {what} differ from those seen so far, {sorted(known)}. Received: {sorted(found)}.")


def flat_parts(values: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Flat values and, if ragged, the outermost row_splits."""
    if hasattr(values, "row_splits"):
        return np.asarray(values.flat_values), np.asarray(values.row_splits)
    return np.asarray(values), None


def one_step(values: np.ndarray, splits: np.ndarray, priorities: npt.NDArray[np.uint64]) -> np.ndarray:
    """One random step of each row: values `[N, D]` to `[B, D]`; NaN where a row has none."""
    lengths = np.diff(splits)
    chosen = np.full((len(lengths), values.shape[-1]), np.nan, np.float32)
    filled = lengths > 0
    # Multiplied, not the bits themselves: the rows sampled are those of small priorities.
    picks = (priorities[filled] * np.uint64(0xD6E8FEB86659FD93) >> np.uint64(33)) % lengths[filled].astype(np.uint64)
    chosen[filled] = values[splits[:-1][filled] + picks.astype(np.int64)]
    return chosen
