"""Levels of single numbers that only the stream itself can tell: shares of partitions, duplicates, AUC, ..."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

_MEMORY = 100.0  # pairs of windows that the spread is estimated from
_OUTLIER = 4.0  # times the usual: what a pair may add to the spread at most


@dataclass(frozen=True)
class Kind:
    """How a number behaves.

    Attributes:
        share: a share of so many things; otherwise any number.
        deviation: of a number that is no share, between windows, before more is known.
        prior: pairs of windows that this is worth; for a share, pairs without spread beyond chance.
        least: times the variance of `deviation`, or of chance, that the variance is at least.
        rises: a reference that follows the level upwards, because what is learned makes it better.
        fixed: the reference, where it needs not be learned.
        spread: whether windows may vary more than chance.
    """

    share: bool = True
    deviation: float = 0.0
    prior: float = 8.0
    least: float = 1.0
    rises: bool = False
    fixed: float | None = None
    spread: bool = True


@dataclass(frozen=True)
class Sample:
    """A number of a window.

    Attributes:
        value: it.
        size: of how many things it is a share; 1 of other numbers.
    """

    value: float
    size: float = 1.0


@dataclass
class Level:
    """The usual level of one number, learned from windows.

    Attributes:
        kind: how it behaves.
        left: windows that it is still to be learned from.
        weight: of the windows seen: their sizes, the older the less where the past decays.
        total: their values times that.
        squares: sum of the squared weights times 1 / size.
        spread: sum over pairs of successive windows of their squared distance over that of chance.
        pairs: how many.
        recent: an average of the last ten windows or so; None if there was none.
        before: the last window, unless it was breached.
    """

    kind: Kind
    left: int
    weight: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    spread: float = 0.0
    pairs: float = 0.0
    recent: float | None = None
    before: Sample | None = None
    high: float = -math.inf

    @property
    def ready(self) -> bool:
        """Whether there is a reference."""
        return self.left <= 0 and (self.kind.fixed is not None or self.weight > 0)

    @property
    def _fixed(self) -> float | None:
        """The reference that needs not be learned, until another is accepted and learned."""
        return None if self.weight else self.kind.fixed

    @property
    def reference(self) -> float:
        """The usual level."""
        if (fixed := self._fixed) is not None:
            return fixed
        level = self.total / self.weight
        return max(level, self.high) if self.kind.rises else level

    def sigmas(self, found: Sample, doubt: float = 0.0) -> float:
        """Standard errors between a window and the usual level; `doubt` comes on top of that of windows."""
        usual = self.reference
        own = self._chance(usual, found) / found.size
        past = self._chance(usual, found) * self.squares / self.weight**2 if self.weight else 0.0
        error = math.sqrt(max(own + past, 0.0) * self._factor() + doubt**2)
        distance = abs(found.value - usual)
        return distance / error if error else (math.inf if distance else 0.0)

    def _chance(self, usual: float, found: Sample) -> float:
        """The variance of one thing."""
        if not self.kind.share:
            return self.kind.deviation**2
        variance = usual * (1.0 - usual)
        if usual * found.size < 25.0:
            variance = max(variance, found.value * (1.0 - found.value))
        return max(variance, 0.0)

    def _factor(self) -> float:
        if not self.kind.spread:
            return 1.0
        return max((self.spread + self.kind.prior) / (self.pairs + self.kind.prior), self.kind.least)

    def pooled(self, found: Sample) -> Sample | None:
        """This window and the last as one, unless the last was breached."""
        before = self.before
        if before is None:
            return None
        size = before.size + found.size
        return Sample((before.value * before.size + found.value * found.size) / size, size)

    def add(self, found: Sample, half_life: float, learn: bool = True) -> None:
        """Adds a window that was not breached.

        Args:
            found: its number.
            half_life: windows after which one counts half; 0 for a reference that is learned once.
            learn: whether it may enter the reference.
        """
        self._add_spread(found)
        if learn and (self.left > 0 or (half_life and self._fixed is None)):
            factor = 0.5 ** (1.0 / half_life) if half_life else 1.0
            # Windows of few things say less, and no window says all.
            self.weight = self.weight * factor + found.size
            self.total = self.total * factor + found.value * found.size
            self.squares = self.squares * factor**2 + found.size
        if learn:
            self.left = max(self.left - 1, 0)
            self.recent = found.value if self.recent is None else self.recent + (found.value - self.recent) / 10.0
            if self.kind.rises and not half_life and not self.left:
                self.high = max(self.high, self.recent)
        self.before = found

    def _add_spread(self, found: Sample) -> None:
        if self.before is None:
            return
        usual = self.reference if self.weight or self.kind.fixed is not None else (self.before.value + found.value) / 2
        chance = self._chance(usual, found) * (1.0 / found.size + 1.0 / self.before.size)
        if chance <= 0:
            return
        ratio = (found.value - self.before.value) ** 2 / chance
        if self.left <= 0:
            ratio = min(ratio, _OUTLIER * self._factor())
        keep = 1.0 - 1.0 / _MEMORY if self.pairs >= _MEMORY else 1.0
        self.spread, self.pairs = self.spread * keep + ratio, self.pairs * keep + 1.0

    def skip(self) -> None:
        """The window says nothing of what is usual."""
        self.before = None

    def state(self) -> dict[str, object]:
        """All but the kind, for a checkpoint."""
        state = dataclasses.asdict(self)
        del state["kind"]
        state["high"] = None if math.isinf(self.high) else self.high
        return state

    @classmethod
    def restore(cls, kind: Kind, state: dict[str, object]) -> Level:
        """The level whose `state` this is."""
        values = dict(state)
        values["high"] = -math.inf if values["high"] is None else values["high"]
        before = values.pop("before")
        return cls(kind, **values, before=None if before is None else Sample(**before))  # type: ignore[arg-type]
