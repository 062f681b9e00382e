"""Which metrics a config asks for, and what they read."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tiny import MODELS, built, encode, load, rows

from easyrec_lite.models import Recommender, bind_metrics
from easyrec_lite.models.base import Targets


def bound(name: str, *edits: str) -> list[tuple[str, str, str, str]]:
    config = load(MODELS[name], *edits).message
    recommender = Recommender(config, training=False, tables=False)
    return [(m.name, m.score, m.label, m.group) for m in bind_metrics(config, recommender.model.tasks)]


def test_single_task() -> None:
    assert bound("multi_tower") == [("auc", "probs", "click", "")]


def test_each_task_has_the_metrics_of_eval_config() -> None:
    assert bound("dbmtl") == [("auc_buy", "probs_buy", "buy", ""), ("auc_click", "probs_click", "click", "")]


def test_metrics_of_a_tower_go_before() -> None:
    gauc = (
        'model_config.dbmtl.task_towers[click].metrics_set=[{gauc {uid_field: "user" reduction: "mean_by_sample_num"}}]'
    )
    found = bound("dbmtl", gauc)
    assert found == [("auc_buy", "probs_buy", "buy", ""), ("gauc_click", "probs_click", "click", "user")]


def test_groups_thresholds_and_ranks() -> None:
    edit = (
        'eval_config.metrics_set=[{recall_at_topk {topk: 3}}, {session_auc {session_id_field: "gender"}},'
        " {auc {num_thresholds: 50}}, {logloss {}}]"
    )
    assert bound("dssm", edit) == [
        ("recall@3", "rank", "click", ""),
        ("session_auc", "probs", "click", "gender"),
        ("auc", "probs", "click", ""),
        ("logloss", "probs", "click", ""),
    ]


def test_regression_reads_y() -> None:
    assert bound(
        "multi_tower", "model_config.loss_type=L2_LOSS", "eval_config.metrics_set=[{mean_squared_error {}}]"
    ) == [("mean_squared_error", "y", "click", "")]


def test_columns_that_losses_and_metrics_read() -> None:
    edit = 'eval_config.metrics_set=[{gauc {uid_field: "gender"}}]'
    recommender = Recommender(load(MODELS["dssm"], edit).message, training=False, tables=False)
    assert recommender.target_columns == ["item", "gender"]
    assert recommender.columns == ["user", "gender", "item", "price", "seen", "click"]


def test_values_against_numpy() -> None:
    edit = 'eval_config.metrics_set=[{auc {}}, {gauc {uid_field: "gender"}}, {logloss {}}]'
    recommender = built(MODELS["deepfm"], edit, training=False)
    frame = rows(60, seed=7)
    probs = recommender.predict(encode(recommender, frame, targets=False))["probs"].numpy().astype(np.float64)
    click, weight = frame["click"].to_numpy(), frame["weight"].to_numpy(np.float64)

    def auc(chosen: np.ndarray) -> float:
        pairs = [(i, j) for i in chosen for j in chosen if click[i] and not click[j]]
        weights = np.array([weight[i] * weight[j] for i, j in pairs])
        right = np.array([(probs[i] > probs[j]) + 0.5 * (probs[i] == probs[j]) for i, j in pairs])
        return float((right * weights).sum() / weights.sum())

    metrics = bind_metrics(recommender.config, recommender.model.tasks)
    for start in range(0, 60, 16):
        part = slice(start, start + 16)
        columns = {"gender": frame["gender"].to_numpy()[part]}
        for metric in metrics:
            metric.update({"probs": probs[part]}, {"click": click[part]}, weight[part], columns)
    result = {metric.name: metric.metric.result() for metric in metrics}
    assert result["auc"] == pytest.approx(auc(np.arange(60)), abs=1e-6)
    by_gender = [auc(np.flatnonzero(frame["gender"] == gender)) for gender in ("f", "m", "")]
    assert result["gauc"] == pytest.approx(np.mean(by_gender), abs=1e-6)
    rows_loss = -np.where(click, np.log(probs), np.log1p(-probs))
    assert result["logloss"] == pytest.approx((rows_loss * weight).sum() / weight.sum(), rel=1e-5)


def ranks(recommender: Recommender, user: list[list[float]], item: list[list[float]], ids: list[int]) -> list[float]:
    predictions = {"user_tower_emb": tf.constant(user), "item_tower_emb": tf.constant(item)}
    targets = Targets({}, None, {"item": tf.constant(ids, tf.int64)})
    return recommender.model.evaluation_predictions(predictions, targets)["rank"].numpy().tolist()


def test_rank_counts_the_items_that_suit_better() -> None:
    recommender = built(MODELS["dssm"])
    user = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.1, 0.0]]
    item = [[0.6, 0.8, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    assert ranks(recommender, user, item, [1, 2, 3]) == [1, 0, 0]


def test_the_same_item_in_another_row_is_no_rival_and_a_collapsed_model_finds_nothing() -> None:
    recommender = built(MODELS["dssm"])
    same = [[0.6, 0.8, 0.0]] * 3
    assert ranks(recommender, same, same, [5, 5, 6]) == [1, 1, 2]


def test_a_diverged_model_has_no_recall() -> None:
    nan = float("nan")
    recommender = built(MODELS["dssm"], "eval_config.metrics_set=[{recall_at_topk {topk: 1}}]")
    user = [[1.0, 0.0, 0.0], [nan, 1.0, 0.0]]
    found = ranks(recommender, user, [[0.6, 0.8, 0.0], [0.0, 1.0, 0.0]], [1, 2])
    np.testing.assert_array_equal(found, [0, nan])
    (metric,) = bind_metrics(recommender.config, recommender.model.tasks)
    metric.update({"rank": np.array(found)}, {"click": np.ones(2)}, None, {})
    assert np.isnan(metric.metric.result())


def test_recall_counts_clicked_rows_only() -> None:
    config = load(MODELS["dssm"], "eval_config.metrics_set=[{recall_at_topk {topk: 2}}]").message
    recommender = Recommender(config, training=False, tables=False)
    (metric,) = bind_metrics(config, recommender.model.tasks)
    labels = {"click": np.array([1, 1, 0, 1])}
    metric.update({"rank": np.array([0, 1, 0, 2])}, labels, np.array([1.0, 1.0, 1.0, 2.0]), {})
    assert metric.metric.result() == pytest.approx(2 / 4)
