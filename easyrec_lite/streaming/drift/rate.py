"""How many rows a second of event time are usual at which time of the day and of the week."""

from __future__ import annotations

import numpy as np

from easyrec_lite.features import Profile
from easyrec_lite.features.sketches import DAYS, HOURS
from easyrec_lite.streaming.drift.clock import spans

_LONGEST = 14 * 86400.0  # windows that span more see every hour and day alike


class TrafficShape:
    """Rows a second by hour of the day and day of the week, over the mean: from a profile's counts and its span.

    Attributes:
        known: whether the profile spans a day at least.
    """

    def __init__(self, profile: Profile | None) -> None:
        self.known = False
        self._factors = np.ones(HOURS + DAYS)
        if profile is None or profile.cycle is None or profile.first_event is None or profile.last_event is None:
            return
        seconds = np.zeros(HOURS + DAYS)
        first, last = profile.first_event, profile.last_event
        if last - first < 86400.0 or last - first > 10 * 366 * 86400.0:
            return
        for cell, part in spans(first, last):
            seconds[cell % HOURS] += part
            seconds[HOURS + cell // HOURS] += part
        rows = np.array(profile.cycle, np.float64)
        mean = rows[:HOURS].sum() / (last - first)
        with np.errstate(divide="ignore", invalid="ignore"):
            factors = rows / seconds / mean
        self._factors = np.where((seconds > 0) & (rows > 0), factors, 1.0)
        self.known = True

    def __call__(self, first: float, last: float) -> float:
        """The mean between two times."""
        if not self.known or last <= first or last - first > _LONGEST:
            return 1.0
        total = sum(
            seconds * self._factors[cell % HOURS] * self._factors[HOURS + cell // HOURS]
            for cell, seconds in spans(first, last)
        )
        return float(total / (last - first))
