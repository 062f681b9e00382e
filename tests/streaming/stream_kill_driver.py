"""Trains on a topic in a process of its own that ends by SIGKILL: `python stream_kill_driver.py '{"topic": ...}'`."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from kill_driver import KillingFiles, Watch, kill
from stream_runs import config

from easyrec_lite import _training
from easyrec_lite.inputs.kafka import feed, ledger
from easyrec_lite.training import Callback, StepsResult, Trainer

_AT_LAST = 20.0  # seconds; what a kill waits for may never happen once the topic is read


class KillIn(Callback):
    """Kills some seconds after the first step, at whatever instruction the process has come to."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer: threading.Timer | None = None

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        if self._timer is None:
            self._timer = threading.Timer(self._seconds, kill)
            self._timer.start()


class KillAtCheckpoint(Callback):
    """Kills between a checkpoint and what follows it."""

    def on_checkpoint(self, trainer: Trainer, checkpoint: object) -> None:
        kill()


class StopAt(Callback):
    """Ends the training once so many rows were trained."""

    def __init__(self, rows: int) -> None:
        self._rows, self._trained = rows, 0

    def on_start(self, trainer: Trainer) -> None:
        self._trained = trainer.rows

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        self._trained = trainer.rows

    def stop_reason(self) -> str:
        return "all rows" if self._trained >= self._rows else ""


class KillingDisk(ledger.Disk):
    """Kills at an operation of the ledger: before it, in the middle of it, or after it; keeps what is deleted.

    Set `operation`, `when` and `skip` before use; it is made where nobody can pass arguments.
    """

    operation, when, skip = "", "", 0

    def create(self, path: Path, data: bytes) -> None:
        self._around("create", lambda: super(KillingDisk, self).create(path, data), lambda: self._torn(path, data))

    def append(self, path: Path, data: bytes) -> None:
        self._around("append", lambda: super(KillingDisk, self).append(path, data), lambda: self._torn(path, data))

    def remove(self, path: Path) -> None:
        kept = path.parent.with_name("forgotten")
        kept.mkdir(exist_ok=True)
        shutil.copy(path, kept)
        self._around("remove", lambda: super(KillingDisk, self).remove(path), lambda: None)

    def _torn(self, path: Path, data: bytes) -> None:
        half = path.with_name(f".{path.name}.tmp") if self.operation == "create" else path
        super().append(half, data[: len(data) // 2])

    def _around(self, operation: str, whole: Any, torn: Any) -> None:
        if operation != self.operation:
            whole()
            return
        type(self).skip -= 1
        due = self.skip < 0
        if due and self.when == "before":
            kill()
        if due and self.when == "torn":
            torn()
            kill()
        whole()
        if due:
            kill()


def kill_at_poll(count: int) -> None:
    """Kills after so many polls."""
    poll = feed.Feed._poll

    def counting(self: feed.Feed, client: Any) -> None:
        nonlocal count
        poll(self, client)
        count -= 1
        if count < 0:
            kill()

    feed.Feed._poll = counting  # type: ignore[method-assign]


def main(order: dict[str, Any]) -> None:
    callbacks: list[Callback] = []
    files = None
    if "in" in order:
        callbacks.append(KillIn(order["in"]))
    if "checkpoint" in order:
        callbacks.append(KillAtCheckpoint())
    if "poll" in order:
        kill_at_poll(order["poll"])
    if "disk" in order:
        KillingDisk.operation, KillingDisk.when, KillingDisk.skip = order["disk"]
    if "file" in order:
        files = KillingFiles(step=0, **order["file"])
        callbacks.append(Watch(files))
    if "rows" in order:
        callbacks.append(StopAt(order["rows"]))
    elif set(order) & {"poll", "disk", "file", "checkpoint"}:
        timer = threading.Timer(_AT_LAST, kill)
        timer.daemon = True
        timer.start()
    ledger.Disk = KillingDisk  # type: ignore[misc]
    ledger.Ledger.__init__.__defaults__ = (None, 64)  # files of few batches, so that some are begun and forgotten
    settings = config(
        order["server"], order["topic"], Path(order["model"]), *order.get("edits", ()), bounded=order["bounded"]
    )
    _training.train(settings, _training.TrainOptions(resume=True, callbacks=callbacks, files=files))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
    os._exit(0)
