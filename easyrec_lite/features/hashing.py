"""Hashes of ids and of counters, and where ids stand in histograms and bitmaps."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HISTOGRAM_BUCKETS = 1024
SLOTS = 262_144  # that ids are hashed to, to know which were seen; a multiple of HISTOGRAM_BUCKETS
STRIDE = SLOTS + 8  # from one feature to the next in bitmaps: slot SLOTS stands for "missing", and bits fill bytes
CYCLE_BUCKETS = 64  # that ids are counted in by time and by window; HISTOGRAM_BUCKETS is a multiple
_AT_ONCE = 32768  # ids hashed in one pass, so that its arrays stay in the cache
_SLOT_SHIFT = np.uint64(64 - int(math.log2(SLOTS)))
_HISTOGRAM_SHIFT = int(math.log2(SLOTS // HISTOGRAM_BUCKETS))

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def splitmix64(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Steele, Lea and Flood's mixer (2014): uniform 64-bit values from counters."""
    values = values * _GOLDEN
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


def slots_of(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The slot, of `SLOTS`, that each id is hashed to. Its leading bits are the id's bucket in histograms."""
    hashed = ids.view(np.uint64) * _GOLDEN
    hashed ^= hashed >> np.uint64(32)
    hashed *= _MIX[1]
    hashed >>= _SLOT_SHIFT
    return hashed.view(np.int64)


@dataclass(frozen=True)
class HashedIds:
    """The ids of a batch, hashed.

    Attributes:
        features: names.
        starts: `[features + 1]`, where the ids of each begin.
        index: `[N]`, of all features, one after the other: STRIDE times the feature's place, plus the id's slot. That
            of a negative id is SLOTS, which is past the others' buckets in histograms too.
        counts: `[features, HISTOGRAM_BUCKETS + 1]`, how many ids fall into each bucket; the last: negative ones.
    """

    features: tuple[str, ...]
    starts: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, ids: Mapping[str, npt.NDArray[np.int64]]) -> HashedIds:
        """From flat ids by feature."""
        starts = np.concatenate([[0], np.cumsum([len(part) for part in ids.values()])]).astype(np.int64)
        counts = np.zeros((len(ids), HISTOGRAM_BUCKETS + 1), np.int64)
        hashed = cls(tuple(ids), starts, np.empty(starts[-1], np.int64), counts)
        group: list[tuple[int, npt.NDArray[np.int64]]] = []
        done = waiting = 0
        for place, part in enumerate(ids.values()):
            for start in range(0, len(part), _AT_ONCE):
                piece = part[start : start + _AT_ONCE]
                if waiting + len(piece) > _AT_ONCE:
                    hashed._add(group, done, waiting)
                    group, done, waiting = [], done + waiting, 0
                group.append((place, piece))
                waiting += len(piece)
        if group:
            hashed._add(group, done, waiting)
        return hashed

    def _add(self, group: list[tuple[int, npt.NDArray[np.int64]]], start: int, size: int) -> None:
        flat = np.concatenate([piece for _, piece in group])
        places = np.repeat(np.array([place for place, _ in group]), [len(piece) for _, piece in group])
        slots = slots_of(flat)
        slots[flat < 0] = SLOTS
        np.multiply(places, STRIDE, out=self.index[start : start + size])
        self.index[start : start + size] += slots
        first, last = group[0][0], group[-1][0] + 1
        slots >>= _HISTOGRAM_SHIFT
        slots += (places - first) * (HISTOGRAM_BUCKETS + 1)
        counts = self.counts[first:last]
        counts += np.bincount(slots, minlength=counts.size).reshape(counts.shape)

    def slots(self, place: int) -> npt.NDArray[np.int64]:
        """The slots of one feature's ids; SLOTS for negative ones."""
        return self.index[self.starts[place] : self.starts[place + 1]] - place * STRIDE


class HashedOnce:
    """The ids of a batch, hashed by the first who asks, whatever the thread; the others get the same.

    Args:
        ids: flat, by feature.
    """

    def __init__(self, ids: Mapping[str, npt.NDArray[np.int64]]) -> None:
        self._ids = ids
        self._lock = threading.Lock()
        self._hashed: HashedIds | None = None

    def __call__(self) -> HashedIds:
        """The hashed ids."""
        with self._lock:
            if self._hashed is None:
                self._hashed = HashedIds.of(self._ids)
            return self._hashed
