"""At which hours of which days of the week the rows of a batch or window happened."""

from __future__ import annotations

import numpy as np

from easyrec_lite.features.sketches import DAYS, HOURS
from easyrec_lite.streaming.drift.types import WatchedBatch

UNTIMED = HOURS * DAYS  # the cell of rows whose time is not known; the others are the hours of the week
_SPREAD = 6 * 3600.0  # a batch that spans more has late rows: its time is that of the newest


def cells_of(batch: WatchedBatch) -> list[tuple[int, float]]:
    """Cells, hours of the week (UTC), that the rows of a batch fall into, and the share of each."""
    if batch.times is not None:
        times = np.asarray(batch.times, np.float64)
        cells = np.where(times > 0, times // 3600.0 % UNTIMED, UNTIMED).astype(np.int64)
        counts = np.bincount(cells)
        return [(int(cell), float(counts[cell] / len(times))) for cell in np.flatnonzero(counts)]
    if batch.event_time is None:
        return [(UNTIMED, 1.0)]
    first, last = batch.event_time
    if last <= 0:
        return [(UNTIMED, 1.0)]
    if last - first > _SPREAD or last <= first:
        return [(int(last // 3600) % UNTIMED, 1.0)]
    return [(cell, seconds / (last - first)) for cell, seconds in spans(first, last)]


def spans(first: float, last: float) -> list[tuple[int, float]]:
    """The cells between two times, and the seconds in each."""
    result = []
    hour = int(first // 3600)
    while hour * 3600.0 < last:
        result.append((hour % UNTIMED, min(last, (hour + 1) * 3600.0) - max(first, hour * 3600.0)))
        hour += 1
    return result
