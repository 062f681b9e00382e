"""What a person at the terminal sees of a training run."""

from __future__ import annotations

from collections.abc import Mapping

from easyrec_lite.checkpoints import Checkpoint
from easyrec_lite.terminal import Progress
from easyrec_lite.training import Callback, StepsResult, Trainer


class ProgressDisplay(Callback):
    """A bar with steps, rows a second, loss and time left; lines where there is no terminal.

    Args:
        total_steps: where training ends, if that is known.
    """

    def __init__(self, total_steps: int | None) -> None:
        self._total = total_steps
        self._progress: Progress | None = None

    def on_start(self, trainer: Trainer) -> None:
        """See Callback."""
        self._progress = Progress(self._total, first_step=trainer.step).__enter__()

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """See Callback."""
        if self._progress is not None and result.steps:
            self._progress.update(trainer.step, rows=result.rows, loss=result.mean_losses["loss"])

    def on_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """See Callback."""
        if metrics and self._progress is not None:
            shown = "  ".join(f"{name} {value:.6g}" for name, value in metrics.items())
            self._progress.log(f"evaluation at step {trainer.step:,}: {shown}")

    def on_checkpoint(self, trainer: Trainer, checkpoint: Checkpoint) -> None:
        """See Callback."""
        if self._progress is not None:
            self._progress.log(f"checkpoint {checkpoint.path}")

    def on_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """See Callback."""
        self.close()

    def close(self) -> None:
        """Leaves the terminal as it was; also after an error."""
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
            self._progress = None
