"""Compares the counts of a window with what is usual: means of labels, missing values, distributions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from easyrec_lite.streaming.drift.clock import UNTIMED
from easyrec_lite.streaming.drift.layout import Floats, Layout, ratio
from easyrec_lite.streaming.drift.usual import Cells, Expected, Usual

_RARE = 5.0  # parts of a distribution expected less often are taken together
# Pairs of windows without extra spread that are taken for granted. One pair says much about a distribution, which has
# many parts, and little about a mean.
_PRIOR_OF_MEAN, _PRIOR_OF_DISTRIBUTION = 8.0, 1.0
_MEMORY = 100.0  # pairs of windows that the spread is estimated from
_OUTLIER = 4.0  # times the usual: what a pair may add to the spread at most


class Compared(NamedTuple):
    """A window against what is usual; arrays `[subjects]`.

    Attributes:
        value: mean of a label, share of rows without a value, stability index less what noise makes.
        reference: what it should be: 0 of an index.
        scale: what the change of a label is relative to; NaN of other subjects.
        sigmas: standard errors between them; of an index, the normal deviate as unlikely under noise alone.
        known: whether there is anything to compare.
    """

    value: Floats
    reference: Floats
    scale: Floats
    sigmas: Floats
    known: npt.NDArray[np.bool_]

    def of(self, subject: int) -> tuple[float, float, float, float | None]:
        """Value, reference, sigmas of a subject, and the relative distance of a mean."""
        value, reference = float(self.value[subject]), float(self.reference[subject])
        scale = float(self.scale[subject])
        distance = None if math.isnan(scale) else abs(value - reference) / scale if scale else None
        return value, reference, float(self.sigmas[subject]), distance


class Spread:
    """How much more windows vary than independent rows would, by subject: users come in sessions, and so do ids.

    Estimated from the differences of successive windows (von Neumann et al. 1941), which slow changes and steps don't
    touch; 1 at least.
    """

    def __init__(self, layout: Layout) -> None:
        subjects = len(layout.sizes)
        self._prior = np.where(np.arange(subjects) < layout.rates, _PRIOR_OF_MEAN, _PRIOR_OF_DISTRIBUTION)
        self.sum = np.zeros(subjects)
        self.pairs = np.zeros(subjects)

    @property
    def factor(self) -> Floats:
        """Of the variance."""
        return np.maximum((self.sum + self._prior) / (self.pairs + self._prior), 1.0)

    def add(self, found: Floats, chosen: npt.NDArray[np.bool_], trusted: npt.NDArray[np.bool_]) -> None:
        """Adds a pair of windows.

        Args:
            found: its variance over that of independent rows.
            chosen: subjects it counts for.
            trusted: subjects for which an outlier counts in full, because the reference is being learned.
        """
        found = np.where(trusted, found, np.minimum(found, _OUTLIER * self.factor))
        keep = np.where(chosen & (self.pairs >= _MEMORY), 1.0 - 1.0 / _MEMORY, 1.0)
        self.sum = self.sum * keep + np.where(chosen, found, 0.0)
        self.pairs = self.pairs * keep + chosen

    def forget(self, chosen: npt.NDArray[np.bool_]) -> None:
        """The chosen subjects are learned anew."""
        self.sum[chosen] = self.pairs[chosen] = 0.0


def totals(cells: Cells, layout: Layout) -> Floats:
    """The counts of a window over all its hours, `[width + subjects]`."""
    return sum(cells.values(), np.zeros(layout.width + len(layout.sizes)))


Usually = tuple[Expected, Expected]  # with effects of the days and without: the same object where these are sure


def expectations(cells: Cells, usual: Usual) -> Usually:
    """What is usual for a window."""
    one = usual.expect(cells)
    is_sure = usual.sure_of_days or all(cell == UNTIMED for cell in cells)
    return one, one if is_sure else usual.expect(cells, days=False)


def joined(one: Usually, other: Usually, usual: Usual) -> Usually:
    """What is usual for two windows as one."""
    first = usual.join(one[0], other[0])
    return first, first if one[1] is one[0] else usual.join(one[1], other[1])


def compare(found: Floats, expected: Usually, usual: Usual, spread: Spread, *, distributions: bool = True) -> Compared:
    """Compares the counts of a window, or of two as one, with the nearer of what is usual.

    Args:
        found: the counts.
        expected: what is usual.
        usual: the reference.
        spread: of windows.
        distributions: compare these too, not only the rates; else their numbers mean nothing.
    """
    one = _compare(found, expected[0], usual, spread, distributions)
    if expected[1] is expected[0]:
        return one
    other = _compare(found, expected[1], usual, spread, distributions)
    nearer = other.sigmas < one.sigmas
    return Compared(*(np.where(nearer, b, a) for a, b in zip(one, other, strict=True)))


def _compare(found: Floats, expected: Expected, usual: Usual, spread: Spread, distributions: bool) -> Compared:
    layout = usual.layout
    sizes = found[layout.width :]
    known = (sizes > 0) & (usual.total[layout.width :] > 0)
    dependence = spread.factor * _of_rows(found, layout)  # so many values say no more than one independent one
    noise = dependence * (1.0 / np.maximum(sizes, 1.0) + expected.per_value)
    value, reference, scale, sigmas = (np.zeros(len(sizes)) for _ in range(4))
    scale += np.nan
    rates, labels = layout.rates, len(layout.labels)
    if rates:
        mean, usual_mean, variance, base = _rates(found, expected.counts, layout)
        value[:rates], reference[:rates], scale[:labels] = mean, usual_mean, base
        doubt = (expected.unknown + expected.trend)[:rates] * (usual_mean * _complement(usual_mean, layout)) ** 2
        error = np.sqrt(variance * noise[:rates] + doubt)
        far = np.abs(mean - usual_mean)
        sigmas[:rates] = np.where(error > 0, ratio(far, error), np.where(far > 0, np.inf, 0.0))
    if distributions and rates < len(sizes):
        index, freedom = _indices(found, expected.counts, dependence[rates:], layout)
        freedom = np.maximum(freedom, 1.0)
        value[rates:] = np.maximum(index - freedom * noise[rates:] - expected.unknown[rates:], 0.0)
        chi_square = np.maximum(index - expected.unknown[rates:], 0.0) / noise[rates:]
        sigmas[rates:] = _deviate(chi_square, freedom)
    return Compared(value, reference, scale, sigmas, known)


def _of_rows(found: Floats, layout: Layout) -> Floats:
    """Values for each row that has some, `[subjects]`: those of one row are not independent."""
    labels, rates = len(layout.labels), layout.rates
    values = found[layout.width :]
    missing = found[layout.starts[labels] :] if layout.features else found
    rows = values[labels:rates][layout.missing_of_ids] - missing[layout.missing_of_ids]
    factors = np.ones(len(values))
    of_ids = slice(rates, layout.first_number)
    factors[of_ids] = np.maximum(values[of_ids] / np.maximum(rows, 1.0), 1.0)
    return factors


def _complement(mean: Floats, layout: Layout) -> Floats:
    """1 - p of a share; 1 of the mean of numbers."""
    return np.where((mean >= 0) & (mean <= 1), 1.0 - mean, 1.0)


def _rates(found: Floats, expected: Floats, layout: Layout) -> tuple[Floats, Floats, Floats, Floats]:
    """Means, usual means, the variance of a value, and what a relative change is relative to."""
    first, rates = len(layout.labels), layout.rates
    values = np.maximum(found[layout.width : layout.width + rates], 1.0)
    starts = layout.starts[:rates]
    mean, usual = found[starts] / values, expected[starts] / values
    variance = usual * (1.0 - usual)
    seldom = usual * values < 25.0  # then the normal distribution says little: take what was found, if that is more
    variance = np.where(seldom, np.maximum(variance, mean * (1.0 - mean)), variance)
    square, usual_square = found[starts[:first] + 1] / values[:first], expected[starts[:first] + 1] / values[:first]
    binary = np.abs(square - mean[:first]) <= 1e-9 * square
    binary &= np.abs(usual_square - usual[:first]) <= 1e-6 * usual_square
    numeric = usual_square - usual[:first] ** 2
    numeric = np.where(numeric > 1e-12 * usual_square, numeric, np.maximum(square - mean[:first] ** 2, 0.0))
    variance[:first] = np.where(binary, variance[:first], numeric)
    # A label around 0 has no relative change; a tenth of its deviation is the least that counts as its size.
    size = np.abs(usual[:first])
    base = np.where(binary, size, np.maximum(size, 0.1 * np.sqrt(numeric)))
    return mean, usual, np.maximum(variance, 0.0), base


def _indices(found: Floats, expected: Floats, dependence: Floats, layout: Layout) -> tuple[Floats, Floats]:
    """Population stability index of each distribution, and its degrees of freedom."""
    start, starts = int(layout.starts[layout.rates]), _starts(layout)
    owner = layout.owner[start:] - layout.rates
    sizes = np.maximum(found[layout.width + layout.rates :], 1.0)
    parts, usual_parts = found[start : layout.width], expected[start:]
    frequent = usual_parts >= _RARE
    terms = _terms(parts, usual_parts, sizes[owner], 0.5 * dependence[owner])
    index = np.add.reduceat(np.where(frequent, terms, 0.0), starts)
    rest, usual_rest = (np.add.reduceat(np.where(frequent, 0.0, counts), starts) for counts in (parts, usual_parts))
    index += _terms(rest, usual_rest, sizes, 0.5 * dependence)
    return index, np.add.reduceat(frequent.astype(np.float64), starts) + (usual_rest > 0) - 1.0


def _starts(layout: Layout) -> npt.NDArray[np.int64]:
    return layout.starts[layout.rates :] - layout.starts[layout.rates]


def _terms(found: Floats, expected: Floats, sizes: Floats, least: Floats | float) -> Floats:
    """(q - p) ln(q / p), where no count is less than `least`."""
    q, p = np.maximum(found, least) / sizes, np.maximum(expected, least) / sizes
    return (q - p) * np.log(q / p)


def _deviate(chi_square: Floats, freedom: Floats) -> Floats:
    """The normal deviate that is as unlikely as a value of the chi-square distribution (Wilson and Hilferty 1931)."""
    spread = 2.0 / (9.0 * freedom)
    return ((chi_square / freedom) ** (1.0 / 3.0) - (1.0 - spread)) / np.sqrt(spread)


def contributions(
    found: Floats, expected: Expected, layout: Layout, subject: int, most: int = 5
) -> list[tuple[int, float, float]]:
    """The parts of a distribution that changed most: which, their share, their usual share."""
    start, size = int(layout.starts[subject]), int(layout.sizes[subject])
    values = max(float(found[layout.width + subject]), 1.0)
    parts, usual_parts = found[start : start + size], expected.counts[start : start + size]
    terms = _terms(parts, usual_parts, np.full(size, values), 0.5)
    order = np.argsort(-terms, kind="stable")[:most]
    return [(int(p), float(parts[p] / values), float(usual_parts[p] / values)) for p in order if terms[p] > 0]


def pair_spread(
    counts: tuple[Floats, Floats], expected: tuple[Expected, Expected], layout: Layout, learning: npt.NDArray[np.bool_]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """How far two successive windows lie apart, over what independent rows would; and where that is known.

    Args:
        counts: of a window and of the next one.
        expected: what they should be; for subjects being learned the two windows themselves are it.
        layout: what they are of.
        learning: those subjects.
    """
    width, owner = layout.width, layout.owner
    sizes = [np.maximum(count[width:], 1.0) for count in counts]
    together = (counts[0] + counts[1])[:width] / (sizes[0] + sizes[1])[owner]
    shares = [
        np.where(learning[owner], together, one.counts / size[owner]) for one, size in zip(expected, sizes, strict=True)
    ]
    factors = [_of_rows(count, layout) for count in counts]
    residuals, kept = [], np.ones(width, np.bool_)
    for count, share, size, factor in zip(counts, shares, sizes, factors, strict=True):
        usual_parts = share * size[owner]
        kept &= usual_parts >= _RARE
        residuals.append((count[:width] - usual_parts) / np.sqrt(np.maximum(usual_parts, 1.0) * factor[owner]))
    squares = np.where(kept, (residuals[1] - residuals[0]) ** 2 / 2.0, 0.0)
    result = np.zeros(len(sizes[0]))
    known = (counts[0][width:] > 0) & (counts[1][width:] > 0)
    rates = layout.rates
    if rates:
        scores = []
        for count, share, size in zip(counts, shares, sizes, strict=True):
            mean, _, variance, _ = _rates(count, share * size[owner], layout)
            usual_mean = share[layout.starts[:rates]]
            scores.append(ratio(mean - usual_mean, np.sqrt(variance / size[:rates])))
        result[:rates] = (scores[1] - scores[0]) ** 2 / 2.0
    if rates < len(result):
        freedom = np.add.reduceat(kept[layout.starts[rates] :].astype(np.float64), _starts(layout)) - 1.0
        chi_square = np.add.reduceat(squares[layout.starts[rates] :], _starts(layout))
        result[rates:] = chi_square / np.maximum(freedom, 1.0)
        known[rates:] &= freedom >= 1.0
    return np.where(known, result, 0.0), known
