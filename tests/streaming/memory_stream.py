"""Runs of a tiny model on a topic in memory: live ones, with a ledger, or bounded ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kafka_streams import Log, MemoryLibrary
from stream_runs import TEXT

from easyrec_lite import _runs, _training
from easyrec_lite._decisions import Decision
from easyrec_lite.config import PipelineConfig
from easyrec_lite.inputs.kafka import opening
from easyrec_lite.training import Callback, FitResult, StepsResult, Trainer, Until

START = 1_700_000_000
EDITS = (
    "kafka_train_input.max_wait_ms=600000",  # all batches are full, however slow the machine is
    "train_config.save_checkpoints_rows=320",
    "train_config.save_checkpoints_secs=0",
    "train_config.keep_checkpoint_max=0",
    "train_config.log_step_count_steps=5",
    "data_config.event_time_field=at",
    "stream_config.prequential={window_rows: 320}",
)
WATCHED = "stream_config.drift={window_rows: 320}"


class StopAt(Callback):
    """Ends the training at the first batch with which so many rows were trained."""

    def __init__(self, rows: int) -> None:
        self._rows, self._trained = rows, 0

    def on_start(self, trainer: Trainer) -> None:
        self._trained = trainer.rows

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        self._trained = trainer.rows

    def until(self, trainer: Trainer) -> Until:
        return Until(rows=max(1, self._rows - trainer.rows))

    def stop_reason(self) -> str:
        return "all rows" if self._trained >= self._rows else ""


def topic(patch: pytest.MonkeyPatch, rows: int, partitions: int = 2) -> Log:
    """A topic in memory, with so many rows, ten a second; whoever opens any topic gets it."""
    log = Log(partitions)
    patch.setattr(opening, "library", lambda settings: MemoryLibrary(log, (5, 50, 3), (0, 1, 1)))
    send(log, rows)
    return log


def send(log: Log, rows: int, first: int = 0) -> None:
    """Sends rows, one a message, the partitions in turn."""
    random = np.random.default_rng(first)
    for number in range(first, first + rows):
        user = int(random.integers(0, 50))
        click = int(random.random() < 0.2 + 0.01 * user)
        tags = "|".join(map(str, random.integers(0, 7, random.integers(0, 4))))
        at = START + number // 10
        line = f"{click},{user},{random.random():.3f},{tags},{at}"
        log.send(number % len(log.messages), line.encode(), time=at * 1000)


def config(model_dir: Path, *edits: str, bounded: bool = False) -> PipelineConfig:
    """The model on the topic."""
    text = TEXT.format(server="memory:1", topic="clicks", more="end_at_start: true" if bounded else "")
    path = model_dir.with_suffix(".config")
    path.write_text(text)
    return _runs.load(path, [f"model_dir={model_dir}", *EDITS, *edits])


def train(
    config: PipelineConfig,
    kind: str = "",
    place: str | Path = "",
    *,
    rows: int | None = None,
    resume: bool = False,
    callbacks: tuple[Callback, ...] = (),
) -> FitResult:
    """Trains, up to so many rows; `kind` is a decision."""
    decision = Decision(kind, str(place)) if kind else None
    stop = (StopAt(rows),) if rows is not None else ()
    return _training.train(config, _training.TrainOptions(resume, (*stop, *callbacks), decision=decision))
