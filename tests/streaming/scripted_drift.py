"""A detector whose verdicts are written beforehand, and runs on files that are watched by it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import SMALL, config

from easyrec_lite import _training
from easyrec_lite._decisions import Decision
from easyrec_lite.config import PipelineConfig
from easyrec_lite.streaming import building
from easyrec_lite.streaming.drift import Contribution, Measurement, WatchedBatch, WindowFacts
from easyrec_lite.training import Callback, FitResult

Key = tuple[str, str]


class ScriptedDetector:
    """Breaches what `script` says in the windows that end at these rows, until somebody accepts it.

    Its state is what it saw of the rows, so that runs can be compared.
    """

    script: Mapping[Key, Collection[int]] = {}
    skipped: Collection[int] = ()  # no check is made in windows that end here
    facts: list[WindowFacts] = []  # noqa: RUF012 - of all instances, on purpose
    instances: list[ScriptedDetector] = []  # noqa: RUF012

    def __init__(self, config: object, reference: object = None) -> None:
        self.accepted: set[Key] = set()
        self.sums = np.zeros(3)  # batches, rows, positive labels
        self.window = np.zeros(3)
        self.measured: np.ndarray | None = None  # the window, when its rows were
        type(self).instances.append(self)

    @property
    def ready(self) -> bool:
        return True

    def update(self, batch: WatchedBatch) -> None:
        positive = sum(float(label.sum()) for label in batch.labels.values())
        self.window = np.add(self.window, [1, batch.rows, positive])

    def measure_rows(self) -> None:
        assert self.window[0], "a window without batches"
        self.measured = self.window

    def end_window(self, facts: WindowFacts) -> list[Measurement]:
        assert self.measured is None or self.measured is self.window, "there came a batch after that"
        assert self.window[1] == facts.to_row - facts.from_row
        assert self.window[0] == facts.to_step - facts.from_step
        type(self).facts.append(facts)
        self.sums, self.window = self.sums + self.window, np.zeros(3)
        self.measured = None
        if facts.to_row in self.skipped:
            return []
        found = []
        for (check, subject), rows in self.script.items():
            breached = facts.to_row in rows and (check, subject) not in self.accepted
            most = (Contribution("user 7", 0.5, 0.1),) if breached else ()
            value = 0.75 if breached else 0.5
            found.append(Measurement(check, subject, value, 0.5, 0.1, 9.0, breached, most))
        return found

    def drop_window(self) -> None:
        self.window = np.zeros(3)

    def accept(self, keys: Collection[Key]) -> None:
        self.accepted |= set(keys)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return {"accepted": sorted(self.accepted)}, {"sums": self.sums.copy(), "window": self.window.copy()}

    def restore(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        self.accepted = {(check, subject) for check, subject in state["accepted"]}
        self.sums, self.window = arrays["sums"].copy(), arrays["window"].copy()


def script(patch: pytest.MonkeyPatch, breaches: Mapping[Key, Collection[int]]) -> type[ScriptedDetector]:
    """Makes runs use such a detector, with these verdicts."""
    detector = type("Scripted", (ScriptedDetector,), {"script": breaches, "facts": [], "instances": []})
    patch.setattr(building, "Detector", detector)
    return detector


# 19 steps of 16 rows, the last one of 12; windows of two steps: they end at rows 32, 64, ...
WATCHED = (
    "stream_config.drift.window_rows=32",
    "train_config.save_checkpoints_steps=4",
    "train_config.keep_checkpoint_max=2",
    "train_config.log_step_count_steps=1",
    "eval_input_path=",
)


def watched(data: Path, model_dir: Path, *edits: str, text: str = SMALL) -> PipelineConfig:
    """A small run on files that is watched."""
    return config(data, model_dir, *WATCHED, *edits, text=text)


def train(
    config: PipelineConfig, kind: str = "", place: str = "", *, resume: bool = False, callbacks: Sequence[Callback] = ()
) -> FitResult:
    """Trains; `kind` is a decision."""
    decision = Decision(kind, place) if kind else None
    return _training.train(config, _training.TrainOptions(resume, callbacks, decision=decision))


def alarms(model_dir: Path) -> list[dict[str, Any]]:
    """The records of alarms.jsonl."""
    path = model_dir / "alarms.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def windows(model_dir: Path) -> list[dict[str, Any]]:
    """The windows in metrics.jsonl."""
    records = map(json.loads, (model_dir / "metrics.jsonl").read_text().splitlines())
    return [record for record in records if record["kind"] == "drift"]
