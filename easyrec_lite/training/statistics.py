"""Statistics of the rows a model was trained on."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easyrec_lite.checkpoints import Checkpoint, Files, atomic_write_text
from easyrec_lite.features import Statistics
from easyrec_lite.training.callbacks import Callback
from easyrec_lite.training.observation import ObservedBatch, TrainedBatches, listening_thread

if TYPE_CHECKING:
    from easyrec_lite.training.loop import Trainer
    from easyrec_lite.training.step import StepsResult


class StatisticsRecorder(Callback):
    """Gathers the statistics of the features, beside the steps, and writes them at each checkpoint.

    Args:
        path: the JSON file to write; see `features.Profile` for what is in it.
        batches: tells of the batches that are trained.
        seed: of the row sample.
        files: file operations; tests hand in their own.
    """

    def __init__(self, path: Path, batches: TrainedBatches, seed: int = 0, files: Files | None = None) -> None:
        self._path = path
        self._files = files
        self._statistics = Statistics(seed)
        self._worker = listening_thread("statistics")
        self._pending: deque[Future[None]] = deque()
        batches.listen(self._take)

    def _take(self, batch: ObservedBatch) -> None:
        self._pending.append(self._worker.submit(self._count, batch))

    def _count(self, batch: ObservedBatch) -> None:
        self._statistics.update(batch.encoded, batch.labels, batch.times, batch.missing, hashed=batch.hashed)

    def _counted(self) -> Statistics:
        """The statistics, with everything that was trained in them."""
        while self._pending:
            self._pending.popleft().result()
        return self._statistics

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """Lets go of what is done, and raises what went wrong in it."""
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()

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

    def close(self) -> None:
        """See Callback."""
        self._worker.shutdown(wait=False, cancel_futures=True)
