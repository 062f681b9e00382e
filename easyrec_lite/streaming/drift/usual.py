"""What is usual: the counts of a reference, by hour of the day and by day of the week.

Streams breathe: at night there are other users, other ids and other click rates than in the evening, and on Saturday
than on Monday. So a share is expected to be

    p * (p in this hour / p) * (p on this day / p)

that is, hours and days have effects that multiply, as in a log-linear model without interactions; the shares of a
distribution are then brought to a sum of one, and of what happens in a row or doesn't (a missing value, a label 0 or 1)
it is the odds p / (1 - p) that they multiply, so that nothing above one is expected. It takes 31 numbers where a table
by the hour of the week takes 168, and is as much surer. From less than two weeks nobody can tell the effect of a day
from a trend: then what is usual lies anywhere between the two, with that effect and without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from easyrec_lite.features import NumberProfile, Profile
from easyrec_lite.features.hashing import CYCLE_BUCKETS
from easyrec_lite.features.sketches import DAYS, HOURS
from easyrec_lite.streaming.drift.clock import UNTIMED
from easyrec_lite.streaming.drift.counting import edges_of
from easyrec_lite.streaming.drift.layout import NUMBER_BINS, Floats, Layout, ratio

# The standard deviation of an effect that the reference can't tell, on the log scale.
_UNKNOWN_HOUR, _UNKNOWN_DAY = 0.2, 0.05
_TREND = 0.03  # and that of a wandering stream
_FEW = 100.0  # values of an hour or a day from which on its effect is known
_CONSTANT = 0.999  # share of one bucket
_PRIOR = 2.0  # values that draw each effect to 1
_TWO_WEEKS = 13.9 * 86400.0
_SAME = 1e-6  # relative: a label whose squares have this sum is 0 or 1
_LEAST = 1e-9  # share of rows in which something doesn't happen
_SAMPLE = 8192  # rows that the quantiles of a profile were read from

Cells = Mapping[int, Floats]


class Expected(NamedTuple):
    """What is usual for a window.

    Attributes:
        counts: of each part, `[width]`.
        per_value: what the reference's own size adds to the variance, in 1 / values, `[subjects]`.
        unknown: variance of the effects of its hours and days that are not known, on the log scale, `[subjects]`.
        trend: variance of how far the stream has wandered since the reference, on the log scale, `[subjects]`.
        values: of each hour of the day and day of the week in the window, `[HOURS + DAYS + 1, subjects]`; then all.
    """

    counts: Floats
    per_value: Floats
    unknown: Floats
    trend: Floats
    values: Floats


class Usual:
    """The counts of a reference.

    Attributes:
        layout: what they are of.
        total: `[width + subjects]`, see Layout.
        squares: sum of squared weights of the values, `[subjects]`: they count less as they grow old.
        by_time: total of each hour of the day, then of each day of the week, `[HOURS + DAYS, width + subjects]`.
        cyclic: whether hours and days matter to a subject, `[subjects]`.
        sure_of_days: whether the reference spans two weeks, so that the effect of a day is no trend.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        subjects = len(layout.sizes)
        self.total = np.zeros(layout.width + subjects)
        self.squares = np.zeros(subjects)
        self.by_time = np.zeros((HOURS + DAYS, layout.width + subjects))
        self.cyclic = np.ones(subjects, np.bool_)
        self.sure_of_days = False

    def add(self, cells: Cells, chosen: npt.NDArray[np.bool_]) -> None:
        """Adds a window to the chosen subjects."""
        mask = self._mask(chosen)
        for cell, counts in cells.items():
            counts = counts * mask
            self.total += counts
            self.squares += counts[self.layout.width :]
            if cell != UNTIMED:
                self.by_time[cell % HOURS] += counts
                self.by_time[HOURS + cell // HOURS] += counts

    def constant(self) -> npt.NDArray[np.bool_]:
        """Features of ids that always had the same, `[features of ids]`."""
        layout, first = self.layout, self.layout.rates
        counts = self.total[self.total.size - len(layout.sizes) :][first : layout.first_number]
        start = int(layout.starts[first]) if len(layout.ids) else 0
        tables = self.total[start : start + CYCLE_BUCKETS * len(layout.ids)].reshape(-1, CYCLE_BUCKETS)
        return (counts > 0) & (tables.max(axis=1, initial=0.0) >= _CONSTANT * counts)

    def decay(self, factor: float, chosen: npt.NDArray[np.bool_]) -> None:
        """Makes what was seen of the chosen subjects count less."""
        factors = np.where(self._mask(chosen), factor, 1.0)
        self.total *= factors
        self.by_time *= factors
        self.squares *= factors[self.layout.width :] ** 2

    def forget(self, chosen: npt.NDArray[np.bool_]) -> None:
        """The chosen subjects are learned anew."""
        self.decay(0.0, chosen)
        self.cyclic |= chosen

    def _mask(self, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        return np.concatenate([chosen[self.layout.owner], chosen])

    def expect(self, cells: Cells, days: bool = True) -> Expected:
        """What is usual for a window with these hours of the week, and so many values in each.

        Args:
            cells: counts by the hour of the week; only the values count.
            days: whether days of the week have an effect.
        """
        layout, width, owner = self.layout, self.layout.width, self.layout.owner
        shares = ratio(self.total[:width], self.total[width:][owner])
        timed = self.by_time[:HOURS].sum(axis=0)
        usual = ratio(timed[:width], timed[width:][owner])
        effects: dict[int, Floats] = {}
        odds = self._odds()
        for row in {part for cell in cells if cell != UNTIMED for part in (cell % HOURS, HOURS + cell // HOURS)}:
            found, values = self.by_time[row, :width], self.by_time[row, width:][owner]
            effect = ratio(found + _PRIOR * usual, (values + _PRIOR) * usual)
            effect[odds] *= (1.0 - usual[odds]) / np.maximum(1.0 - effect[odds] * usual[odds], _LEAST)
            matters = (usual > 0) & self.cyclic[owner] & (days or row < HOURS)
            matters[odds] &= usual[odds] < 1
            effects[row] = np.where(matters, effect, 1.0)
        counts = np.zeros(width)
        by_time = np.zeros((HOURS + DAYS + 1, len(layout.sizes)))
        for cell, vector in cells.items():
            values = vector[width:]
            by_time[-1] += values
            if cell == UNTIMED:
                counts += shares * values[owner]
                continue
            hour, day = cell % HOURS, HOURS + cell // HOURS
            found = shares * effects[hour] * effects[day]
            found[odds] /= 1.0 - shares[odds] + found[odds]
            found[layout.starts[layout.rates] if layout.rates < len(layout.sizes) else width :] /= self._sums(found)
            counts += found * values[owner]
            by_time[hour] += values
            by_time[day] += values * days
        return Expected(counts, *self._doubt(by_time), by_time)

    def _odds(self) -> npt.NDArray[np.int64]:
        """The parts that are counts of rows in which something happens: labels that are 0 or 1, missing values."""
        labels = 2 * self.layout.rates - 2 * len(self.layout.features)
        mean, square = self.total[:labels:2], self.total[1:labels:2]
        binary = np.repeat(np.abs(square - mean) <= _SAME * square, 2)
        return np.flatnonzero(np.append(binary, np.ones(len(self.layout.features), np.bool_)))

    def join(self, one: Expected, other: Expected) -> Expected:
        """What is usual for two windows as one."""
        values = one.values + other.values
        return Expected(one.counts + other.counts, *self._doubt(values), values)

    def _sums(self, shares: Floats) -> Floats:
        """The sum of each distribution, for each of its parts; 1 where it is 0."""
        layout = self.layout
        if layout.rates == len(layout.sizes):
            return np.ones(0)
        start = layout.starts[layout.rates]
        sums = np.add.reduceat(shares[start:], layout.starts[layout.rates :] - start)
        return np.repeat(np.where(sums > 0, sums, 1.0), layout.sizes[layout.rates :])

    def _doubt(self, values: Floats) -> tuple[Floats, Floats, Floats]:
        """How unsure the expected shares are: of a window with so many values at each time."""
        sizes = self.total[self.layout.width :]
        known = self.by_time[:, self.layout.width :]
        weights = ratio(values[:-1], values[-1])
        age = np.where(sizes > 0, ratio(self.squares, sizes), 1.0)  # 1 / weight of a value
        overall = 1.0 / np.maximum(sizes, 1.0)
        seen = known >= _FEW
        one = np.where(seen, 1.0 / np.maximum(known, 1.0), overall)
        # Rows of an hour come with the rows of a day; what both have of all rows counts once.
        per_value = (weights**2 * one).sum(axis=0)
        timed = np.minimum(weights[:HOURS].sum(axis=0), 1.0)
        both = timed * np.minimum(weights[HOURS:].sum(axis=0), 1.0)
        per_value = np.maximum(per_value - both * overall, 0.0) + (1.0 - timed) ** 2 * overall
        per_value = np.where(self.cyclic, per_value, overall)
        hours = (weights[:HOURS] * ~seen[:HOURS]).sum(axis=0)
        days = (weights[HOURS:] * ~seen[HOURS:]).sum(axis=0)
        unknown = (_UNKNOWN_HOUR * hours) ** 2 + (_UNKNOWN_DAY * days) ** 2
        trend = np.where(self.cyclic, (_TREND * timed) ** 2, 0.0)
        return np.maximum(per_value, overall) * age, np.where(self.cyclic, unknown, 0.0), trend

    # ---- from a profile

    @classmethod
    def of_profile(
        cls, layout: Layout, profile: Profile
    ) -> tuple[Usual, npt.NDArray[np.bool_], list[npt.NDArray[np.float32] | None]]:
        """The reference that a profile is; which subjects it knows; and the edges of the bins of numbers."""
        usual = cls(layout)
        width = layout.width
        known = np.zeros(len(layout.sizes), np.bool_)
        edges: list[npt.NDArray[np.float32] | None] = [None] * len(layout.columns)
        rows = np.array(profile.cycle or [0] * (HOURS + DAYS), np.float64)
        for subject, (check, name) in enumerate(layout.subjects):
            start, size = int(layout.starts[subject]), int(layout.sizes[subject])
            found: tuple[Floats, float, Floats, Floats] | None
            if subject >= layout.first_number:
                place = subject - layout.first_number
                number = _number(profile, layout.columns[place])
                if number is None or not number.quantiles:
                    continue
                edges[place], shares = _bins(number)
                values = float(min(number.count, _SAMPLE))
                found = shares * values, values, np.zeros((HOURS + DAYS, size)), np.zeros(HOURS + DAYS)
                usual.cyclic[subject] = False
            else:
                found = {"label_mean": _label, "missing_rate": _missing, "distribution": _ids}[check](
                    profile, name, rows
                )
            if found is None or found[1] <= 0:
                continue
            known[subject] = True
            usual.total[start : start + size], usual.total[width + subject] = found[:2]
            usual.by_time[:, start : start + size], usual.by_time[:, width + subject] = found[2:]
        usual.squares[:] = usual.total[width:]
        if profile.first_event is not None and profile.last_event is not None:
            usual.sure_of_days = profile.last_event - profile.first_event >= _TWO_WEEKS
        return usual, known, edges


_Found = tuple[Floats, float, Floats, Floats]


def _label(profile: Profile, name: str, rows: Floats) -> _Found | None:
    label = profile.labels.get(name)
    if label is None:
        return None
    square = label.std**2 + label.mean**2
    total = np.array([label.mean, square]) * label.count
    if label.cycle is None or not profile.rows:
        return total, label.count, np.zeros((HOURS + DAYS, 2)), np.zeros(HOURS + DAYS)
    values = rows * label.count / profile.rows  # a label may have several values a row
    sums = np.array(label.cycle)
    # The squares of 0 and 1 are themselves; of other labels they are not known by time.
    squares = sums if math.isclose(square, label.mean, rel_tol=_SAME) else values * square
    return total, label.count, np.stack([sums, squares], axis=1), values


def _missing(profile: Profile, name: str, rows: Floats) -> _Found | None:
    feature = profile.features.get(name)
    if feature is None:
        return None
    by_time = np.array(feature.cycle or [0] * (HOURS + DAYS), np.float64)
    if feature.missing and not by_time.any():
        rows = by_time  # nobody knows when
    return np.array([float(feature.missing)]), float(profile.rows), by_time[:, None], rows


def _ids(profile: Profile, name: str, rows: Floats) -> _Found | None:
    feature = profile.features.get(name)
    if feature is None or feature.ids is None:
        return None
    histogram = np.array(feature.ids.histogram, np.float64).reshape(CYCLE_BUCKETS, -1).sum(axis=1)
    cycle = feature.ids.cycle
    by_time = np.zeros((HOURS + DAYS, CYCLE_BUCKETS)) if cycle is None else np.array(cycle, np.float64)
    return histogram, float(histogram.sum()), by_time, by_time.sum(axis=1)


def _number(profile: Profile, column: str) -> NumberProfile | None:
    name, part = column.rsplit("/", 1)
    feature = profile.features.get(name)
    if feature is None:
        return None
    if part == "length":
        return feature.ids.lengths if feature.ids is not None else None
    return feature.numbers[int(part)] if int(part) < len(feature.numbers) else None


def _bins(number: NumberProfile) -> tuple[npt.NDArray[np.float32], Floats]:
    """Edges of the bins of a column, and the share of each."""
    quantiles = np.array(number.quantiles, np.float32)
    edges = edges_of(quantiles)
    below = np.maximum(np.searchsorted(quantiles, edges, side="right") - 1, 0) / (len(quantiles) - 1)
    shares = np.zeros(NUMBER_BINS)
    shares[: len(edges) + 1] = np.diff(np.concatenate([[0.0], below, [1.0]]))
    return edges, shares
