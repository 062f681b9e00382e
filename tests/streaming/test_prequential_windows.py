"""Windows of scored rows: their numbers, where they end, and that kills and the length of calls change nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_rows import Rows, Stream, batches, joined
from tiny import MODELS

from easyrec_lite.errors import UserError

MODEL = MODELS["multi_tower"].replace(
    "eval_config { metrics_set { auc {} } }",
    'eval_config { metrics_set { gauc { uid_field: "user" } } metrics_set { max_f1 {} } }',
)


def stream(**config: float) -> Stream:
    return Stream(model=MODEL, **config)


def exact_auc(rows: Rows) -> float:
    """All pairs, one by one."""
    positive = rows.click == 1
    pairs = np.outer(rows.weights[positive], rows.weights[~positive])
    above = rows.probs[positive][:, None] - rows.probs[~positive][None, :]
    return float((pairs * ((above > 0) + 0.5 * (above == 0))).sum() / pairs.sum()) if pairs.sum() else math.nan


def exact_gauc(rows: Rows) -> float:
    users = [exact_auc(Rows(*(v[rows.user == user] for v in rows[:2]), None, rows.user)) for user in set(rows.user)]
    return float(np.nanmean(users))


def logloss(rows: Rows) -> np.ndarray:
    p = rows.probs.astype(np.float64)
    return -np.where(rows.click == 1, np.log(p), np.log(1 - p))


@pytest.mark.parametrize("weighted", [False, True])
def test_windows_by_hand(weighted: bool) -> None:
    rows = batches([60, 50, 70, 40, 90, 10], weighted=weighted)
    records = stream(window_rows=100, half_life_rows=1000).feed(rows)
    # The batch that fills a window ends it: 60 + 50, 70 + 40; 90 + 10.
    assert [record["window"] for record in records] == [
        {"from_row": 0, "to_row": 110},
        {"from_row": 110, "to_row": 220},
        {"from_row": 220, "to_row": 320},
    ]
    assert [(record["step"], record["kind"], record["rows"]) for record in records] == [
        (2, "prequential", 110),
        (4, "prequential", 110),
        (6, "prequential", 100),
    ]
    for place, record in enumerate(records):
        window = joined(rows[2 * place : 2 * place + 2])
        w = window.weights
        assert record["auc"] == pytest.approx(exact_auc(window), abs=1e-12)
        assert record["logloss"] == pytest.approx(np.average(logloss(window), weights=w), rel=1e-12)
        assert record["calibration"] == pytest.approx((w @ window.probs) / (w @ window.click), rel=1e-6)
        if not weighted:
            assert record["gauc"] == pytest.approx(exact_gauc(window), abs=1e-12)
        assert 0 < record["max_f1"] <= 1
        assert "running_gauc" not in record
        assert {"running_auc", "running_logloss", "running_calibration", "running_max_f1"} < record.keys()


def test_one_row_by_hand() -> None:
    """Predicted 0.25 for a click and 0.5 for none."""
    rows = Rows(np.float32([0.25, 0.5]), np.float32([1, 0]), None, np.array([b"a", b"a"], object))
    [record] = stream(window_rows=2).feed([rows])
    assert record["logloss"] == pytest.approx(-(math.log(0.25) + math.log(0.5)) / 2)
    assert record["calibration"] == 0.75
    assert record["auc"] == record["gauc"] == record["running_auc"] == 0.0


def test_windows_of_event_time() -> None:
    """Ten minutes each, from multiples of ten minutes on; late rows stay where they are scored."""
    start = 1_699_999_800.0  # a multiple of 600
    minutes = [1, 4, 9.99, 10, 9, 19, 45, 44, 61]
    rows = [
        batch._replace(event_time=start + 60 * minute)
        for batch, minute in zip(batches([50] * len(minutes)), minutes, strict=True)
    ]
    records = stream(window_event_minutes=10).feed(rows)
    assert [(record["window"]["from_row"], record["window"]["to_row"]) for record in records] == [
        (0, 150),
        (150, 300),
        (300, 400),
    ]
    # The window is recorded at the step that showed it to be over.
    assert [record["step"] for record in records] == [4, 7, 9]
    assert [record["window"]["event_time"] for record in records] == [
        [start + 60, start + 9.99 * 60],
        [start + 9 * 60, start + 19 * 60],
        [start + 44 * 60, start + 45 * 60],
    ]
    assert records[1]["auc"] == pytest.approx(exact_auc(joined(rows[3:6])), abs=1e-12)


def test_batches_of_unknown_time_stay_in_the_window() -> None:
    rows = batches([20] * 6, seconds=30.0)
    rows[0] = rows[0]._replace(event_time=-math.inf)
    rows[3] = rows[3]._replace(event_time=-math.inf)
    records = stream(window_event_minutes=1).feed(rows)
    assert [record["rows"] for record in records] == [40, 40]


@pytest.mark.parametrize("every", [2, 3])
def test_every_nth_batch_is_scored(every: int) -> None:
    rows = batches([30] * 12)
    scored = stream(window_rows=60, every_n_batches=every).feed(rows)
    alone = stream(window_rows=60).feed(rows[::every])
    assert [{**record, "step": 0} for record in scored] == [{**record, "step": 0} for record in alone]
    assert [record["step"] for record in scored] == [every + 1 + 2 * every * n for n in range(len(scored))]


# ---- kills and calls


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(json.dumps(state, allow_nan=False))
    return result


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=14),
    config=st.sampled_from([{"window_rows": 50}, {"window_rows": 1}, {"window_event_minutes": 1.5}]),
    calls=st.sets(st.integers(1, 14)),
    killed_at=st.integers(0, 14),
    weighted=st.booleans(),
)
def test_kills_and_calls_change_nothing(
    sizes: Sequence[int], config: dict[str, float], calls: set[int], killed_at: int, weighted: bool
) -> None:
    rows = batches(sizes, weighted=weighted, seconds=20.0)
    whole = stream(**config)
    whole.feed(rows)

    first = stream(**config)
    first.feed(rows[:killed_at], sorted(calls))
    state, arrays = first.prequential.state()
    second = stream(**config)
    second.prequential.restore(through_json(state), {name: array.copy() for name, array in arrays.items()})
    second.prequential.on_start(None)  # type: ignore[arg-type]
    second.step = first.step
    second.feed(rows[killed_at:])

    assert exact(first.records.kept + second.records.kept) == exact(whole.records.kept)
    (state, arrays), (expected_state, expected_arrays) = second.prequential.state(), whole.prequential.state()
    assert state == expected_state
    assert {name: array.tobytes() for name, array in arrays.items()} == {
        name: array.tobytes() for name, array in expected_arrays.items()
    }


def exact(records: list[dict[str, Any]]) -> str:
    """To the last bit, NaN equal to itself."""
    return json.dumps(records)


def test_what_was_scored_by_a_call_that_failed_is_forgotten() -> None:
    rows = batches([30] * 4)
    failed = stream(window_rows=60)
    failed.prequential.on_steps = lambda *_: None  # type: ignore[method-assign]  # the call never returned
    failed.feed(rows[:1])
    del failed.prequential.on_steps
    failed.prequential.on_start(None)  # type: ignore[arg-type]
    assert [record["window"]["from_row"] for record in failed.feed(rows)] == [0, 60]


def test_other_metrics_start_anew(caplog: pytest.LogCaptureFixture) -> None:
    first = stream(window_rows=100)
    first.feed(batches([60, 60, 30]))
    other = Stream(model=MODELS["multi_tower"], window_rows=100)
    other.prequential.restore(*first.prequential.state())
    assert "other metrics than before" in caplog.text
    [record] = other.feed(batches([120]))
    assert record["window"] == {"from_row": 150, "to_row": 270}


def test_labels_that_no_auc_can_be_taken_of() -> None:
    soft = batches([30])[0]._replace(click=np.full(30, 0.5, np.float32))
    with pytest.raises(UserError, match=r"of the label 'click': .*needs labels 0 or 1\. Received: .*0\.5"):
        stream(window_rows=10).feed([soft])


def test_a_window_of_one_class_has_no_auc() -> None:
    rows = [batch._replace(click=np.zeros(20, np.float32)) for batch in batches([20])]
    [record] = stream(window_rows=20).feed(rows)
    assert math.isnan(record["auc"])
    assert math.isnan(record["calibration"])
    assert record["logloss"] == pytest.approx(logloss(rows[0]).mean())
