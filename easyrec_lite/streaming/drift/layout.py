"""Where each count of a window stands in one flat vector, so that all features are judged at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from easyrec_lite.features import Ids
from easyrec_lite.features.base import Encoded
from easyrec_lite.features.hashing import CYCLE_BUCKETS, HashedIds, splitmix64
from easyrec_lite.features.statistics import MAX_NUMBERS, column_name, flat_parts, one_step

NUMBER_BINS = 22  # of a column of numbers: below all, twenty quantile bins, above all
_LABEL_SUMS = 2  # of a label: its values, their squares

Floats = npt.NDArray[np.float64]


def ratio(above: Floats, below: Floats) -> Floats:
    """One over the other; 0 where there is nothing below."""
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)


@dataclass(frozen=True)
class Layout:
    """What a batch holds, and the subjects that its counts are of.

    A vector of counts is `[width + subjects]`: the parts of every subject, then how many values each has.

    Attributes:
        labels: by name.
        features: by name.
        ids: features of ids.
        columns: numbers of features, and lengths of those with several ids.
    """

    labels: tuple[str, ...]
    features: tuple[str, ...]
    ids: tuple[str, ...]
    columns: tuple[str, ...]

    @cached_property
    def subjects(self) -> tuple[tuple[str, str], ...]:
        """Check and name: labels, then missing values, then ids, then numbers."""
        single = {column: column.rsplit("/", 1)[0] for column in self.columns if column.endswith("/0")}
        several = {column.rsplit("/", 1)[0] for column in self.columns if column.endswith("/1")}
        names = [single[c] if single.get(c, c) != c and single[c] not in several else c for c in self.columns]
        return (
            *(("label_mean", name) for name in self.labels),
            *(("missing_rate", name) for name in self.features),
            *(("distribution", name) for name in (*self.ids, *names)),
        )

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """How many parts each subject has."""
        parts = {
            _LABEL_SUMS: len(self.labels),
            1: len(self.features),
            CYCLE_BUCKETS: len(self.ids),
            NUMBER_BINS: len(self.columns),
        }
        return np.repeat(np.array(list(parts)), list(parts.values()))

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where the parts of each subject begin."""
        return np.cumsum(self.sizes) - self.sizes

    @cached_property
    def owner(self) -> npt.NDArray[np.int64]:
        """The subject of each part, `[width]`."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    @cached_property
    def width(self) -> int:
        """Parts of all subjects."""
        return int(self.sizes.sum())

    @cached_property
    def missing_of_ids(self) -> npt.NDArray[np.int64]:
        """Which feature each feature of ids is."""
        return np.array([self.features.index(name) for name in self.ids], np.int64)

    @cached_property
    def rates(self) -> int:
        """How many subjects, the first, are means; the others are distributions."""
        return len(self.labels) + len(self.features)

    @property
    def first_number(self) -> int:
        """The first subject that is a column of numbers."""
        return self.rates + len(self.ids)

    @classmethod
    def of(cls, batch: FlatBatch, labels: Mapping[str, np.ndarray]) -> Layout:
        """The layout that fits a batch."""
        return cls(tuple(labels), tuple(batch.empty), tuple(batch.ids), tuple(batch.columns))


class FlatBatch:
    """The encoded features of a batch as flat arrays.

    Attributes:
        rows: how many rows.
        ids: flat ids by feature.
        splits: where each row begins and ends, by feature; None where each has one value.
        columns: one number a row by column, NaN where a row has none.
        empty: rows without a value, by feature.
        hashed: `ids`.
    """

    def __init__(
        self,
        encoded: Mapping[str, Encoded],
        rows: int,
        first_row: int,
        hashed: Callable[[], HashedIds] | None = None,
    ) -> None:
        self.rows = rows
        self.ids: dict[str, npt.NDArray[np.int64]] = {}
        self.splits: dict[str, npt.NDArray[np.int64] | None] = {}
        self.columns: dict[str, npt.NDArray[np.float32]] = {}
        self.empty: dict[str, int] = {}
        for name, output in encoded.items():
            values, splits = flat_parts(output[0])
            found = len(values) if splits is None else len(splits) - 1
            if found != rows:
                raise ValueError(f"Feature {name!r} has {found} rows, the batch {rows}.")
            lengths = None if splits is None else np.diff(splits)
            self.empty[name] = 0 if lengths is None else rows - int(np.count_nonzero(lengths))
            self.splits[name] = splits
            if isinstance(output, Ids):
                self.ids[name] = values
                if lengths is not None:
                    self.columns[column_name(name, "length")] = lengths.astype(np.float32)
                continue
            if splits is not None:
                values = one_step(values, splits, splitmix64(np.arange(first_row, first_row + rows, dtype=np.uint64)))
            for place in range(min(values.shape[-1], MAX_NUMBERS)):
                self.columns[column_name(name, place)] = values[:, place]
        self.hashed = HashedIds.of(self.ids) if hashed is None else hashed()
        if self.hashed.features != tuple(self.ids):
            raise ValueError(f"The ids {tuple(self.ids)} were hashed as {self.hashed.features}.")
        for name, negative in zip(self.ids, self.hashed.counts[:, -1], strict=True):
            if self.splits[name] is None:
                self.empty[name] = int(negative)
