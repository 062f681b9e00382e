"""The metrics of scored rows: of a window, and running ones that forget."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from easyrec_lite.errors import UserError
from easyrec_lite.metrics import AUC, GAUC, StreamingAUC, build_metric
from easyrec_lite.models import BoundMetric, Task, bind_metrics
from easyrec_lite.protos import loss_pb2, pipeline_pb2

_ALWAYS = ("auc", "logloss", "calibration")


class ScoredBatch(NamedTuple):
    """A batch with the predictions made just before it was trained on; arrays `[B]` by name.

    Attributes:
        step: steps done with this one.
        event_time: the newest time of its rows, seconds since 1970; -inf if unknown.
        predictions: those that some metric reads.
        labels: by label field.
        weight: of the rows, or None.
        columns: raw columns that rows are grouped by.
    """

    step: int
    event_time: float
    predictions: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    weight: np.ndarray | None
    columns: Mapping[str, np.ndarray]

    @property
    def rows(self) -> int:
        """B."""
        return len(next(iter(self.predictions.values())))


class WindowScores:
    """Metrics over the rows of a window.

    Args:
        metrics: fresh ones; of two with one name the last counts.
    """

    def __init__(self, metrics: Iterable[BoundMetric]) -> None:
        self._metrics = {metric.name: metric for metric in metrics}

    @property
    def identity(self) -> list[str]:
        """What must be equal for a state to be taken over."""
        return [
            f"{name}: {type(bound.metric).__name__}{getattr(bound.metric, 'params', '')}"
            f" of {bound.score}, {bound.label}, {bound.group}"
            for name, bound in self._metrics.items()
        ]

    def update(self, batch: ScoredBatch) -> None:
        """Takes in a batch.

        Raises:
            UserError: a metric can't be taken of these labels.
        """
        for bound in self._metrics.values():
            self._update(bound, batch, bound.row_weight(batch.weight))

    @staticmethod
    def _update(bound: BoundMetric, batch: ScoredBatch, weight: np.ndarray | None) -> None:
        try:
            bound.update(batch.predictions, batch.labels, weight, batch.columns)
        except ValueError as error:
            raise UserError(f"Metric {bound.name} of the label {bound.label!r}: {error}") from error

    def results(self) -> dict[str, float]:
        """Values by name; NaN where there is none."""
        return {name: float(bound.metric.result()) for name, bound in self._metrics.items()}

    def state(self) -> dict[str, np.ndarray]:
        """All that was accumulated."""
        return {
            f"{name}/{key}": value
            for name, bound in self._metrics.items()
            for key, value in bound.metric.state().items()
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Replaces what was accumulated by a `state` of the same identity."""
        for name, bound in self._metrics.items():
            bound.metric.restore(below(f"{name}/", arrays))


class RunningScores(WindowScores):
    """Metrics over all rows so far, of which the older ones count less.

    Before a batch of B rows is added, what was there is multiplied by 2^(-B / half_life); the rows of one batch are of
    one age. That is exact for all metrics that are ratios of sums. GAUC needs the rows and has no running value; the
    area under the ROC curve is that of `LogOddsAUC`. Rows whose score is NaN are left out: they would never be
    forgotten.

    Args:
        metrics: fresh ones.
        half_life: rows after which a row counts half.
    """

    def __init__(self, metrics: Iterable[BoundMetric], half_life: float) -> None:
        super().__init__(filter(None, map(_running_form, metrics)))
        self._half_life = half_life

    def update(self, batch: ScoredBatch) -> None:
        """See WindowScores."""
        factor = 0.5 ** (batch.rows / self._half_life)
        for bound in self._metrics.values():
            sums = bound.metric.state()
            bound.metric.restore({key: np.asarray(value * factor) for key, value in sums.items()})
            weight, missing = bound.row_weight(batch.weight), np.isnan(batch.predictions[bound.score])
            if missing.any():
                weight = np.where(missing, 0.0, 1.0 if weight is None else weight)
            self._update(bound, batch, weight)


class LogOddsAUC(StreamingAUC):
    """Area under the ROC curve from histograms by class, in 4,096 even bins of log(p / (1 - p)) from -16 to 16.

    Even bins of the probability are too coarse where clicks are rare; those of the log-odds are 0.8 % of p wide there.
    Pairs that share a bin count one half, so the error is at most half their share among the pairs of a positive and a
    negative row: 0.0011 if the log-odds are normal with deviation 1, and inversely so for others. In practice it is far
    smaller, since within a bin classes are nearly as mixed as one half says.
    """

    BINS, LIMIT = 4096, 16.0

    def __init__(self, name: str = "auc") -> None:
        super().__init__(name, num_thresholds=self.BINS + 1)

    def update(
        self, labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None, groups: Any = None
    ) -> None:
        """Adds rows; scores are probabilities, others make the result NaN."""
        p = np.asarray(scores, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):  # 0 and 1 go into the outermost bins
            log_odds = np.log(p) - np.log1p(-p)
        super().update(labels, 0.5 + log_odds / (2.0 * self.LIMIT), weights)


def score_metrics(config: pipeline_pb2.EasyRecConfig, tasks: Sequence[Task]) -> list[BoundMetric]:
    """Fresh metrics of an evaluation, and AUC, log loss and calibration for each task with a binary label."""
    metrics = bind_metrics(config, tasks)
    names = {metric.name for metric in metrics}
    for task in tasks:
        if task.loss_type == loss_pb2.CLASSIFICATION:
            always = [
                BoundMetric(task.key(kind), build_metric(kind), task.score, task.label, weighted=task.use_sample_weight)
                for kind in _ALWAYS
            ]
            metrics += [metric for metric in always if metric.name not in names]
    return metrics


def _running_form(bound: BoundMetric) -> BoundMetric | None:
    if isinstance(bound.metric, GAUC):
        return None
    return dataclasses.replace(bound, metric=LogOddsAUC()) if isinstance(bound.metric, AUC) else bound


def below(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays whose names begin with `prefix`, by the rest of their names."""
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
