"""One suite over all metrics: what the `Metric` protocol promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easyrec_lite.metrics import Metric, RecallAtK, build_metric, metric_names


class Rows(NamedTuple):
    labels: np.ndarray
    scores: np.ndarray
    weights: np.ndarray
    groups: np.ndarray

    def take(self, index: Any) -> Rows:
        return Rows(*(column[index] for column in self))


CASES: dict[str, Callable[[], Metric]] = {
    **{name: (lambda name=name: build_metric(name)) for name in metric_names() if name != "recall_at_k"},
    "gauc by samples": lambda: build_metric("gauc", reduction="mean_by_sample_num"),
    "gauc by positives": lambda: build_metric("gauc", reduction="mean_by_positive_num"),
    "recall_at_k": lambda: build_metric("recall_at_k", k=2),
}


def draw_rows(seed: int, count: int, metric: Metric) -> Rows:
    rng = np.random.default_rng(seed)
    ranking = isinstance(metric, RecallAtK)
    labels = rng.integers(0, 5 if ranking else 2, count)
    # Few distinct scores make ties; float32 as a model gives them.
    scores = rng.integers(0, 9, (count, 5) if ranking else count).astype(np.float32) / 8
    return Rows(labels, scores, rng.integers(0, 4, count).astype(float), rng.integers(0, 4, count))


def fed(make: Callable[[], Metric], *batches: Rows, weighted: bool = True) -> Metric:
    metric = make()
    for rows in batches:
        metric.update(rows.labels, rows.scores, rows.weights if weighted else None, rows.groups)
    return metric


def same(one: float, other: float) -> None:
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_every_metric_is_covered() -> None:
    assert set(metric_names()) <= set(CASES)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 40), cut=st.integers(0, 40))
def test_splits_orders_merges_and_saves_change_nothing(case: str, seed: int, count: int, cut: int) -> None:
    make = CASES[case]
    rows = draw_rows(seed, count, make())
    whole = fed(make, rows)
    first, second = rows.take(slice(0, cut)), rows.take(slice(cut, None))

    same(fed(make, first, second).result(), whole.result())
    same(fed(make, rows.take(np.random.default_rng(seed).permutation(count))).result(), whole.result())

    merged, other = fed(make, first), fed(make, second)
    merged.merge(other)
    same(merged.result(), whole.result())
    same(other.result(), fed(make, second).result())

    restored = make()
    restored.restore(fed(make, first).state())
    restored.update(second.labels, second.scores, second.weights, second.groups)
    same(restored.result(), whole.result())


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 40))
def test_a_weight_is_a_number_of_copies(case: str, seed: int, count: int) -> None:
    make = CASES[case]
    rows = draw_rows(seed, count, make())
    copies = rows.take(np.repeat(np.arange(count), rows.weights.astype(int)))
    same(fed(make, rows).result(), fed(make, copies, weighted=False).result())


@pytest.mark.parametrize("case", CASES)
def test_missing_weights_are_ones_even_if_later_rows_have_some(case: str) -> None:
    make = CASES[case]
    rows = draw_rows(1, 30, make())
    ones = rows._replace(weights=np.ones(30))
    mixed = fed(make, rows.take(slice(0, 10)), weighted=False)
    mixed.update(*rows.take(slice(10, None)))
    same(mixed.result(), fed(make, ones.take(slice(0, 10)), rows.take(slice(10, None))).result())


@pytest.mark.parametrize("case", CASES)
def test_nothing_seen_is_nan(case: str) -> None:
    assert np.isnan(CASES[case]().result())
    assert np.isnan(fed(CASES[case], draw_rows(0, 0, CASES[case]())).result())


@pytest.mark.parametrize("case", CASES)
def test_a_nan_score_is_not_hidden(case: str) -> None:
    rows = draw_rows(1, 20, CASES[case]())
    rows.scores[3] = np.nan
    rows.weights[:] = 1.0
    assert np.isnan(fed(CASES[case], rows).result())
    rows.weights[3] = 0.0
    assert np.isfinite(fed(CASES[case], rows).result())


@pytest.mark.parametrize("case", CASES)
def test_a_state_is_a_copy_of_plain_arrays(case: str) -> None:
    metric = fed(CASES[case], draw_rows(1, 20, CASES[case]()))
    before, state = metric.result(), metric.state()
    assert all(isinstance(value, np.ndarray) and value.dtype != object for value in state.values())
    for value in state.values():
        value[...] = 0
    assert metric.result() == before


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused(case: str) -> None:
    metric = CASES[case]()
    rows = draw_rows(1, 20, metric)
    with pytest.raises(ValueError):
        metric.update(rows.labels[:-1], rows.scores, None, rows.groups)
    with pytest.raises(ValueError, match="one weight a row"):
        metric.update(rows.labels, rows.scores, rows.weights[1:], rows.groups)
    with pytest.raises(ValueError, match="at least 0"):
        metric.update(rows.labels, rows.scores, rows.weights - 10, rows.groups)
    with pytest.raises(ValueError, match="Received"):
        metric.restore({"unknown": np.zeros(3)})
    with pytest.raises(ValueError, match="one kind"):
        metric.merge(build_metric("auc" if case != "auc" else "logloss"))


@pytest.mark.parametrize("case", CASES)
def test_columns_of_shape_b_1_are_rows(case: str) -> None:
    if case == "recall_at_k":
        return
    rows = draw_rows(1, 30, CASES[case]())
    wide = Rows(*(column[:, None] for column in rows))
    assert fed(CASES[case], wide).result() == fed(CASES[case], rows).result()


def test_names() -> None:
    assert build_metric("gauc", name="gauc_ctr").name == "gauc_ctr"
    assert build_metric("recall_at_k", k=5).name == "recall@5"
    assert build_metric("session_auc").name == "session_auc"
    with pytest.raises(ValueError, match=r"'aux'.*auc"):
        build_metric("aux")
    with pytest.raises(ValueError, match=r"'auc'.*thresholds"):
        build_metric("auc", thresholds=3)
