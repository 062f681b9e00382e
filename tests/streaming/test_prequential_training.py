"""Prequential evaluation inside of the training loop."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scored_rows import Records
from training_runs import KillAt, Killed, config, tensors

from easyrec_lite.checkpoints import latest
from easyrec_lite.config import PipelineConfig
from easyrec_lite.inputs import as_dataset, open_source
from easyrec_lite.models import Recommender
from easyrec_lite.streaming import AlarmLog, Surroundings, stream_callbacks
from easyrec_lite.training import Callback, TrainedBatches, Trainer

PREQUENTIAL = "stream_config.prequential.window_rows=48"


def trainer_of(pipeline: PipelineConfig, *records: Records, callbacks: Sequence[Callback] = ()) -> Trainer:
    """A trainer on the rows of the config."""
    message = pipeline.message
    data, recommender = message.data_config, Recommender(message)
    source = open_source(data, message.train_input_path, columns=recommender.columns, seed=1, epochs=data.num_epochs)
    model_dir = Path(message.model_dir)
    around = Surroundings(model_dir, TrainedBatches({}), AlarmLog(model_dir / "alarms.jsonl"), recorders=records)
    return Trainer(
        recommender,
        lambda position: as_dataset(source, position, details=True),
        model_dir,
        callbacks=[*stream_callbacks(message, recommender, around), *callbacks],
    )


def trained(
    pipeline: PipelineConfig, *, resume: bool = False, callbacks: Sequence[Callback] = ()
) -> list[dict[str, Any]]:
    """Trains, perhaps until it is killed; returns what was recorded."""
    records = Records()
    trainer = trainer_of(pipeline, records, callbacks=callbacks)
    if resume:
        trainer.resume()
    with contextlib.suppress(Killed):
        trainer.fit()
    return records.kept


def predicted_before(pipeline: PipelineConfig) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
    """Predictions and targets of each batch, by a loop that predicts, then trains."""
    trainer = trainer_of(pipeline)
    recommender = trainer.recommender
    train = tf.function(trainer.stepper.train, autograph=False, reduce_retracing=True)
    scores, labels = [], []
    for element in trainer._batches():
        scores.append({name: value.numpy() for name, value in recommender.predict(element.batch).items()})
        targets = element.batch.targets
        labels.append({name: value.numpy() for name, value in targets.labels.items()})
        if targets.weight is not None:
            labels[-1]["weight"] = targets.weight.numpy()
        train(element.batch)
    return scores, labels


def cross_entropy(labels: np.ndarray, probs: np.ndarray, weight: np.ndarray | None = None) -> float:
    p = np.clip(probs.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(np.average(-np.where(labels == 1, np.log(p), np.log(1 - p)), weights=weight))


@pytest.mark.parametrize(
    ("model", "names"),
    [("", {"click": "logloss"}), ("dbmtl_experts", {"click": "logloss_click", "buy": "logloss_buy"})],
)
def test_scores_are_those_before_the_step(data: Path, tmp_path: Path, model: str, names: dict[str, str]) -> None:
    """With dropout and batch normalisation as an inference has them; one label and several, with weights."""
    edits = (PREQUENTIAL, "train_config.num_steps=9")
    records = trained(config(data, tmp_path / "a", *edits, model=model))
    assert [record["step"] for record in records] == [3, 6, 9]
    scores, labels = predicted_before(config(data, tmp_path / "b", *edits[1:], model=model))
    for place, record in enumerate(records):
        window = slice(3 * place, 3 * place + 3)
        for label, name in names.items():
            suffix = name.removeprefix("logloss")
            probs = np.concatenate([each[f"probs{suffix}"] for each in scores[window]])
            truth = np.concatenate([each[label] for each in labels[window]])
            is_weighted = "weight" in labels[0] and label != "click"  # it has use_sample_weight: false
            weight = np.concatenate([each["weight"] for each in labels[window]]) if is_weighted else None
            assert record[name] == pytest.approx(cross_entropy(truth, probs, weight), rel=1e-5)
            w = np.ones(len(probs)) if weight is None else weight
            assert record[f"calibration{suffix}"] == pytest.approx(w @ probs / (w @ truth), rel=1e-5)
            assert 0 <= record[f"auc{suffix}"] <= 1


def test_a_model_that_ranks_items(data: Path, tmp_path: Path) -> None:
    """Listwise DSSM has no probability of a click, but its own item's rank."""
    edits = (PREQUENTIAL, "train_config.num_steps=9", "eval_config.metrics_set=[{recall_at_topk{topk: 3}}]")
    records = trained(config(data, tmp_path / "m", *edits, model="dssm"))
    assert all(0 < record["recall@3"] <= 1 and 0 < record["running_recall@3"] <= 1 for record in records)
    assert all("logloss" not in record for record in records)


@pytest.mark.parametrize("every", [1, 2])
def test_the_weights_stay_the_same(data: Path, tmp_path: Path, every: int) -> None:
    watched = (PREQUENTIAL, f"stream_config.prequential.every_n_batches={every}")
    records = trained(config(data, tmp_path / "a", *watched))
    trained(config(data, tmp_path / "b"))
    assert len(records) == 6 // every
    assert tensors(latest(tmp_path / "a")) == tensors(latest(tmp_path / "b"))  # type: ignore[arg-type]


def test_kills_and_the_length_of_calls(data: Path, tmp_path: Path) -> None:
    """Killed in the middle of windows, with calls of one step, of three, and of as many as there may be."""
    expected = trained(config(data, tmp_path / "a", PREQUENTIAL))
    found: list[dict[str, Any]] = []
    for place, (steps_per_call, kill) in enumerate([(1, 3), (3, 10), (0, 18), (3, 99)]):
        pipeline = config(data, tmp_path / "b", PREQUENTIAL, f"train_config.steps_per_call={steps_per_call}")
        reached = latest(tmp_path / "b") if place else None
        start = reached.step if reached is not None else 0
        records = trained(pipeline, resume=place > 0, callbacks=[KillAt(kill)])
        found = [record for record in found if record["step"] <= start] + records
    assert found == expected
    ours, theirs = latest(tmp_path / "b"), latest(tmp_path / "a")
    assert ours is not None
    assert theirs is not None
    assert ours.state["callbacks"]["Prequential"] == theirs.state["callbacks"]["Prequential"]
    arrays = theirs.arrays()
    assert arrays.keys() == ours.arrays().keys()
    assert all(array.tobytes() == arrays[name].tobytes() for name, array in ours.arrays().items())
