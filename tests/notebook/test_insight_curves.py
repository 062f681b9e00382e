"""Calibration, distribution of scores, and the bootstrap, against numbers worked out by hand or by theory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from easyrec_lite._insight.bootstrap import bootstrap, interval
from easyrec_lite._insight.comparison import config_differences, metric_comparison
from easyrec_lite._insight.curves import calibration, calibration_error, learning_history, score_distribution, wilson
from easyrec_lite._insight.scoring import ScoredRows
from easyrec_lite.config import read_config
from easyrec_lite.errors import UserError
from easyrec_lite.metrics import build_metric
from easyrec_lite.models import BoundMetric
from easyrec_lite.models.base import Task
from easyrec_lite.protos import loss_pb2


def scored(
    labels: np.ndarray, scores: np.ndarray, users: np.ndarray | None = None, weight: np.ndarray | None = None
) -> ScoredRows:
    """Rows as a model with one task scores them."""
    users = np.arange(len(labels)) if users is None else users

    def bound() -> list[BoundMetric]:
        kinds: list[tuple[str, str]] = [("auc", ""), ("gauc", "user"), ("accuracy", "")]
        return [BoundMetric(kind, build_metric(kind), "probs", "click", group) for kind, group in kinds]

    task = Task("", "click", loss_pb2.CLASSIFICATION, ())
    return ScoredRows(
        [task], {"probs": scores.astype(np.float32)}, {"click": labels}, weight, {"user": users}, 0.0, bound
    )


def test_calibration_by_width() -> None:
    labels = [0, 1, 0, 1, 1, 1]
    scores = [0.05, 0.15, 0.17, 0.9, 0.95, 1.0]
    table = calibration(labels, scores, bins=10, by="width")
    assert table["rows"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(table["score"], [0.05, 0.16, 0.95])
    np.testing.assert_allclose(table["rate"], [0.0, 0.5, 1.0])
    np.testing.assert_allclose(table["low"], [0.05, 0.15, 0.9])
    # (1 * 0.05 + 2 * 0.34 + 3 * 0.05) / 6
    assert calibration_error(table) == pytest.approx((0.05 + 0.68 + 0.15) / 6)


def test_calibration_by_quantile_keeps_equal_scores_together() -> None:
    scores = np.repeat([0.1, 0.2, 0.3, 0.4], [10, 1, 1, 4])
    table = calibration(np.zeros(16), scores, bins=4)
    assert table["rows"].tolist() == [10, 2, 4]
    assert table["rows"].sum() == 16
    even = calibration(np.zeros(100), np.linspace(0, 1, 100), bins=4)
    assert even["rows"].tolist() == [25, 25, 25, 25]


def test_calibration_counts_weights() -> None:
    table = calibration([0, 1], [0.2, 0.4], [3, 1], bins=1)
    assert table["rate"].tolist() == [0.25]
    assert table["score"].tolist() == pytest.approx([0.25])


def test_wilson() -> None:
    # Newcombe (1998), table I: 81 of 263 -> 0.2553 to 0.3662
    low, high = wilson(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson(0.0, 20)[0] == 0.0


def test_calibration_refuses_what_is_no_score() -> None:
    with pytest.raises(UserError, match="1 scores that are no finite numbers"):
        calibration([0, 1], [0.5, np.nan])
    with pytest.raises(UserError, match="'quantile' or 'width'"):
        calibration([0], [0.5], by="rows")


def test_score_distribution() -> None:
    table = score_distribution([0, 0, 0, 1, 1], [0.0, 0.1, 0.9, 0.9, 1.0], bins=2)
    np.testing.assert_allclose(table["low"], [0.0, 0.5])
    np.testing.assert_allclose(table["negative"], [2 / 3, 1 / 3])
    np.testing.assert_allclose(table["positive"], [0.0, 1.0])


def test_history_of_nothing(tmp_path: object) -> None:
    from pathlib import Path

    frame = learning_history(Path(str(tmp_path)) / "metrics.jsonl")
    assert len(frame) == 0
    assert list(frame.columns) == ["step", "kind"]


# ---- bootstrap


def make(rng: np.random.Generator, count: int) -> ScoredRows:
    users = rng.integers(0, 30, count)
    labels = rng.integers(0, 2, count)
    return scored(labels, np.round(labels * 0.3 + rng.random(count), 2), users)


@pytest.mark.parametrize("weighted", [False, True])
def test_replicas_are_the_metrics_of_the_drawn_rows(weighted: bool) -> None:
    """Drawing rows, or users with all their rows, and taking the metric of that table gives the same numbers."""
    rng = np.random.default_rng(3)
    rows = make(rng, 300)
    if weighted:
        rows = scored(rows.labels["click"], rows.predictions["probs"], rows.columns["user"], rng.random(300) + 0.1)
    found = bootstrap([rows], samples=3, seed=5)
    labels, probs, users = rows.labels["click"], rows.predictions["probs"], rows.columns["user"]
    weight = np.ones(300) if rows.weight is None else rows.weight
    draws = np.random.default_rng(5)
    for sample in range(3):
        drawn = draws.integers(0, 300, 300)
        auc, accuracy = build_metric("auc"), build_metric("accuracy")
        for metric in (auc, accuracy):
            metric.update(labels[drawn], probs[drawn], weights=weight[drawn])
        assert found["auc"][sample, 0] == pytest.approx(auc.result(), abs=1e-9)
        assert found["accuracy"][sample, 0] == pytest.approx(accuracy.result(), abs=1e-9)
    keys = pd.unique(users)
    draws = np.random.default_rng(5)
    for sample in range(3):
        parts = [np.flatnonzero(users == keys[key]) for key in draws.integers(0, len(keys), len(keys))]
        gauc = build_metric("gauc")
        groups = np.repeat(np.arange(len(parts)), [len(part) for part in parts])  # a user drawn twice is two users
        drawn = np.concatenate(parts)
        gauc.update(labels[drawn], probs[drawn], weights=weight[drawn], groups=groups)
        assert found["gauc"][sample, 0] == pytest.approx(gauc.result(), abs=1e-9)


def coverage(draw: Callable[[np.random.Generator], ScoredRows], truth: float, **options: object) -> float:
    hits = 0
    for seed in range(100):
        rows = draw(np.random.default_rng(seed))
        low, high = interval(bootstrap([rows], samples=150, seed=seed, **options)["accuracy"][:, 0])  # type: ignore[arg-type]
        hits += low <= truth <= high
    return hits / 100


def test_intervals_cover_the_truth() -> None:
    """A share of 0.7 of independent rows: 95 % of the intervals hold it, give or take."""

    def independent(rng: np.random.Generator) -> ScoredRows:
        right = (rng.random(150) < 0.7).astype(int)
        return scored(right, np.ones(150))

    assert 0.89 <= coverage(independent, 0.7) <= 1.0


def test_rows_of_one_user_need_users_drawn() -> None:
    """Where all ten rows of a user are alike, drawing rows pretends to ten times the data; drawing users does not."""

    def alike(rng: np.random.Generator) -> ScoredRows:
        right = np.repeat((rng.random(60) < 0.7).astype(int), 10)
        return scored(right, np.ones(600), np.repeat(np.arange(60), 10))

    assert coverage(alike, 0.7) < 0.65
    assert coverage(alike, 0.7, by="user") >= 0.89


def test_differences_are_paired() -> None:
    """Two models that err on the same rows differ by a constant: their difference has no width, they themselves do."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    scores = np.clip(labels * 0.2 + rng.random(500), 0, 1)
    table = metric_comparison({"a": scored(labels, scores), "b": scored(labels, scores / 2)}, samples=50)
    auc = table[(table["metric"] == "auc") & (table["model"] == "b")].iloc[0]
    assert auc["high"] - auc["low"] > 0.03
    assert auc["difference_low"] == auc["difference_high"] == 0.0
    assert auc["verdict"] == "unclear"


