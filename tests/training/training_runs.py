"""Runs of tiny configs, and all that they leave behind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny import HEAD, MODELS, load, rows

from easyrec_lite import _training
from easyrec_lite.checkpoints import Checkpoint, Files, latest, list_checkpoints
from easyrec_lite.config import PipelineConfig
from easyrec_lite.training import Callback, FitResult, StepsResult, Trainer

TRAIN_ROWS = 100  # 7 batches of 16, the last one short


SMALL = (
    HEAD % {"data": 'label_fields: "click"'}
    + """
model_config {
  model_class: "MultiTower"
  feature_groups { group_name: "all" feature_names: ["user", "age", "tags"] }
  multi_tower {
    towers { input: "all" dnn { hidden_units: [4] dropout_ratio: 0.3 } }
    final_dnn { hidden_units: [3] }
    l2_regularization: 0.01
  }
}
"""
)


class Killed(Exception):  # noqa: N818 - what it stands for
    """Raised where a process would be killed: nothing after it is run."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows to train and evaluate on."""
    directory = tmp_path_factory.mktemp("rows")
    write_rows(directory)
    return directory


def write_rows(directory: Path) -> None:
    """Training and evaluation rows as CSV."""
    rows(TRAIN_ROWS, seed=11).to_csv(directory / "train.csv", index=False)
    rows(50, seed=12).to_csv(directory / "eval.csv", index=False)


def config(data: Path, model_dir: Path, *edits: str, model: str = "", text: str = SMALL) -> PipelineConfig:
    """A small model, or another of the tiny ones, on the rows in `data`: three epochs, shuffled, no export."""
    ours = [
        f"train_input_path={data / 'train.csv'}",
        f"eval_input_path={data / 'eval.csv'}",
        f"model_dir={model_dir}",
        "data_config.num_epochs=3",
        "data_config.shuffle=true",
        "data_config.shuffle_window=32",
        "train_config.num_steps=0",
        "export_config.exporter_type=none",
    ]
    return load(MODELS[model] if model else text, *ours, *edits)


def run(
    config: PipelineConfig, *, resume: bool = False, callbacks: Sequence[Callback] = (), files: Files | None = None
) -> FitResult:
    """Trains."""
    return _training.train(config, _training.TrainOptions(resume, callbacks, files))


class KillAt(Callback):
    """Raises in the middle of training, after a step is done."""

    def __init__(self, step: int) -> None:
        self.at = step

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        if trainer.step >= self.at:
            raise Killed(self.at)


def tensors(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Every tensor, to the bit."""
    return {name: checkpoint.read(name).tobytes() for name in checkpoint.names()}


def journal(model_dir: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl, but for the speed."""
    records = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "rows_per_second"} for record in records]


def left_behind(model_dir: Path) -> dict[str, Any]:
    """What a run leaves that must not depend on whether it was killed."""
    last = latest(model_dir)
    assert last is not None
    last.verify()
    return {
        "step": last.step,
        "tensors": tensors(last),
        "arrays": {name: array.tobytes() for name, array in last.arrays().items()},
        "state": last.state,
        "metrics": last.metrics,
        "journal": journal(model_dir),
        "statistics": (model_dir / "statistics.json").read_text(),
        "checkpoints": [checkpoint.step for checkpoint in list_checkpoints(model_dir)],
    }
