"""Metrics that are means over rows, in constant memory."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
import numpy.typing as npt

from easyrec_lite.metrics.metric import (
    Accumulator,
    Array,
    Floats,
    binary,
    checked_rows,
    checked_weights,
    total_weight,
    weighted_sum,
)


class _Mean(Accumulator, abc.ABC):
    """The weighted mean of a value a row."""

    def __init__(self, name: str, **params: Any) -> None:
        super().__init__(name, {"total": np.zeros(()), "weight": np.zeros(())}, **params)

    def update(
        self, labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None, groups: Any = None
    ) -> None:
        """Adds rows; see `Metric.update`."""
        y, p, w = checked_rows(self.name, labels, scores, weights)
        self._add_rows(self.values(y, p), w)

    def _add_rows(self, values: Floats, weights: Floats | None) -> None:
        self._add(total=weighted_sum(values, weights), weight=total_weight(weights, values.size))

    @abc.abstractmethod
    def values(self, labels: Array, scores: Array) -> Floats:
        """[B], [B] -> [B] float64."""

    def result(self) -> float:
        """The mean so far."""
        weight = float(self._sums["weight"])
        return float(self._sums["total"]) / weight if weight > 0 else float("nan")


class LogLoss(_Mean):
    """Mean of -(y log p + (1 - y) log(1 - p)); scores are probabilities, cut to [epsilon, 1 - epsilon]."""

    def __init__(self, name: str = "logloss", epsilon: float = 1e-7) -> None:
        super().__init__(name, epsilon=epsilon)
        self.epsilon = epsilon

    def values(self, labels: Array, scores: Array) -> Floats:
        """Cross entropies; raises ValueError for labels other than 0 and 1."""
        p = np.clip(scores.astype(np.float64), self.epsilon, 1.0 - self.epsilon)
        return -np.log(np.where(binary(self.name, labels), p, 1.0 - p))


class MeanAbsoluteError(_Mean):
    """Mean of |y - score|."""

    def __init__(self, name: str = "mean_absolute_error") -> None:
        super().__init__(name)

    def values(self, labels: Array, scores: Array) -> Floats:
        """Absolute errors."""
        return np.abs(labels.astype(np.float64) - scores)


class MeanSquaredError(_Mean):
    """Mean of (y - score)^2."""

    def __init__(self, name: str = "mean_squared_error") -> None:
        super().__init__(name)

    def values(self, labels: Array, scores: Array) -> Floats:
        """Squared errors."""
        return np.square(labels.astype(np.float64) - scores)


class RootMeanSquaredError(MeanSquaredError):
    """Square root of the mean of (y - score)^2."""

    def __init__(self, name: str = "root_mean_squared_error") -> None:
        super().__init__(name)

    def result(self) -> float:
        """The root so far."""
        return float(np.sqrt(super().result()))


class Accuracy(_Mean):
    """Share of rows whose class is right.

    Scores [B] are probabilities of class 1, taken as 1 above the threshold; scores [B, C] are by class, labels the
    class indices, and the largest score (the first among equals) counts.
    """

    def __init__(self, name: str = "accuracy", threshold: float = 0.5) -> None:
        super().__init__(name, threshold=threshold)
        self.threshold = threshold

    def update(
        self, labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None, groups: Any = None
    ) -> None:
        """Adds rows; scores [B] or [B, C]."""
        by_class = np.asarray(scores)
        if by_class.ndim < 2 or by_class.shape[1] == 1:
            return super().update(labels, scores, weights)
        classes = np.ravel(np.asarray(labels))
        if classes.size != by_class.shape[0]:
            raise ValueError(
                f"Metric {self.name!r} needs a row of scores a label. "
                f"Received: labels {classes.shape}, scores {by_class.shape}"
            )
        right = (by_class.argmax(axis=1) == classes).astype(np.float64)
        right[np.isnan(by_class).any(axis=1)] = np.nan
        return self._add_rows(right, checked_weights(self.name, weights, classes.size))

    def values(self, labels: Array, scores: Array) -> Floats:
        """1 where right, 0 where wrong, NaN where there is no score."""
        right = (scores > self.threshold) == binary(self.name, labels)
        return np.where(np.isnan(scores), np.nan, right)


class Calibration(Accumulator):
    """Mean prediction over mean label: 1 is calibrated, above 1 predicts too much; NaN without any positive label."""

    def __init__(self, name: str = "calibration") -> None:
        super().__init__(name, {"predicted": np.zeros(()), "labelled": np.zeros(())})

    def update(
        self, labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None, groups: Any = None
    ) -> None:
        """Adds rows; see `Metric.update`."""
        y, p, w = checked_rows(self.name, labels, scores, weights)
        self._add(predicted=weighted_sum(p, w), labelled=weighted_sum(y, w))

    def result(self) -> float:
        """The ratio so far."""
        labelled = float(self._sums["labelled"])
        return float(self._sums["predicted"]) / labelled if labelled != 0 else float("nan")
