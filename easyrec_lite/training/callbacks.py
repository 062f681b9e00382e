"""Who is told of what happens in training."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from easyrec_lite.checkpoints import Checkpoint, Files, Journal
from easyrec_lite.features import Columns, Encoded
from easyrec_lite.training.step import StepsResult, Until

if TYPE_CHECKING:
    from easyrec_lite.models import Batch
    from easyrec_lite.training.loop import Trainer


class Callback:
    """Base of those who follow a training run; every method may be left as it is.

    Order of calls: `restore` (only when resuming), `on_move` (only when the run jumps in the data), `on_start`,
    `wants_checkpoint` (only without any checkpoint); then `stop_reason`, `until`, `on_steps` and `wants_checkpoint` for
    every few steps, at each evaluation `on_evaluation`, at each checkpoint `state` and `on_checkpoint`; at last
    `on_end`, unless training failed, and `close`.
    """

    def observe(
        self,
        encoded: Mapping[str, Encoded],
        labels: Mapping[str, tf.Tensor],
        columns: Columns,
        missing: Mapping[str, tf.Tensor],
        newest: tf.Tensor,
        position: tf.Tensor,
    ) -> tf.Operation | None:
        """An op that looks at each batch in the input pipeline, ahead of training; called once, to build the graph.

        Args:
            encoded: features by name.
            labels: by name.
            columns: raw columns by name.
            missing: how many of their cells were missing, int64 scalars.
            newest: the newest time of the rows, seconds since 1970, float64 scalar; -inf if unknown.
            position: the next row to read after the batch, JSON.
        """
        return None

    def score(
        self,
        batch: Batch,
        predictions: Callable[[], dict[str, tf.Tensor]],
        step: tf.Tensor,
        event_time: tf.Tensor | None = None,
    ) -> tf.Operation | None:
        """An op that looks at each batch just before it is trained on; called once, to build the graph of the step.

        Args:
            batch: the batch.
            predictions: gives the inference's predictions by the weights as they are before the step.
            step: number of steps done before this one, int64 scalar.
            event_time: the newest time of the rows, seconds since 1970, float64 scalar; -inf if unknown.
        """
        return None

    def on_move(self, trainer: Trainer) -> None:
        """The next step is to be done elsewhere in the data: what belongs to rows not read to their end is void."""

    def on_start(self, trainer: Trainer) -> None:
        """Training begins or goes on."""

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """Some steps were done; none, where a stream had no rows for a while."""

    def until(self, trainer: Trainer) -> Until:
        """Where the next call of the graph must end at the latest, for `on_steps` to be told there; not `seconds`."""
        return Until()

    def wants_checkpoint(self) -> bool:
        """Whether to write a checkpoint now, without an evaluation."""
        return False

    def on_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """The model was evaluated; `metrics` is empty where the config has no evaluation data."""

    def on_checkpoint(self, trainer: Trainer, checkpoint: Checkpoint) -> None:
        """A checkpoint was written."""

    def on_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Training ended, as planned or by a wish to stop; not called when it fails."""

    def close(self) -> None:
        """Training is over, well or not: gives back threads, files and ports; may be called again."""

    def stop_reason(self) -> str:
        """Why training should stop now; '' = it should not."""
        return ""

    def protected_steps(self) -> Collection[int]:
        """Steps whose checkpoints must be kept whatever `keep_checkpoint_max` says."""
        return ()

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What a resumed run needs: JSON-able values, and arrays by name."""
        return {}, {}

    def restore(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back what `state` gave."""


