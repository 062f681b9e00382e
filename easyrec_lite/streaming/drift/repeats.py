"""Rows that come again: 64-bit hashes of what was encoded, of this window and the one before."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from easyrec_lite.features.hashing import splitmix64
from easyrec_lite.streaming.drift.layout import FlatBatch

_MOST = 131_072  # hashes of a window that are kept; of more rows, those with a small hash

Hashes = npt.NDArray[np.uint64]


def hash_rows(batch: FlatBatch, labels: Mapping[str, np.ndarray]) -> Hashes:
    """A hash of each row, `[rows]`: equal rows have equal ones, others hardly ever (2^-40).

    A linear hash over the 64-bit words (Dietzfelbinger 1996), with an odd random factor for each column. Of a list of
    ids it sees the first, the last and how many, so that its cost does not grow with lists.
    """
    words: list[npt.NDArray[np.uint64]] = []
    for name, ids in batch.ids.items():
        splits = batch.splits[name]
        if splits is None:
            words.append(ids.view(np.uint64))
        elif len(ids):
            words.append(ids[np.minimum(splits[:-1], len(ids) - 1)].view(np.uint64) * (np.diff(splits) > 0))
            words.append(ids[splits[1:] - 1].view(np.uint64) * (np.diff(splits) > 0))
    for numbers in batch.columns.values():
        words.append(np.ascontiguousarray(numbers, np.float32).view(np.uint32).astype(np.uint64))
    for label in labels.values():
        for values in np.asarray(label, np.float64).reshape(batch.rows, -1).T:
            words.append(np.ascontiguousarray(values).view(np.uint64))
    hashes = np.zeros(batch.rows, np.uint64)
    if words:
        factors = splitmix64(np.arange(1, len(words) + 1, dtype=np.uint64)) | np.uint64(1)
        product = np.empty_like(hashes)
        for word, factor in zip(words, factors, strict=True):
            np.multiply(word, factor, out=product)
            hashes += product
    return splitmix64(hashes)


class Repeats:
    """How many rows were seen before, in this window or in the one before."""

    def __init__(self) -> None:
        self._now: list[Hashes] = []
        self._before = np.empty(0, np.uint64)  # ascending, distinct
        self._shifts = [0, 0]  # of now and of before: kept are hashes below 2^(64 - shift)
        self._kept = 0

    def add(self, hashes: Hashes) -> None:
        """Adds the rows of a batch."""
        hashes = _below(hashes, self._shifts[0])
        self._now.append(hashes)
        self._kept += len(hashes)
        while self._kept > _MOST:
            self._shifts[0] += 1
            self._now = [_below(np.concatenate(self._now), self._shifts[0])]
            self._kept = len(self._now[0])

    def end_window(self) -> tuple[float, int]:
        """The share of rows that came again, and of how many rows that is known: of none in the first window."""
        now = np.concatenate(self._now) if self._now else np.empty(0, np.uint64)
        ordered = np.sort(now)
        distinct = ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered
        shift = max(self._shifts)
        compared, before = _below(distinct, shift), _below(self._before, shift)
        rows = len(_below(now, shift)) if len(self._before) else 0
        both = np.concatenate([before, compared])
        both.sort(kind="stable")  # two ascending runs are merged
        first = len(compared) - int(np.count_nonzero(both[1:] == both[:-1]))
        self._now, self._kept, self._before = [], 0, distinct
        self._shifts = [0, self._shifts[0]]
        return (1.0 - first / rows if rows else 0.0), rows

    def drop_window(self) -> None:
        """Forgets the rows since the last window ended."""
        self._now, self._kept, self._shifts[0] = [], 0, 0

    def arrays(self) -> dict[str, np.ndarray]:
        """The state."""
        now = np.concatenate(self._now) if self._now else np.empty(0, np.uint64)
        return {"now": now, "before": self._before.copy(), "shifts": np.array(self._shifts)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back what `arrays` gave."""
        self._now, self._before = [np.array(arrays["now"])], np.array(arrays["before"])
        self._shifts, self._kept = [int(shift) for shift in arrays["shifts"]], len(arrays["now"])


def _below(hashes: Hashes, shift: int) -> Hashes:
    return hashes[hashes >> np.uint64(64 - shift) == 0] if shift else hashes
