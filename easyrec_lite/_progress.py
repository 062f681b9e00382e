"""What a person at the terminal sees of a training run."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from easyrec_lite.checkpoints import Checkpoint
from easyrec_lite.streaming import StreamMonitor
from easyrec_lite.terminal import Progress, warn
from easyrec_lite.training import Callback, StepsResult, Trainer


class ProgressDisplay(Callback):
    """A bar with steps, rows a second, loss and time left; lines where there is no terminal.

    Args:
        total_steps: where training ends, if that is known.

    Attributes:
        monitor: of the stream that is trained on; its lag is shown.
    """

    def __init__(self, total_steps: int | None) -> None:
        self.monitor: StreamMonitor | None = None
        self._total = total_steps
        self._progress: Progress | None = None

    def on_start(self, trainer: Trainer) -> None:
        """See Callback."""
        self._progress = Progress(self._total, first_step=trainer.step).__enter__()

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """See Callback."""
        if self._progress is not None:
            loss = result.mean_losses.get("loss")
            self._progress.update(trainer.step, rows=result.rows, loss=loss, note=self._stream())

    def _stream(self) -> str:
        """How far training is behind the stream."""
        if self.monitor is None:
            return ""
        now = self.monitor.snapshot()
        parts = [f"lag {sum(now.lag.values()):,}"] if now.lag else []
        parts += [f"behind {datetime.timedelta(seconds=round(now.seconds_behind))}"] if now.seconds_behind else []
        parts += [f"bad rows {now.bad_rows:,}"] if now.bad_rows else []
        parts += [f"lost {now.lost_messages:,}"] if now.lost_messages else []
        return "  ".join(parts)

    def record(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Shows the numbers of another callback."""
        if self._progress is not None and "dropped" not in values:  # of a model that is not published, a warning tells
            told = {name: value for name, value in values.items() if name != "rows" and not isinstance(value, dict)}
            shown = "  ".join(f"{n} {v:.4g}" if isinstance(v, float) else f"{n} {v}" for n, v in told.items())
            rows = f", {values['rows']:,} rows" if "rows" in values else ""
            self._progress.log(f"{kind} at step {step:,}{rows}: {shown}")

    def warn(self, message: str) -> None:
        """Shows a warning, above the bar if there is one."""
        if self._progress is None:
            warn(message)
        else:
            self._progress.log(f"warning: {message}")

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