class BestMetric(Callback):
    """Remembers the best evaluation; protects its checkpoint; stops when it is not beaten for too long.

    Args:
        metric: name of the metric.
        bigger: whether bigger is better.
        patience_steps: stop after this many steps without a better evaluation; 0 = never.

    Attributes:
        best: the best value so far, or None.
        best_step: the step of it.
    """

    def __init__(self, metric: str, bigger: bool, patience_steps: int = 0) -> None:
        self.metric = metric
        self.best: float | None = None
        self.best_step = 0
        self._bigger = bigger
        self._patience = patience_steps
        self._step = 0

    def on_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """See Callback."""
        self._step = trainer.step
        value = metrics.get(self.metric)
        if value is None or np.isnan(value):
            return
        if self.best is None or (value > self.best if self._bigger else value < self.best):
            self.best, self.best_step = float(value), trainer.step

    def stop_reason(self) -> str:
        """See Callback."""
        if not self._patience or self.best is None or self._step - self.best_step < self._patience:
            return ""
        return (
            f"{self.metric} has not been better than {self.best:.6f} (step {self.best_step}) for {self._patience} steps"
        )

    def protected_steps(self) -> Collection[int]:
        """See Callback."""
        return () if self.best is None else (self.best_step,)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """See Callback."""
        return {"best": self.best, "best_step": self.best_step, "step": self._step}, {}

    def restore(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """See Callback."""
        self.best, self.best_step, self._step = state["best"], state["best_step"], state["step"]


class MetricsJournal(Callback):
    """Writes losses and metrics to `metrics.jsonl`, one JSON object a line, cut back to the checkpoint on resuming.

    Losses are means over the steps since the record before. All but `rows_per_second` is the same in a resumed run.
    """

    def __init__(self, path: Path, files: Files | None = None) -> None:
        self._journal = Journal(path, files=files)
        self._steps = 0
        self._sums: dict[str, float] = {}  # one step after the other, so calls of any length give the same bits
        self._evaluated_step = -1
        self._rows = 0
        self._since = time.monotonic()

    def on_move(self, trainer: Trainer) -> None:
        """Drops the records of the steps that are taken back."""
        self._journal.truncate_after(trainer.step)

    def on_start(self, trainer: Trainer) -> None:
        """See Callback."""
        self._journal.truncate_after(trainer.step)
        evaluations = [record for record in self._journal.records() if record.get("kind") == "evaluation"]
        self._evaluated_step = evaluations[-1]["step"] if evaluations else -1
        self._since = time.monotonic()

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """One record each `log_step_count_steps`."""
        self._rows += result.rows
        self._steps += result.steps
        for name, values in result.losses.items():
            self._sums[name] = sum(values.tolist(), self._sums.get(name, 0.0))
        every = trainer.config.log_step_count_steps
        if not self._steps or not every or trainer.step % every:
            return
        now = time.monotonic()
        losses = {name: value / self._steps for name, value in self._sums.items()}
        rate = round(self._rows / max(now - self._since, 1e-9), 1)
        self._journal.append({"step": trainer.step, "kind": "train", **losses, "rows_per_second": rate})
        self._steps, self._sums, self._rows, self._since = 0, {}, 0, now

    def on_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """One record an evaluation."""
        if metrics and trainer.step != self._evaluated_step:
            self._journal.append({"step": trainer.step, "kind": "evaluation", **metrics}, sync=True)
            self._evaluated_step = trainer.step
        self._rows, self._since = 0, time.monotonic()

    def record(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Writes a record of another callback; steps never go back."""
        self._journal.append({"step": step, "kind": kind, **values})

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """See Callback. What was written by now is never written again, so it must be on the disk before."""
        self._journal.sync()
        return {"steps": self._steps, "sums": self._sums}, {}

    def restore(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """See Callback."""
        self._steps, self._sums = state["steps"], dict(state["sums"])

    def close(self) -> None:
        """See Callback."""
        self._journal.close()


class TensorBoard(Callback):
    """Scalars for TensorBoard: losses and learning rates each `save_summary_steps`, metrics at each evaluation."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer: EventFileWriter | None = None

    def on_start(self, trainer: Trainer) -> None:
        """Opens a new event file; events of a killed run past this step are declared void."""
        self._writer = EventFileWriter(str(self._directory))
        start = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(step=trainer.step + 1, wall_time=time.time(), session_log=start))

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """See Callback."""
        every = trainer.config.save_summary_steps
        if result.steps and every and trainer.step % every == 0:
            rates = {"learning_rate": float(trainer.stepper.optimizer.learning_rate)}
            self._write(
                trainer.step, {**{f"loss/{name}": value for name, value in result.mean_losses.items()}, **rates}
            )

    def on_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """See Callback."""
        self._write(trainer.step, {f"evaluation/{name}": value for name, value in metrics.items()})

    def close(self) -> None:
        """See Callback."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def record(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Draws the numbers of another callback as `kind/name`."""
        self._write(step, {f"{kind}/{name}": value for name, value in values.items() if isinstance(value, float)})

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if self._writer is None or not values:
            return
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._writer.add_event(Event(step=step, wall_time=time.time(), summary=summary))
        self._writer.flush()


class StopAtRow(Callback):
    """Ends the training in front of a row, counted since the start of the run, at which a batch begins."""

    def __init__(self, row: int) -> None:
        self._row = row
        self._trained = 0

    def on_start(self, trainer: Trainer) -> None:
        """See Callback."""
        self._trained = trainer.rows

    def until(self, trainer: Trainer) -> Until:
        """See Callback."""
        return Until(rows=max(1, self._row - trainer.rows))

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """See Callback."""
        self._trained = trainer.rows

    def stop_reason(self) -> str:
        """See Callback."""
        return f"at row {self._row:,}" if self._trained >= self._row else ""
