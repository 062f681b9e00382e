"""Counts of a window, from its batches: on one core about 0.2 us a row with 20 features of one id each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from easyrec_lite.features.hashing import CYCLE_BUCKETS, HISTOGRAM_BUCKETS, HashedIds
from easyrec_lite.streaming.drift.layout import NUMBER_BINS, FlatBatch, Floats, Layout
from easyrec_lite.streaming.drift.seen_ids import Bits, Bytes, hits

_TABLE = (CYCLE_BUCKETS, HISTOGRAM_BUCKETS // CYCLE_BUCKETS)
_AT_ONCE = 32768  # ids looked up in one pass, so that its arrays stay in the cache
_EDGE_VALUES = 4096  # of a column, from which its bins are made
_SAMPLE, _SAMPLE_A_BATCH = 512, 64  # ids of each feature and window that are kept, to name those that changed


class Counts(NamedTuple):
    """Of a batch.

    Attributes:
        vector: `[width + subjects]`, see Layout.
        unseen: ids that were not seen before, of each feature of ids.
        known: ids that could have been.
    """

    vector: Floats
    unseen: Floats
    known: Floats


class Counter:
    """Counts batches of one layout."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def count(
        self,
        batch: FlatBatch,
        labels: Mapping[str, np.ndarray],
        missing: Mapping[str, int],
        edges: Sequence[npt.NDArray[np.float32] | None],
        seen: Bytes,
        keep: Bits | None = None,
    ) -> Counts:
        """Counts a batch.

        Args:
            batch: the features.
            labels: by name.
            missing: rows without a value, where the reader knows better.
            edges: of the bins of each column of numbers, ascending; None where they are not known yet.
            seen: slots of the ids that were seen, see SeenIds.
            keep: gets the slots of the batch's ids, `[features of ids, STRIDE]`.
        """
        layout = self.layout
        vector = np.zeros(layout.width + len(layout.sizes))
        sizes = vector[layout.width :]
        for place, name in enumerate(layout.labels):
            values = np.asarray(labels[name], np.float64).reshape(-1)
            total = float(values.sum())
            if np.isnan(total):
                values = values[~np.isnan(values)]
                total = float(values.sum())
            vector[2 * place : 2 * place + 2] = total, float(values @ values)
            sizes[place] = values.size
        first = len(layout.labels)
        start = 2 * first
        for place, name in enumerate(layout.features):
            vector[start + place] = max(missing.get(name, 0), batch.empty[name])
        sizes[first : layout.rates] = batch.rows
        start += len(layout.features)
        end = start + CYCLE_BUCKETS * len(layout.ids)
        tables = vector[start:end].reshape(len(layout.ids), CYCLE_BUCKETS)
        ids = batch.hashed
        tables += ids.counts[:, :HISTOGRAM_BUCKETS].reshape(len(layout.ids), *_TABLE).sum(axis=2)
        unseen = _unseen(ids, seen)
        if keep is not None:
            keep.reshape(-1)[ids.index] = True
        known = tables.sum(axis=1)
        sizes[layout.rates : layout.first_number] = known
        bins = vector[end : layout.width].reshape(len(layout.columns), NUMBER_BINS)
        for place, name in enumerate(layout.columns):
            own = edges[place]
            if own is not None:
                bins[place] = bin_counts(batch.columns[name], own)
        sizes[layout.first_number :] = bins.sum(axis=1)
        return Counts(vector, unseen, known)


def _unseen(ids: HashedIds, seen: Bytes) -> Floats:
    """How many ids of each feature were not seen."""
    new = np.empty(len(ids.index), np.bool_)
    for start in range(0, len(new), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        np.logical_not(hits(seen, ids.index[part]), out=new[part])
    return np.array([np.count_nonzero(new[start:stop]) for start, stop in pairwise(ids.starts)], np.float64)


def bin_counts(values: npt.NDArray[np.float32], edges: npt.NDArray[np.float32]) -> Floats:
    """How many values lie in each bin: up to the first edge, ..., beyond the last. NaN counts nowhere."""
    places = np.searchsorted(edges, values)
    empty = np.isnan(values)
    if empty.any():
        places = places[~empty]
    return np.bincount(places, minlength=NUMBER_BINS).astype(np.float64)


def edges_of(quantiles: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Edges of the bins of a column, at most NUMBER_BINS - 1, from quantiles (or a sample) of it, ascending.

    The first bin is below all of them, the last above all; a value that is often repeated ends a bin.
    """
    quantiles = np.asarray(quantiles, np.float32)
    inner = np.quantile(quantiles, np.linspace(0.0, 1.0, NUMBER_BINS - 1), method="nearest")
    inner[0] = np.nextafter(quantiles[0], np.float32(-np.inf))
    return np.unique(inner)


class IdSample:
    """Some ids of each feature in a window, to give names to buckets."""

    def __init__(self, features: int) -> None:
        self.ids = np.full((features, _SAMPLE), -1, np.int64)
        self.filled = np.zeros(features, np.int64)

    def add(self, ids: Sequence[npt.NDArray[np.int64]]) -> None:
        """Keeps the first ids of a batch, until there are enough."""
        if self.filled.min(initial=_SAMPLE) >= _SAMPLE:
            return
        for place, part in enumerate(ids):
            begin = self.filled[place]
            part = part[: min(_SAMPLE_A_BATCH, _SAMPLE - begin)]
            self.ids[place, begin : begin + len(part)] = part
            self.filled[place] += len(part)

    def of(self, place: int) -> npt.NDArray[np.int64]:
        """Those of a feature."""
        ids = self.ids[place]
        return ids[ids >= 0]


class EdgeValues:
    """The first numbers of each column whose bins are not known yet."""

    def __init__(self) -> None:
        self.values: dict[str, npt.NDArray[np.float32]] = {}
        self.kept: dict[str, int] = {}  # how many are of windows that ended

    def add(self, name: str, values: npt.NDArray[np.float32]) -> None:
        """Keeps values until there are enough."""
        kept = self.values.get(name, np.empty(0, np.float32))
        if len(kept) < _EDGE_VALUES:
            values = values[~np.isnan(values)][: _EDGE_VALUES - len(kept)]
            self.values[name] = np.concatenate([kept, values])

    def take(self, name: str) -> npt.NDArray[np.float32]:
        """The values of a column, ascending; they are forgotten."""
        return np.sort(self.values.pop(name, np.empty(0, np.float32)))

    def end_window(self) -> None:
        """What was added stays."""
        self.kept = {name: len(values) for name, values in self.values.items()}

    def drop_window(self) -> None:
        """Forgets what was added since the last window ended."""
        self.values = {name: values[: self.kept[name]] for name, values in self.values.items() if name in self.kept}
