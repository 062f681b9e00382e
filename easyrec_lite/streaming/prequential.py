"""Prequential evaluation: rows are predicted before they are trained on (Dawid, 1984; Gama et al., 2013)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import tensorflow as tf

from easyrec_lite.models import Batch, BoundMetric, Recommender
from easyrec_lite.protos import stream_pb2
from easyrec_lite.streaming.scores import RunningScores, ScoredBatch, WindowScores, below, score_metrics
from easyrec_lite.training import Callback

if TYPE_CHECKING:
    from easyrec_lite.training import StepsResult, Trainer

_LOG = logging.getLogger(__name__)
KIND = "prequential"


class Recorder(Protocol):
    """Who keeps the numbers of a run, such as metrics.jsonl."""

    def record(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Keeps the values of a step; steps never go back."""


class Prequential(Callback):
    """Measures a model on rows that it has not seen, by windows of them, while it trains.

    Each `every_n_batches`-th batch is scored just before it is trained on, the others cost nothing. The metrics are
    those of an evaluation, and AUC, log loss and calibration for each binary label.

    A window of `window_rows` scored rows ends with the batch that fills it. A window of event time spans a multiple of
    `window_event_minutes` since 1970 to the next and ends before the first scored batch whose newest row is not in it;
    rows that come late belong to the window in which they are scored. At its end the recorders get

        {"rows": 10240, "window": {"from_row": 0, "to_row": 10240, "event_time": [1.7e9, 1.7e9]},
         "auc": 0.74, "logloss": 0.31, "calibration": 1.02, "running_auc": 0.73, ...}

    where rows are scored rows since the start of the run, `to_row` is the first one after the window, and `event_time`,
    if known, holds the smallest and the largest of the batches' newest times. `running_*` are those of `RunningScores`.
    A window that has not ended is kept in checkpoints and goes on when the run does; it is never recorded in part.

    Put it before its recorders in the list of callbacks: then a record of some step comes before theirs of later ones.

    Args:
        config: every_n_batches, window_rows or window_event_minutes, half_life_rows; see `streaming.check`.
        recommender: built.
        recorders: told of each window.

    Attributes:
        window: metrics of the last window that ended; empty if there was none.
        running: metrics over all rows, the older the less, as of then.
    """

    def __init__(
        self, config: stream_pb2.PrequentialConfig, recommender: Recommender, recorders: Sequence[Recorder] = ()
    ) -> None:
        self._every = config.every_n_batches
        self._window_rows = config.window_rows
        self._window_seconds = round(config.window_event_minutes * 60.0, 3)  # 0: windows are of rows
        self._recorders = tuple(recorders)
        self._config, self._model = recommender.config, recommender.model
        metrics = self._metrics()
        self._read = sorted({metric.score for metric in metrics})
        self._groups = sorted({metric.group for metric in metrics if metric.group})
        self._scored: list[ScoredBatch] = []  # not yet counted
        self._rows = self._from_row = 0
        self._times: list[float] = []  # the least and the greatest event time of the window
        self._end = -math.inf  # of the window, in event time; unknown until the first batch that has one
        self._scores = WindowScores(metrics)
        self._running = RunningScores(self._metrics(), config.half_life_rows)
        self.window: Mapping[str, float] = {}
        self.running: Mapping[str, float] = {}

    def _metrics(self) -> list[BoundMetric]:
        return score_metrics(self._config, self._model.tasks)

    def score(
        self,
        batch: Batch,
        predictions: Callable[[], dict[str, tf.Tensor]],
        step: tf.Tensor,
        event_time: tf.Tensor | None = None,
    ) -> tf.Operation:
        """An op that scores the batch, if it is its turn."""

        def look() -> tf.Tensor:
            found = self._model.evaluation_predictions(predictions(), batch.targets)
            targets = batch.targets
            arrays = (
                {name: found[name] for name in self._read},
                targets.labels,
                [] if targets.weight is None else [targets.weight],
                {name: targets.columns[name] for name in self._groups},
            )

            def remember(done: np.int64, newest: np.float64, *flat: np.ndarray) -> np.int64:
                scores, labels, weight, columns = tf.nest.pack_sequence_as(arrays, flat)
                batch = ScoredBatch(int(done) + 1, float(newest), scores, labels, next(iter(weight), None), columns)
                self._scored.append(batch)
                return np.int64(0)

            newest = tf.constant(-math.inf, tf.float64) if event_time is None else event_time
            return tf.numpy_function(remember, [step, newest, *tf.nest.flatten(arrays)], tf.int64)

        if self._every == 1:
            return look().op
        return tf.cond(step % self._every == 0, look, lambda: tf.constant(0, tf.int64)).op

    def on_move(self, trainer: Trainer) -> None:
        """See Callback. The window begins anew; the running values go on."""
        self._scores = WindowScores(self._metrics())
        self._from_row, self._times, self._end = self._rows, [], -math.inf

    def on_start(self, trainer: Trainer) -> None:
        """See Callback."""
        self._scored.clear()

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """Counts the batches that were scored, in order."""
        scored, self._scored = self._scored, []
        for batch in scored:
            self._count(batch)

    def _count(self, batch: ScoredBatch) -> None:
        known = math.isfinite(batch.event_time)
        if self._window_seconds and known and batch.event_time >= self._end:
            if math.isfinite(self._end):
                self._end_window(batch.step)
            self._end = (batch.event_time // self._window_seconds + 1.0) * self._window_seconds
        self._scores.update(batch)
        self._running.update(batch)
        self._rows += batch.rows
        if known:
            times = [*self._times, batch.event_time]
            self._times = [min(times), max(times)]
        if not self._window_seconds and self._rows - self._from_row >= self._window_rows:
            self._end_window(batch.step)

    def _end_window(self, step: int) -> None:
        """Records the window.

        Args:
            step: the step that ended it. A run that resumes there must not record it again.
        """
        self.window, self.running = self._scores.results(), self._running.results()
        window: dict[str, Any] = {"from_row": self._from_row, "to_row": self._rows}
        values = {
            "rows": self._rows - self._from_row,
            "window": window | ({"event_time": self._times} if self._times else {}),
            **self.window,
            **{f"running_{name}": value for name, value in self.running.items()},
        }
        for recorder in self._recorders:
            recorder.record(step, KIND, values)
        self._scores = WindowScores(self._metrics())
        self._from_row, self._times = self._rows, []

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """See Callback."""
        state = {
            "rows": self._rows,
            "from_row": self._from_row,
            "times": self._times,
            "end": self._end if math.isfinite(self._end) else None,
            "window": self._scores.identity,
            "running": self._running.identity,
        }
        window, running = self._scores.state(), self._running.state()
        arrays = {f"window/{key}": value for key, value in window.items()}
        return state, arrays | {f"running/{key}": value for key, value in running.items()}

    def restore(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """See Callback. With other metrics than before, window and running values start anew."""
        self._rows = self._from_row = state["rows"]
        parts: list[tuple[str, WindowScores]] = [("window", self._scores), ("running", self._running)]
        if any(state[name] != scores.identity for name, scores in parts):
            _LOG.warning(
                "prequential evaluation has other metrics than before: its windows and running values start anew"
            )
            return
        self._from_row, self._times = state["from_row"], list(state["times"])
        self._end = -math.inf if state["end"] is None else state["end"]
        for name, scores in parts:
            scores.restore(below(f"{name}/", arrays))
