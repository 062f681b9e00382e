"""The training loop: steps, checkpoints, evaluation, and whoever wants to know of them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from easyrec_lite.checkpoints import Checkpoint, CheckpointError, Files, clean_up, environment, latest, prune, save
from easyrec_lite.inputs import Details, InputError
from easyrec_lite.inputs.convert import TIMES_END
from easyrec_lite.models import Recommender
from easyrec_lite.training.callbacks import Callback
from easyrec_lite.training.state import training_tensors
from easyrec_lite.training.step import Element, Stepper, StepsResult, Until


@dataclass
class FitResult:
    """How a training run ended.

    Attributes:
        step: steps done in all.
        metrics: of the last evaluation, by name.
        checkpoint: the last one.
        stopped_by: why it ended: `num_steps`, `end of data` or a callback's reason.
        rows: rows trained by this process.
        seconds: wall time of this process's training, evaluations included.
    """

    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    stopped_by: str = ""
    rows: int = 0
    seconds: float = 0.0


class Trainer:
    """Trains a recommender on a stream of rows and resumes at the exact row.

    Args:
        recommender: built with `training=True`.
        dataset: `dataset(position)` gives `(columns, position, details)` from a position (JSON) on, or from the start
            (None); see `inputs.as_dataset`.
        model_dir: checkpoints go below it.
        evaluate: metrics by name of the model as it stands; called at each checkpoint.
        callbacks: told of everything, in this order.
        config_text: the completed config, kept in each checkpoint.
        prefetch: batches made ahead of the step.
        columns: how each column is read, kept in the checkpoints for exports.
        files: file operations; tests hand in their own.
    """

    def __init__(
        self,
        recommender: Recommender,
        dataset: Callable[[str | None], tf.data.Dataset],
        model_dir: Path,
        *,
        evaluate: Callable[[], dict[str, float]] | None = None,
        callbacks: Sequence[Callback] = (),
        config_text: str = "",
        prefetch: int = 4,
        columns: Mapping[str, Mapping[str, Any]] | None = None,
        files: Files | None = None,
    ) -> None:
        self.recommender = recommender
        self.model_dir = Path(model_dir)
        self.config = recommender.config.train_config
        self.stepper = Stepper(recommender, [callback.score for callback in callbacks])
        self.step = 0  # the stepper's: callbacks ask for it often, and a variable takes a tenth of a millisecond
        self.position: str | None = None
        self.rows = 0  # trained since step 0
        self.event_time = -math.inf  # the newest of the rows trained
        self.checkpoint: Checkpoint | None = None  # the newest: restored or written
        self._dataset = dataset
        self._evaluate = evaluate
        self._callbacks = list(callbacks)
        self._config_text = config_text
        self._prefetch = prefetch
        self._columns = {name: dict(column) for name, column in (columns or {}).items()}
        self._files = files

    def resume(self) -> Checkpoint | None:
        """Goes back to the newest checkpoint of `model_dir`, if there is one; returns it."""
        clean_up(self.model_dir, self._files)
        checkpoint = latest(self.model_dir)
        if checkpoint is not None:
            self.restore(checkpoint)
        return checkpoint

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes over everything that a checkpoint holds."""
        checkpoint.restore(training_tensors(self.stepper))
        state = checkpoint.state
        if "position" not in state:
            raise CheckpointError(f"{checkpoint} holds no position in the data: it was not written by training.")
        self.step = int(self.stepper.step.numpy())
        self.position = state["position"]
        self.rows = state.get("rows", 0)
        self.event_time = state.get("event_time", -math.inf)
        self.checkpoint = checkpoint
        arrays = checkpoint.arrays()
        for callback in self._callbacks:
            name = type(callback).__name__
            if name not in state["callbacks"]:
                continue  # a callback that the run before did not have
            own = {key.split("/", 1)[1]: value for key, value in arrays.items() if key.startswith(f"{name}/")}
            callback.restore(state["callbacks"][name], own)

    def move(self, position: str) -> None:
        """Goes on at another position of the data, weights as they are; a checkpoint at the next step holds it.

        The step before stays what it was: a checkpoint is never written over.
        """
        for callback in self._callbacks:
            callback.on_move(self)
        self.step = int(self.stepper.step.assign_add(1).numpy())
        self.position = position
        self.checkpoint = self._write()

    def fit(self) -> FitResult:
        """Trains until `num_steps`, the end of the data or a callback's wish; returns how it ended.

        Each multiple of `save_checkpoints_steps`, `_rows` or `_event_minutes`, and the end, is evaluated and saved.
        Checkpoints by seconds are not evaluated: what follows from an evaluation must not depend on the clock.

        Raises:
            InputError: the data does not make a single batch.
            DriftAlarm: a callback found that what was trained on last must be taken back.
        """
        try:
            return self._fit()
        finally:
            for callback in self._callbacks:
                callback.close()

    def _fit(self) -> FitResult:
        restored = self.checkpoint
        result = FitResult(step=self.step, checkpoint=restored, metrics=restored.metrics if restored else {})
        evaluated_step = restored.step if restored and restored.state.get("evaluated", True) else -1
        started = saved_at = time.monotonic()
        for callback in self._callbacks:
            callback.on_start(self)
        if restored is None and self._wants_checkpoint():
            self._save()
        iterator = iter(self._batches())
        limit = self.config.num_steps or None
        while not (reason := self._stop_reason(limit)):
            before = self._periods()
            done = self.stepper.run(iterator, self._until(limit))
            self._count(done)
            result.rows += done.rows
            for callback in self._callbacks:
                callback.on_steps(self, done)
            if not done.more:
                reason = "end of data"
                break
            if done.steps and self._is_due(before):
                result.metrics = self._evaluation()
                evaluated_step = self.step
                self._save(result.metrics)
                saved_at = time.monotonic()
            elif self._is_overdue(saved_at):
                if self.checkpoint is None or self.checkpoint.step != self.step:
                    self._save()
                saved_at = time.monotonic()
        if not self.step:
            place = self.recommender.config.WhichOneof("train_path") or "train_input_path"
            raise InputError(place, "no batch of rows", "at least one", "see data_config.drop_remainder")
        if evaluated_step != self.step:
            result.metrics = self._evaluation()
            if self.checkpoint is None or self.checkpoint.step != self.step:
                self._save(result.metrics)
        result.stopped_by, result.step, result.checkpoint = reason, self.step, self.checkpoint
        result.seconds = time.monotonic() - started
        for callback in self._callbacks:
            callback.on_end(self, result.metrics)
        return result

    def _count(self, done: StepsResult) -> None:
        if done.position:
            self.position = done.position
        self.step += done.steps
        self.rows += done.rows
        self.event_time = max(self.event_time, done.event_time)

    def _batches(self) -> tf.data.Dataset:
        recommender = self.recommender
        first = recommender.labels.columns[0] if recommender.labels.columns else recommender.feature_columns[0]
        time_column = recommender.config.data_config.event_time_field

        def prepare(
            columns: dict[str, tf.Tensor], position: tf.Tensor, details: Details
        ) -> tuple[Element, tuple[Any, ...]]:
            column = columns[first]
            rows = column.nrows() if isinstance(column, tf.RaggedTensor) else tf.shape(column, tf.int64)[0]
            newest = tf.cast(tf.reduce_max(columns[time_column]), tf.float64) if time_column else details.event_time
            # Not NaN, nor what a message's own timestamp may be in a wrong unit.
            newest = tf.where(newest < TIMES_END, newest, tf.constant(-math.inf, tf.float64))
            encoded = recommender.encode_features(columns)
            element = Element(recommender.assemble(encoded, columns), position, rows, newest)
            return element, (encoded, columns, details.missing)

        def observe(element: Element, more: tuple[Any, ...]) -> Element:
            encoded, columns, missing = more

            def look() -> tf.Tensor:
                labels = element.batch.targets.labels
                seen = (encoded, labels, columns, missing, element.event_time, element.position)
                watched = [callback.observe(*seen) for callback in self._callbacks]
                with tf.control_dependencies([op for op in watched if op is not None]):
                    return tf.identity(element.rows)

            # A batch without rows is not trained on.
            return element._replace(rows=tf.cond(element.rows > 0, look, lambda: element.rows))

        # Converting Python's control flow, of which there is none here, would take seconds.
        plain = tf.autograph.experimental.do_not_convert
        dataset = self._dataset(self.position).map(plain(prepare))
        return dataset.map(plain(observe)).prefetch(self._prefetch)  # one batch after the other: in order

    def _until(self, limit: int | None) -> Until:
        """The next thing to be done between steps: each is due at its own multiples."""
        config, step = self.config, self.step
        intervals = [config.log_step_count_steps, config.save_checkpoints_steps, config.save_summary_steps]
        intervals += [config.steps_per_call]
        stops = [(step // interval + 1) * interval for interval in intervals if interval]
        stops += [limit] if limit is not None else []
        until = Until(steps=min(stops) - step) if stops else Until()
        if config.steps_per_call:
            until = until._replace(seconds=math.inf)
        if every := config.save_checkpoints_rows:
            until = until._replace(rows=every - self.rows % every)
        if span := config.save_checkpoints_event_minutes * 60:
            # The first step says when the events happen.
            known = math.isfinite(self.event_time)
            end = {"event_time": (self.event_time // span + 1) * span} if known else {"steps": 1}
            until = until._replace(**end)
        wishes = [until, *(callback.until(self) for callback in self._callbacks)]
        return until._replace(
            steps=min(wish.steps for wish in wishes),
            rows=min(wish.rows for wish in wishes),
            event_time=min(wish.event_time for wish in wishes),
        )

    def _periods(self) -> list[float]:
        """The number of the period between checkpoints that training is in, by steps, rows and event time."""
        config = self.config
        lengths = (
            config.save_checkpoints_steps,
            config.save_checkpoints_rows,
            config.save_checkpoints_event_minutes * 60,
        )
        now = self.step, self.rows, self.event_time
        return [
            value // length if length and math.isfinite(value) else math.nan
            for value, length in zip(now, lengths, strict=True)
        ]

    def _is_due(self, before: list[float]) -> bool:
        """Whether a checkpoint is due: another period has begun since."""
        return any(now > then for now, then in zip(self._periods(), before, strict=True))

    def _is_overdue(self, saved_at: float) -> bool:
        """Whether a checkpoint is wanted between those that are evaluated: by the clock or by a callback."""
        seconds = self.config.save_checkpoints_secs
        if seconds and time.monotonic() - saved_at >= seconds:
            return True
        return self._wants_checkpoint()

    def _wants_checkpoint(self) -> bool:
        return any(callback.wants_checkpoint() for callback in self._callbacks)

    def _stop_reason(self, limit: int | None) -> str:
        """Why not to go on; asked before each call, so that a run which had ended when it was killed ends again."""
        if limit is not None and self.step >= limit:
            return "num_steps"
        return next((reason for reason in (callback.stop_reason() for callback in self._callbacks) if reason), "")

    def _evaluation(self) -> dict[str, float]:
        metrics = self._evaluate() if self._evaluate is not None else {}
        for callback in self._callbacks:
            callback.on_evaluation(self, metrics)
        return metrics

    def _save(self, metrics: Mapping[str, float] | None = None) -> None:
        """Writes everything down, and tells of it; see `_write`."""
        self.checkpoint = self._write(metrics)
        for callback in self._callbacks:
            callback.on_checkpoint(self, self.checkpoint)

    def _write(self, metrics: Mapping[str, float] | None = None) -> Checkpoint:
        """Writes a checkpoint.

        Args:
            metrics: of the evaluation at this step; None where there was none.
        """
        arrays: dict[str, np.ndarray] = {}
        state: dict[str, Any] = {"position": self.position, "columns": self._columns, "callbacks": {}}
        state |= {"rows": self.rows} | ({"event_time": self.event_time} if math.isfinite(self.event_time) else {})
        state["evaluated"] = metrics is not None
        for callback in self._callbacks:
            name = type(callback).__name__
            own_state, own_arrays = callback.state()
            state["callbacks"][name] = own_state
            arrays.update({f"{name}/{key}": value for key, value in own_arrays.items()})
        checkpoint = save(
            self.model_dir,
            self.step,
            training_tensors(self.stepper),
            state=state,
            arrays=arrays,
            metrics=metrics,
            config=self._config_text,
            environment=training_environment(),
            files=self._files,
        )
        protected = {kept for callback in self._callbacks for kept in callback.protected_steps()}
        prune(self.model_dir, self.config.keep_checkpoint_max, protected, self._files)
        return checkpoint


def training_environment() -> dict[str, Any]:
    """What decides the bits besides config and rows, thread counts included; kept in the checkpoints."""
    threading = tf.config.threading
    counts = {
        "inter_op": threading.get_inter_op_parallelism_threads() or os.environ.get("TF_NUM_INTEROP_THREADS", 0),
        "intra_op": threading.get_intra_op_parallelism_threads() or os.environ.get("TF_NUM_INTRAOP_THREADS", 0),
    }
    return environment({name: int(count) for name, count in counts.items()})
