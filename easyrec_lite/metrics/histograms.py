"""Metrics from histograms of the scores by class, in constant memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from easyrec_lite.metrics.metric import Accumulator, Floats, binary, checked_rows, weighted_sum


class _ByClass(Accumulator):
    """Weights of positives and negatives by score, in num_thresholds - 1 bins (i / (n - 1), (i + 1) / (n - 1)].

    Bins are open below as TensorFlow's are: at the threshold t a score counts as positive if score > t. Scores outside
    of [0, 1] go into the outermost bins.
    """

    def __init__(self, name: str, num_thresholds: int) -> None:
        if num_thresholds < 2:
            raise ValueError(f"Metric {name!r} needs at least 2 thresholds. Received: {num_thresholds}")
        self.num_thresholds = num_thresholds
        bins = np.zeros(num_thresholds - 1)
        super().__init__(
            name,
            {"positives": bins, "negatives": bins.copy(), "not_numbers": np.zeros(())},
            num_thresholds=num_thresholds,
        )

    def update(
        self, labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None, groups: Any = None
    ) -> None:
        """Adds rows; see `Metric.update`. Scores are probabilities."""
        y, p, w = checked_rows(self.name, labels, scores, weights)
        positive = binary(self.name, y)
        missing = np.isnan(p)
        if missing.any():
            self._add(not_numbers=weighted_sum(missing, w))
            p = np.where(missing, 0.0, p)
        bins = self.num_thresholds - 1
        index = np.ceil(np.clip(p.astype(np.float64), 0.0, 1.0) * bins).astype(np.int64) - 1
        index = np.maximum(index, 0)
        for key, chosen in (("positives", positive), ("negatives", ~positive)):
            self._add(**{key: np.bincount(index[chosen], None if w is None else w[chosen], minlength=bins)})

    def _counts(self) -> tuple[Floats, Floats]:
        """Positives and negatives by bin; NaN if a score was."""
        spoilt = np.nan if self._sums["not_numbers"] > 0 else 0.0
        return self._sums["positives"] + spoilt, self._sums["negatives"] + spoilt


class StreamingAUC(_ByClass):
    """Area under the ROC curve at evenly spaced thresholds, the curve's points joined by straight lines.

    Pairs whose scores share a bin count as one half. The error is at most half the share of pairs (positive, negative)
    within a bin: small at 200 thresholds for scores spread over [0, 1], large for click rates of 1 %, where nearly all
    scores share two bins; use more thresholds or the exact `AUC` there. Equal to `keras.metrics.AUC`.
    """

    def __init__(self, name: str = "auc", num_thresholds: int = 200) -> None:
        super().__init__(name, num_thresholds)

    def result(self) -> float:
        """The area; NaN without both classes."""
        positives, negatives = self._counts()
        pairs = positives.sum() * negatives.sum()
        if not pairs > 0:
            return float("nan")
        below = np.cumsum(negatives) - negatives
        return float(np.dot(positives, below + 0.5 * negatives) / pairs)


class MaxF1(_ByClass):
    """The largest F1 score over evenly spaced thresholds on probabilities; NaN without positives."""

    def __init__(self, name: str = "max_f1", num_thresholds: int = 200) -> None:
        super().__init__(name, num_thresholds)

    def result(self) -> float:
        """max over t of 2 TP / (predicted positives + positives)."""
        positives, negatives = self._counts()
        total = positives.sum()
        if not total > 0:
            return float("nan")
        true = np.cumsum(positives[::-1])
        false = np.cumsum(negatives[::-1])
        return float(np.max(2.0 * true / (true + false + total)))
