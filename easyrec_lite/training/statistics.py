"""Statistics of the rows a model was trained on: exactly those, though the input reads ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from easyrec_lite.checkpoints import Checkpoint, Files, atomic_write_text
from easyrec_lite.features import Columns, Encoded, Numbers, Statistics
from easyrec_lite.training.callbacks import Callback

if TYPE_CHECKING:
    from easyrec_lite.training.loop import Trainer
    from easyrec_lite.training.step import StepsResult


class StatisticsRecorder(Callback):
    """Gathers the statistics of the features and writes them beside each checkpoint.

    `observe` sees each batch in the input pipeline, in order; the batch is counted once it has been trained.

    Args:
        path: the JSON file to write; see `features.Profile` for what is in it.
        columns: by feature, the column whose missing cells are the feature's.
        event_time: the column of the event time, or ''.
        seed: of the row sample.
        files: file operations; tests hand in their own.
    """

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, str],
        event_time: str = "",
        seed: int = 0,
        files: Files | None = None,
    ) -> None:
        self._path = path
        self._files = files
        self._columns = dict(columns)
        self._event_time = event_time
        self._statistics = Statistics(seed)
        self._waiting: deque[Any] = deque()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="statistics")
        self._pending: deque[Future[None]] = deque()

    def observe(
        self,
        encoded: Mapping[str, Encoded],
        labels: Mapping[str, tf.Tensor],
        columns: Columns,
        missing: Mapping[str, tf.Tensor],
    ) -> tf.Operation:
        """An op, for the input pipeline, that remembers a batch until it has been trained."""
        times = {"time": columns[self._event_time]} if self._event_time else {}
        # A missing number is encoded as 0, so only the reader knows how many there were.
        unseen = {name: missing[self._columns[name]] for name, value in encoded.items() if isinstance(value, Numbers)}
        batch = (dict(encoded), dict(labels), times, unseen)
        leaves = [_numpy_parts(leaf) for leaf in tf.nest.flatten(batch)]

        def call(*flat: np.ndarray) -> np.int64:
            values = iter(flat)
            arrays = [_join([next(values) for _ in parts]) for parts in leaves]
            self._waiting.append(tf.nest.pack_sequence_as(batch, arrays))
            return np.int64(0)

        return tf.numpy_function(call, [part for parts in leaves for part in parts], tf.int64).op

    def on_start(self, trainer: Trainer) -> None:
        """See Callback."""
        self._waiting.clear()

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """Counts the batches that were trained, beside the next steps."""
        batches = [self._waiting.popleft() for _ in range(result.steps)]
        self._pending.append(self._worker.submit(self._count, batches))

    def _count(self, batches: list[Any]) -> None:
        for encoded, labels, times, missing in batches:
            self._statistics.update(encoded, labels, times.get("time"), missing)

    def _counted(self) -> Statistics:
        """The statistics, with everything that was trained in them."""
        while self._pending:
            self._pending.popleft().result()
        return self._statistics

    def on_checkpoint(self, trainer: Trainer, checkpoint: Checkpoint) -> None:
        """See Callback."""
        self._write()

    def on_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Writes them once more: a run may have been killed just after its last checkpoint."""
        self._write()

    def _write(self) -> None:
        atomic_write_text(self._path, self._counted().to_json(), self._files)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """See Callback."""
        return {}, self._counted().state()

    def restore(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """See Callback."""
        self._statistics = Statistics.restore(arrays)


class _Ragged:
    """Flat values and row_splits, as `Statistics` reads them."""

    def __init__(self, flat_values: np.ndarray, row_splits: np.ndarray) -> None:
        self.flat_values, self.row_splits = flat_values, row_splits


def _numpy_parts(leaf: Any) -> list[tf.Tensor]:
    if leaf is None:
        return []
    return [leaf.flat_values, leaf.row_splits] if isinstance(leaf, tf.RaggedTensor) else [leaf]


def _join(parts: list[np.ndarray]) -> Any:
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else _Ragged(*parts)