def test_a_better_model_is_called_so() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 2000)
    bad, good = rng.random(2000), labels + rng.random(2000)
    table = metric_comparison({"bad": scored(labels, bad), "good": scored(labels, good)}, samples=50)
    assert table.set_index(["metric", "model"])["verdict"]["auc", "good"] == "better"


def test_the_same_seed_gives_the_same_numbers() -> None:
    rows = make(np.random.default_rng(1), 100)
    one, two, three = (bootstrap([rows], samples=5, seed=seed)["auc"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, three)


def test_other_rows_are_refused() -> None:
    rng = np.random.default_rng(1)
    with pytest.raises(UserError, match="different rows"):
        bootstrap([make(rng, 100), make(rng, 100)], samples=2)
    with pytest.raises(UserError, match="'session'"):
        bootstrap([make(rng, 100)], by="session", samples=2)


def test_differences_of_configs() -> None:
    text = 'train_config { %s } data_config { label_fields: "y" } model_config { model_class: "DeepFM" }'
    steps = [f"num_steps: {count}" for count in (1, 2, 1)]

    configs = {f"c{place}": read_config(text=text % step)[0] for place, step in enumerate(steps)}
    frame = config_differences(configs)
    assert frame.to_dict("records") == [{"path": "train_config.num_steps", "c0": "1", "c1": "2", "c2": "1"}]
