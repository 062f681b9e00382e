"""How far the stream has lately been from what is usual: streams wander, and a drift is a jump from there too."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from easyrec_lite.streaming.drift.layout import Floats, Layout, ratio
from easyrec_lite.streaming.drift.usual import Expected

_DECAY = 0.9  # of what a window counts, by the next one: about the last ten, half of it the last seven
_FEWEST = 4.0  # windows
_UNSURE = 0.01  # variance, on the log scale


class Recent:
    """Labels and missing values of the last windows, and what they should have been.

    Every subject has a factor between the two; one for expectations with effects of the days, one for those without.

    Attributes:
        found: sums of the last windows, `[rates]`.
        expected: what they should have been, `[2, rates]`.
        values: how many values these are of, `[rates]`; `squares` with squared weights.
        windows: sum of the weights, `[rates]`.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        rates = layout.rates
        self.found = np.zeros(rates)
        self.expected = np.zeros((2, rates))
        self.values = np.zeros(rates)
        self.squares = np.zeros(rates)
        self.windows = np.zeros(rates)

    def add(self, found: Floats, expected: tuple[Expected, Expected], chosen: npt.NDArray[np.bool_]) -> None:
        """Adds a window to the chosen subjects.

        Args:
            found: its counts.
            expected: what they should be, with effects of the days and without.
            chosen: `[subjects]`.
        """
        rates, starts = self._layout.rates, self._layout.starts[: self._layout.rates]
        # Where the hours are not known, nobody can tell how far that is from what is usual.
        chosen = chosen[:rates] & (expected[0].unknown[:rates] < _UNSURE)
        values = found[self._layout.width : self._layout.width + rates]
        decay, new = np.where(chosen, _DECAY, 1.0), chosen.astype(np.float64)
        self.found = self.found * decay + found[starts] * new
        self.expected = self.expected * decay + np.stack([one.counts[starts] for one in expected]) * new
        self.values = self.values * decay + values * new
        self.squares = self.squares * decay**2 + values * new
        self.windows = self.windows * decay + new

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Where there were enough windows, `[rates]`."""
        return (self.windows >= _FEWEST) & (self.expected > 0).all(axis=0) & (self.found > 0)

    def adjusted(self, expected: tuple[Expected, Expected]) -> tuple[Expected, Expected]:
        """What is to be expected, with effects of the days and without, if the stream goes on as lately."""
        one = self._adjust(expected[0], 0)
        return one, one if expected[1] is expected[0] else self._adjust(expected[1], 1)

    def _adjust(self, expected: Expected, which: int) -> Expected:
        rates = self._layout.rates
        known = self.known
        factors = np.where(known, ratio(self.found, self.expected[which]), 1.0)
        counts, per_value = expected.counts.copy(), expected.per_value.copy()
        parts = int(self._layout.sizes[:rates].sum())  # those of rates come first
        counts[:parts] *= factors[self._layout.owner[:parts]]
        per_value[:rates] += np.where(known, ratio(self.squares, self.values**2), 0.0)
        return expected._replace(counts=counts, per_value=per_value, trend=np.zeros_like(expected.trend))

    def forget(self, chosen: npt.NDArray[np.bool_]) -> None:
        """The chosen subjects are learned anew."""
        chosen = chosen[: self._layout.rates]
        for array in (self.found, self.values, self.squares, self.windows, *self.expected):
            array[chosen] = 0.0

    def array(self) -> Floats:
        """The state."""
        return np.stack([self.found, *self.expected, self.values, self.squares, self.windows])

    def restore(self, array: Floats) -> None:
        """Takes back what `array` gave."""
        self.found, *expected, self.values, self.squares, self.windows = (np.array(row) for row in array)
        self.expected = np.stack(expected)
