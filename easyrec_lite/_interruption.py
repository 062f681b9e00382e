"""A training that is asked to stop ends well: with a checkpoint, at which it can go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any

from easyrec_lite.terminal import warn
from easyrec_lite.training import Callback, Trainer

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopOnSignal(Callback):
    """Ends the training at the first SIGINT (Ctrl-C) or SIGTERM; a second one ends the process at once.

    Attributes:
        received: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def on_start(self, trainer: Trainer) -> None:
        """See Callback."""
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}

    def on_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """See Callback."""
        self.close()

    def close(self) -> None:
        """Gives the signals back; also after an error."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def stop_reason(self) -> str:
        """See Callback."""
        return f"stopped by {self.received.name}" if self.received else ""

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self.close()
        warn(f"{self.received.name}: the training ends with a checkpoint after this step; once more ends it at once")
