"""What every metric is."""

from __future__ import annotations

from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
State = dict[str, Array]


class Metric(Protocol):
    """A number over all rows seen so far, kept on the host.

    Any order and any split of the rows into updates gives the same result (up to float64 rounding), and so does
    `merge` of metrics that saw parts of the rows. A row of weight 2 counts as two rows, one of weight 0 as none. A
    metric that has no value yet (no rows, one class only) is NaN, and NaN scores make it NaN.
    """

    name: str

    def update(
        self, labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None, groups: Any = None
    ) -> None:
        """Adds rows.

        Args:
            labels: [B] true values.
            scores: [B] predictions: probabilities where the metric needs them.
            weights: [B] not negative; None: 1 each.
            groups: [B] the key (user, session) of every row, for metrics within groups; others ignore it.

        Raises:
            ValueError: shapes disagree, or a value is outside of what the metric allows.
        """

    def result(self) -> float:
        """The value over all rows so far; NaN where there is none."""

    def state(self) -> State:
        """All that was accumulated, as arrays to put into a checkpoint."""

    def restore(self, state: State) -> None:
        """Replaces what was accumulated by a `state()` of a metric of the same kind and parameters.

        Raises:
            ValueError: the state's keys or shapes are of another metric.
        """

    def merge(self, other: Self) -> None:
        """Adds what another metric of the same kind and parameters has accumulated.

        Raises:
            ValueError: the other is of another kind or has other parameters.
        """


def checked_rows(
    name: str, labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None
) -> tuple[Array, Array, Floats | None]:
    """Labels, scores and weights flattened to [B], shapes checked ([B, 1] is taken for [B])."""
    flat_labels, flat_scores = np.ravel(np.asarray(labels)), np.ravel(np.asarray(scores))
    if flat_labels.shape != flat_scores.shape:
        raise ValueError(
            f"Metric {name!r} needs one score a label. Received: labels {np.shape(labels)}, scores {np.shape(scores)}"
        )
    return flat_labels, flat_scores, checked_weights(name, weights, flat_labels.size)


def checked_weights(name: str, weights: npt.ArrayLike | None, rows: int) -> Floats | None:
    """Weights flattened to [rows]; None stays None.

    Raises:
        ValueError: there is not one weight a row, or one is negative or NaN.
    """
    if weights is None:
        return None
    flat = np.ravel(np.asarray(weights, np.float64))
    if flat.size != rows:
        raise ValueError(f"Metric {name!r} needs one weight a row. Received: {flat.size} weights for {rows} rows")
    if not np.all(flat >= 0.0):
        raise ValueError(f"Metric {name!r} needs weights of at least 0. Received: {flat[~(flat >= 0.0)][0]}")
    return flat


def binary(name: str, labels: Array) -> npt.NDArray[np.bool_]:
    """Labels as booleans.

    Raises:
        ValueError: a label is neither 0 nor 1.
    """
    positive = labels == 1
    if not np.all(positive | (labels == 0)):
        found = labels[~(positive | (labels == 0))][0]
        raise ValueError(f"Metric {name!r} needs labels 0 or 1. Received: {found!r}")
    return positive


def weighted_sum(values: Array, weights: Floats | None) -> float:
    """sum(w * v) in float64; rows of weight 0 are left out, even if they are NaN."""
    if weights is None:
        return float(values.sum(dtype=np.float64))
    counted = weights > 0
    return float(np.dot(values[counted], weights[counted]))


def total_weight(weights: Floats | None, rows: int) -> float:
    """sum(w), rows of 1 each without weights."""
    return float(rows) if weights is None else float(weights.sum())


class Accumulator:
    """A metric whose state is arrays that are added up; subclasses implement `update` and `result`.

    Attributes:
        name: what the value is logged as.
        params: what must agree for two metrics to be merged.
    """

    def __init__(self, name: str, zeros: State, **params: Any) -> None:
        self.name = name
        self.params = params
        self._sums = zeros

    def _add(self, **values: npt.ArrayLike) -> None:
        for key, value in values.items():
            self._sums[key] = np.asarray(self._sums[key] + np.asarray(value))

    def state(self) -> State:
        """Copies of the sums."""
        return {key: np.array(value) for key, value in self._sums.items()}

    def restore(self, state: State) -> None:
        """Replaces the sums; raises ValueError for a state of another metric."""
        shapes = {key: value.shape for key, value in self._sums.items()}
        found = {key: np.shape(value) for key, value in state.items()}
        if found != shapes:
            raise ValueError(f"The state is not one of metric {self.name!r}. Received: {found}, expected: {shapes}")
        self._sums = {key: np.array(value, self._sums[key].dtype) for key, value in state.items()}

    def merge(self, other: Self) -> None:
        """Adds another's sums; raises ValueError if it is of another kind."""
        check_same(self, other)
        self._add(**other._sums)


def check_same(mine: Any, other: Any) -> None:
    """Raises ValueError unless both are of one class with equal `params`."""
    if type(mine) is not type(other) or mine.params != other.params:
        raise ValueError(
            f"Only metrics of one kind and parameters can be merged. Received: {type(other).__name__}"
            f"{getattr(other, 'params', '')} into {type(mine).__name__}{mine.params}"
        )
