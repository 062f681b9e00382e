from __future__ import annotations

import numpy as np
import pytest

from easyrec_lite.metrics import build_metric, ranks_of_positives

RNG = np.random.default_rng(0)
COUNT = 300
LABELS = RNG.integers(0, 2, COUNT)
SCORES = np.round(np.clip(RNG.normal(0.4 + 0.2 * LABELS, 0.2), 0, 1), 2).astype(np.float32)
WEIGHTS = RNG.uniform(0, 3, COUNT)
USERS = RNG.integers(-5, 20, COUNT)
ONES = np.ones(COUNT)


def pairwise_auc(y: np.ndarray, s: np.ndarray, w: np.ndarray) -> float:
    """Over all pairs, from the definition."""
    p, n = y == 1, y == 0
    order = np.sign(s[p][:, None] - s[n][None]) / 2 + 0.5
    pairs = w[p][:, None] * w[n][None]
    return float((order * pairs).sum() / pairs.sum())


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_auc_is_the_share_of_ordered_pairs(weights: np.ndarray | None) -> None:
    metric = build_metric("auc")
    metric.update(LABELS, SCORES, weights)
    assert metric.result() == pytest.approx(pairwise_auc(LABELS, SCORES, ONES if weights is None else weights))


def test_auc_by_hand() -> None:
    metric = build_metric("auc")
    metric.update([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    assert metric.result() == 0.75
    flat = build_metric("auc")
    flat.update([0, 1, 1], [0.3, 0.3, 0.3])
    assert flat.result() == 0.5


def test_auc_of_one_class_has_no_value() -> None:
    metric = build_metric("auc")
    metric.update([1, 1], [0.1, 0.2])
    assert np.isnan(metric.result())


def test_auc_takes_logits_and_only_binary_labels() -> None:
    logits, probs = build_metric("auc"), build_metric("auc")
    logits.update(LABELS, SCORES * 20 - 10)
    probs.update(LABELS, SCORES)
    assert logits.result() == pytest.approx(probs.result())
    with pytest.raises(ValueError, match=r"0 or 1.*0\.5"):
        probs.update([0.5], [0.5])


@pytest.mark.parametrize("num_thresholds", [2, 5, 200])
def test_streaming_auc_is_keras_auc(num_thresholds: int) -> None:
    import keras

    scores = np.concatenate([SCORES[:-3], [0.0, 1.0, 1.0]])
    theirs = keras.metrics.AUC(num_thresholds=max(num_thresholds, 2))
    theirs.update_state(LABELS, scores, WEIGHTS)
    ours = build_metric("streaming_auc", num_thresholds=num_thresholds)
    ours.update(LABELS, scores, WEIGHTS)
    assert ours.result() == pytest.approx(float(theirs.result()), abs=1e-5)


def test_streaming_auc_nears_the_exact_one() -> None:
    metric = build_metric("streaming_auc", num_thresholds=20000)
    metric.update(LABELS, SCORES, WEIGHTS)
    assert metric.result() == pytest.approx(pairwise_auc(LABELS, SCORES, WEIGHTS), abs=1e-9)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", ["mean", "mean_by_sample_num", "mean_by_positive_num"])
def test_gauc_is_the_mean_over_users(reduction: str, weights: np.ndarray | None) -> None:
    labels = LABELS * (USERS != 3)  # user 3 has one class only
    w = ONES if weights is None else weights
    values, by = [], []
    for user in np.unique(USERS):
        mine = user == USERS
        if 0 < labels[mine].sum() < mine.sum():
            values.append(pairwise_auc(labels[mine], SCORES[mine], w[mine]))
            counts = {"mean": 1.0, "mean_by_sample_num": w[mine].sum(), "mean_by_positive_num": w[mine] @ labels[mine]}
            by.append(counts[reduction])
    metric = build_metric("gauc", reduction=reduction)
    metric.update(labels, SCORES, weights, USERS)
    assert metric.result() == pytest.approx(np.average(values, weights=by))


@pytest.mark.parametrize(
    "keys",
    [
        USERS.astype(np.int32),
        USERS.astype(np.uint64),
        USERS.astype(str),
        USERS.astype("S"),
        USERS.astype(str).astype(object),
        USERS.astype("S").astype(object),
        USERS.astype(float),
    ],
    ids=lambda keys: keys.dtype.str,
)
def test_gauc_keys_may_be_of_any_type(keys: np.ndarray) -> None:
    one, other = build_metric("gauc"), build_metric("gauc")
    one.update(LABELS, SCORES, groups=USERS)
    other.update(LABELS, SCORES, groups=keys)
    assert one.result() == pytest.approx(other.result(), abs=1e-12)


def test_gauc_text_keys_match_their_bytes() -> None:
    metric = build_metric("session_auc")
    metric.update([0], [0.1], groups=["s"])
    metric.update([1], [0.2], groups=[b"s"])
    assert metric.result() == 1.0


def test_gauc_needs_keys() -> None:
    with pytest.raises(ValueError, match="group key"):
        build_metric("gauc").update([0, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="reduction"):
        build_metric("gauc", reduction="median")


def test_means() -> None:
    y, p, w = LABELS.astype(float), np.clip(SCORES.astype(float), 1e-7, 1 - 1e-7), WEIGHTS
    expected = {
        "logloss": np.average(-(y * np.log(p) + (1 - y) * np.log(1 - p)), weights=w),
        "accuracy": np.average((SCORES > 0.5) == y, weights=w),
        "mean_absolute_error": np.average(np.abs(y - SCORES), weights=w),
        "mean_squared_error": np.average((y - SCORES) ** 2, weights=w),
        "root_mean_squared_error": np.sqrt(np.average((y - SCORES) ** 2, weights=w)),
        "calibration": np.average(SCORES, weights=w) / np.average(y, weights=w),
    }
    for name, value in expected.items():
        metric = build_metric(name)
        metric.update(LABELS, SCORES, WEIGHTS)
        assert metric.result() == pytest.approx(value, rel=1e-6), name


def test_logloss_cuts_sure_mistakes() -> None:
    metric = build_metric("logloss")
    metric.update([1, 0], [0.0, 0.0])
    assert metric.result() == pytest.approx(-np.log(1e-7) / 2, rel=1e-6)


def test_accuracy_of_classes() -> None:
    metric = build_metric("accuracy")
    metric.update([2, 0, 1], [[0.1, 0.2, 0.7], [0.5, 0.4, 0.1], [0.9, 0.1, 0.0]])
    assert metric.result() == pytest.approx(2 / 3)


def test_max_f1_is_the_best_over_thresholds() -> None:
    best = 0.0
    for threshold in np.arange(199) / 199:
        chosen = threshold < SCORES if threshold else np.ones(COUNT, bool)
        true = WEIGHTS @ (chosen & (LABELS == 1))
        best = max(best, 2 * true / (WEIGHTS @ chosen + WEIGHTS @ LABELS))
    metric = build_metric("max_f1")
    metric.update(LABELS, SCORES, WEIGHTS)
    assert metric.result() == pytest.approx(best)


def test_ranks_count_ties_against_the_positive() -> None:
    similarity = [[0.9, 0.1, 0.5], [0.9, 0.1, 0.5], [0.3, 0.3, 0.3]]
    np.testing.assert_array_equal(ranks_of_positives(similarity), [0, 2, 2])
    np.testing.assert_array_equal(ranks_of_positives(similarity, [2, 2, 0]), [1, 1, 2])
    with pytest.raises(ValueError, match="column"):
        ranks_of_positives(similarity, [0, 3, 0])
    with pytest.raises(ValueError, match="rows, candidates"):
        ranks_of_positives([1.0, 2.0])


def test_recall_from_matrices_and_from_ranks() -> None:
    similarity = RNG.standard_normal((50, 60))
    own = similarity[np.arange(50), np.arange(50)]
    expected = np.mean((similarity > own[:, None]).sum(1) < 5)
    matrix, ranks = build_metric("recall_at_k", k=5), build_metric("recall_at_k", k=5)
    matrix.update(None, similarity)
    ranks.update_ranks(ranks_of_positives(similarity))
    assert matrix.result() == ranks.result() == pytest.approx(expected)


def test_auc_orders_negative_scores_and_takes_minus_zero_as_zero() -> None:
    scores = np.array([-2.5, -1e-30, -0.0, 0.0, 1e-30, 3.0, -np.inf, np.inf], np.float32)
    labels = np.array([0, 1, 0, 1, 0, 1, 1, 0])
    metric = build_metric("auc")
    metric.update(labels, scores)
    assert metric.result() == pytest.approx(pairwise_auc(labels, np.clip(scores, -9, 9), np.ones(8)))
