"""What an evaluation reports."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import tensorflow as tf
from tiny import MODELS, built, columns, encode, rows

from easyrec_lite.models import Targets
from easyrec_lite.training import Evaluator


def test_metrics_are_weighted_where_the_loss_is() -> None:
    recommender = built(MODELS["dbmtl_experts"], training=False)  # use_sample_weight: false of click
    frame = rows(50, seed=3)

    def evaluated() -> dict[str, float]:
        dataset = tf.data.Dataset.from_tensor_slices(columns(frame)).batch(20).map(lambda part: (part, ""))
        return Evaluator(recommender, dataset)()

    weighted = evaluated()
    frame["weight"] = 1.0
    plain = evaluated()
    assert weighted["auc_click"] == plain["auc_click"]
    assert weighted["auc_buy"] != plain["auc_buy"]


def test_a_loss_of_ones_own_counts_each_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model may have more losses than it says row weights for."""
    recommender = built(MODELS["multi_tower"], training=False)
    model = recommender.model
    frame = rows(50, seed=3)
    plain = model.task_losses

    def losses(predictions: Mapping[str, tf.Tensor], targets: Targets) -> dict[str, tf.Tensor]:
        return {**plain(predictions, targets), "own_loss": tf.reduce_mean(predictions["logits"] ** 2)}

    monkeypatch.setattr(model, "task_losses", losses)
    batch = encode(recommender, frame)
    whole = float(tf.add_n(list(losses(recommender.predict(batch), batch.targets).values())))
    dataset = tf.data.Dataset.from_tensor_slices(columns(frame)).batch(20).map(lambda part: (part, ""))
    assert Evaluator(recommender, dataset)()["loss"] == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        "multi_tower",  # every row weighs 1
        "dbmtl_experts",  # one task with weights of rows and of the task space, one without
        "deepfm",
    ],
)
def test_the_loss_does_not_depend_on_batches(model: str) -> None:
    recommender = built(MODELS[model], training=False)
    frame = rows(50, seed=3)
    frame["weight"] = [100.0] * 20 + [0.01] * 20 + [0.0] * 10
    frame["click"] = ([1] * 15 + [0] * 10) * 2  # the rows of the task space are not evenly spread either
    batch = encode(recommender, frame)
    losses = recommender.model.task_losses(recommender.predict(batch), batch.targets)
    whole = float(tf.add_n(list(losses.values())))
    for size in (50, 20, 7):
        dataset = tf.data.Dataset.from_tensor_slices(columns(frame)).batch(size).map(lambda part: (part, ""))
        result = Evaluator(recommender, dataset)()
        assert result["loss"] == pytest.approx(whole, rel=1e-5)
        assert result["rows"] == 50
