"""Running values against a direct weighting of all rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scored_rows import Stream, batches, joined
from test_prequential_windows import MODEL, exact_auc, logloss

from easyrec_lite.metrics import AUC
from easyrec_lite.streaming import LogOddsAUC


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("half_life", [40, 700])
def test_decayed_values(half_life: int, weighted: bool) -> None:
    sizes = [60, 50, 70, 40, 90, 10, 30, 80]
    rows = batches(sizes, weighted=weighted)
    records = Stream(model=MODEL, window_rows=1, half_life_rows=half_life).feed(rows)
    assert len(records) == len(sizes)
    for count, record in enumerate(records, start=1):
        # All rows of a batch are as old as the rows scored since it.
        ages = np.repeat([sum(sizes[place + 1 : count]) for place in range(count)], sizes[:count])
        seen = joined(rows[:count])
        weight = seen.weights * 0.5 ** (ages / half_life)
        assert record["running_logloss"] == pytest.approx(np.average(logloss(seen), weights=weight), rel=1e-9)
        calibration = (weight @ seen.probs.astype(np.float64)) / (weight @ seen.click)
        assert record["running_calibration"] == pytest.approx(calibration, rel=1e-9)
        exact = exact_auc(seen._replace(weight=weight))
        assert abs(record["running_auc"] - exact) <= shared_bins(seen.probs, seen.click, weight) / 2 + 1e-12


def shared_bins(probs: np.ndarray, click: np.ndarray, weight: np.ndarray) -> float:
    """The share of pairs of both classes that lie in one bin."""
    p = probs.astype(np.float64)
    bins = np.clip(np.ceil((np.log(p / (1 - p)) + 16) * 128), 1, 4096)
    positive = click == 1
    pairs = np.outer(weight[positive], weight[~positive])
    return float((pairs * (bins[positive][:, None] == bins[~positive][None, :])).sum() / pairs.sum())


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (-4.6, 1.0), (-6.9, 1.5), (3.0, 2.0)])
def test_area_of_log_odds(mean: float, deviation: float) -> None:
    """At any click rate: 10 %, 1 %, 0.1 %, 90 %; far below the bound."""
    rng = np.random.default_rng(1)
    log_odds = rng.normal(mean, deviation, 200_000)
    labels = rng.random(log_odds.size) < 1 / (1 + np.exp(-log_odds))
    probs = (1 / (1 + np.exp(-log_odds))).astype(np.float32)
    exact, binned = AUC(), LogOddsAUC()
    for metric in (exact, binned):
        metric.update(labels, probs)
    assert binned.result() == pytest.approx(exact.result(), abs=2e-5)


def test_area_at_the_ends() -> None:
    metric = LogOddsAUC()
    metric.update([1, 0, 1, 0], [1.0, 0.0, 1.0 - 1e-9, 1e-9])
    assert metric.result() == 1.0
    metric.update([1], [0.0])  # ties with both negatives
    assert metric.result() == pytest.approx(5 / 6)
    metric.update([1], [1.5])
    assert math.isnan(metric.result())


def test_a_score_that_is_no_number_shows_once() -> None:
    """In its window; the running values leave it out, for they would never be rid of it."""
    rows = batches([40, 40, 40])
    rows[1].probs[3] = np.nan
    records = Stream(model=MODEL, window_rows=40, half_life_rows=1000).feed(rows)
    for name in ("auc", "gauc", "logloss", "calibration"):
        assert [math.isnan(record[name]) for record in records] == [False, True, False], name
    ones = np.ones(40, np.float32)
    without = [batch._replace(weight=ones) for batch in rows]
    without[1] = rows[1]._replace(
        probs=np.nan_to_num(rows[1].probs, nan=0.5), weight=np.where(np.arange(40) == 3, 0, ones)
    )
    expected = Stream(model=MODEL, window_rows=40, half_life_rows=1000).feed(without)
    for name in ("running_auc", "running_logloss", "running_calibration"):
        assert [record[name] for record in records] == pytest.approx([record[name] for record in expected], rel=1e-12)
