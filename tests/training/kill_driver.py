"""Trains in a process of its own that ends by SIGKILL: `python kill_driver.py '{"rows": ..., "model": ..., ...}'`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

from training_runs import config, run

from easyrec_lite.checkpoints import Files
from easyrec_lite.training import Callback, StepsResult, Trainer

EDITS = [
    "train_config.num_steps=300",
    "train_config.save_checkpoints_steps=20",
    "train_config.save_checkpoints_secs=1",  # as many more as the machine is slow: they must not matter
    "train_config.keep_checkpoint_max=3",
    "train_config.log_step_count_steps=7",
    "train_config.steps_per_call=3",
    "data_config.num_epochs=0",
    "data_config.max_bad_row_share=0.5",
]


def kill() -> None:
    """Ends this process at once, without any clearing up."""
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # the signal is on its way


class KillAfter(Callback):
    """Kills from another thread, `delay` seconds after a step: at whatever instruction training has come to."""

    def __init__(self, step: int, delay: float) -> None:
        self._step = step
        self._delay = delay
        self._timer: threading.Timer | None = None

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        if self._timer is None and trainer.step >= self._step:
            self._timer = threading.Timer(self._delay, kill)
            self._timer.start()


class KillingFiles(Files):
    """Kills at a file operation once a step is reached.

    Args:
        step: operations of earlier steps are let through.
        operation: name of the method.
        name: what the file's name, or that of a folder around it, must hold.
        skip: let so many of them through.
        torn: for `write`: kill when half of the bytes are written.
    """

    def __init__(self, step: int, operation: str, name: str, skip: int = 0, torn: bool = False) -> None:
        super().__init__(self._watch)
        self._step, self._wanted, self._skip, self._torn = step, (operation, name), skip, torn
        self.step = 0
        self._now = False

    def _watch(self, operation: str, path: Path) -> None:
        wanted, name = self._wanted
        if self.step < self._step or operation != wanted or name not in "/".join(path.parts[-2:]):
            return
        self._skip -= 1
        self._now = self._skip < 0
        if self._now and not self._torn:
            kill()

    def write(self, file: BinaryIO, data: bytes | bytearray | memoryview) -> None:
        super().write(file, b"")
        if self._now:
            super().write(file, bytes(data)[: len(data) // 2])
            kill()
        file.write(data)


class Watch(Callback):
    """Tells the files which step it is."""

    def __init__(self, files: KillingFiles) -> None:
        self._files = files

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        self._files.step = trainer.step


def main(order: dict[str, Any]) -> None:
    callbacks: list[Callback] = []
    files = None
    if "after" in order:
        callbacks.append(KillAfter(**order["after"]))
    if "file" in order:
        files = KillingFiles(**order["file"])
        callbacks.append(Watch(files))
    settings = config(Path(order["rows"]), Path(order["model"]), *EDITS)
    run(settings, resume=order["resume"], callbacks=callbacks, files=files)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
