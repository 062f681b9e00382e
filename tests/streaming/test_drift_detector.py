"""The detector as a whole: noise, trends, references, and states."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from drift_rows import MONDAY, Ragged, batch, breaches, config, label_profile, labelled, profile_of, watching, window
from hypothesis import given, settings
from hypothesis import strategies as st

from easyrec_lite.features import HashedOnce
from easyrec_lite.streaming.drift import Detector, WatchedBatch, WindowFacts

LABEL = ("label_mean", "clk")


def everything(random, rows=500, number=0, rate=0.2):
    """A batch with features of all kinds."""
    lists = [random.integers(0, 30, random.integers(0, 4)).tolist() for _ in range(rows)]
    numbers = random.normal(size=(rows, 2))
    numbers[random.random(rows) < 0.05] = np.nan
    made = batch(
        {"clk": random.random(rows) < rate, "stay": random.exponential(size=(rows, 1))},
        {"price": 3},
        user=np.where(random.random(rows) < 0.03, -1, random.zipf(1.3, rows) % 5000),
        tags=Ragged(lists),
        price=numbers,
    )
    times = MONDAY + 600.0 * number + np.sort(random.random(rows)) * 600.0
    return WatchedBatch(made.rows, made.encoded, made.labels, made.missing, times=times)


def facts(number):
    span = (MONDAY + 1200.0 * number, MONDAY + 1200.0 * number + 1200.0)
    return WindowFacts(
        1000 * number,
        1000 * number + 1000,
        2 * number,
        2 * number + 2,
        span,
        {0: 10, 1: 10 + number % 3},
        frozenset({1} if number % 4 == 3 else ()),
        {"auc": 0.7 + 0.01 * (number % 3), "calibration": 1.0 + 0.02 * (number % 2)},
    )


BATCHES = [everything(np.random.default_rng(number), number=number) for number in range(24)]
PROFILE = profile_of(everything(np.random.default_rng(100 + number), number=number - 300) for number in range(30))
REFERENCES = ({"reference_first_windows": 3}, {"reference_half_life_windows": 2.0}, {"reference_statistics": "x"})


def run(fields, cuts=(), ahead=False):
    """All measurements, where the detector is saved and restored after the batches in `cuts`.

    `ahead`: the rows are measured before the end of the window, too.
    """
    profile = PROFILE if "reference_statistics" in fields else None
    detector, found = Detector(config(sigmas=3.0, **fields), profile), []
    for number, one in enumerate(BATCHES):
        detector.update(one)
        if number == 14:
            detector.accept([LABEL, ("distribution", "price/1"), ("unseen_rate", "user"), ("duplicates", "")])
        if number in cuts:
            detector = restored(detector, fields, profile)
        if number % 2:
            if ahead:
                detector.measure_rows()
            found.append(detector.end_window(facts(number // 2)))
            if -number in cuts:
                detector = restored(detector, fields, profile)
    return found


def restored(detector, fields, profile):
    """Another detector with its state, through what a checkpoint can hold."""
    state, arrays = detector.state()
    other = Detector(config(sigmas=3.0, **fields), profile)
    other.restore(json.loads(json.dumps(state)), {name: np.array(array) for name, array in arrays.items()})
    return other


WHOLE = {str(fields): run(fields) for fields in REFERENCES}


@pytest.mark.parametrize("fields", REFERENCES, ids=str)
def test_rows_measured_ahead_change_nothing(fields):
    assert run(fields, ahead=True) == WHOLE[str(fields)]


@pytest.mark.parametrize("fields", REFERENCES, ids=str)
def test_measurements_are_made(fields):
    found = WHOLE[str(fields)]
    assert len(found[-1]) >= 12
    # Of twelve windows the last has what is learned from ten.
    late = set() if "reference_first_windows" in fields else {"duplicates"}
    late |= {"unseen_rate"} if "reference_half_life_windows" in fields else set()
    assert {one.check for window in found for one in window} == {
        "row_rate",
        "partition_silent",
        "label_mean",
        "missing_rate",
        "unseen_rate",
        "distribution",
        "duplicates",
        "calibration",
        "auc_fall",
    } - late


@given(st.sampled_from(REFERENCES), st.sets(st.integers(-23, 23), max_size=5))
@settings(max_examples=15, deadline=None)
def test_a_restored_detector_measures_the_same(fields, cuts):
    assert run(fields, cuts) == WHOLE[str(fields)]


def test_the_state_of_a_detector_that_has_seen_nothing():
    detector = watching()
    state, arrays = detector.state()
    other = watching()
    other.restore(state, arrays)
    assert not other.ready
    assert not other.end_window(facts(0))


def test_dropped_batches_leave_no_trace():
    for fields in REFERENCES:
        profile = PROFILE if "reference_statistics" in fields else None
        detector = Detector(config(sigmas=3.0, **fields), profile)
        found = []
        for number, one in enumerate(BATCHES):
            if number % 6 == 4:
                detector.update(BATCHES[0])
                detector.drop_window()
            if number == 14:
                detector.update(one)
                detector.accept([LABEL, ("distribution", "price/1"), ("unseen_rate", "user"), ("duplicates", "")])
            else:
                detector.update(one)
            if number % 2:
                found.append(detector.end_window(facts(number // 2)))
        assert found == WHOLE[str(fields)]


def test_another_reference_than_before_starts_anew(caplog):
    detector = watching(reference_first_windows=2)
    for _ in range(4):
        window(detector, labelled(100, 1000))
    other = watching(reference_first_windows=3)
    other.restore(*detector.state())
    assert not other.ready
    assert "another reference than before" in caplog.text


def test_reference_statistics_that_were_replaced_start_anew(caplog):
    before = watching(label_profile(0.1))
    window(before, labelled(1000, 10_000))
    same, other = watching(label_profile(0.1)), watching(label_profile(0.2))
    same.restore(*before.state())
    assert "another reference" not in caplog.text
    other.restore(*before.state())
    assert "another reference than before" in caplog.text
    assert window(other, labelled(2000, 10_000))["label_mean", "clk"].reference == pytest.approx(0.2)


def test_other_features_than_before_start_anew(caplog):
    detector = watching(reference_first_windows=2)
    for _ in range(3):
        window(detector, labelled(100, 1000))
    other = watching(reference_first_windows=2)
    other.restore(*detector.state())
    window(other, batch({"clk": np.zeros(1000)}, f=np.zeros(1000, np.int64), g=np.zeros(1000, np.int64)))
    assert "other features or labels than before" in caplog.text
    assert not other.ready
    with pytest.raises(ValueError, match="differ from those before"):
        other.update(labelled(100, 1000))


def test_a_reference_is_given_or_not():
    with pytest.raises(ValueError, match="Expected a profile"):
        watching(reference_statistics="somewhere")
    with pytest.raises(ValueError, match="Expected a profile"):
        Detector(config(), PROFILE)


def test_noise_alone_is_no_drift():
    random = np.random.default_rng(1)
    detector = watching(reference_first_windows=10)
    for number in range(150):
        assert not breaches(window(detector, everything(random, 2000, number)))


def test_rows_that_come_in_sessions_vary_more():
    random = np.random.default_rng(2)

    def sessions(change=1.0):
        """Users come with 40 rows each, and click much or little."""
        users = random.integers(0, 100_000, 125)
        rates = np.clip(change * random.beta(0.5, 4.5, 125), 0, 1)
        return batch({"clk": random.random(5000) < np.repeat(rates, 40)}, user=np.repeat(users, 40))

    detector, worst = watching(reference_first_windows=20), 0.0
    for _ in range(120):
        found = window(detector, sessions())
        assert not breaches(found)
        worst = max(worst, found[LABEL].sigmas) if LABEL in found else worst
    assert worst < 4.0  # of independent rows it would be about 8
    for _ in range(2):
        found = window(detector, sessions(2.5))
    assert LABEL in breaches(found)


def test_a_decaying_past_follows_a_trend_and_sees_a_step():
    random = np.random.default_rng(3)
    follows, stays = watching(reference_half_life_windows=3), watching(reference_first_windows=10)
    alarms = [0, 0]
    for number in range(150):
        rows = labelled(int(random.binomial(10_000, 0.1 + 0.0005 * number)), 10_000)
        for place, detector in enumerate((follows, stays)):
            alarms[place] += LABEL in breaches(window(detector, rows))
    assert alarms[0] == 0
    assert alarms[1] > 50
    found = window(follows, labelled(2300, 10_000))[LABEL]
    assert found.breached
    assert found.reference == pytest.approx(0.173, abs=0.01)


def test_breached_windows_do_not_enter_a_decaying_past():
    detector = watching(reference_half_life_windows=2)
    for _ in range(12):
        window(detector, labelled(1000, 10_000))
    for _ in range(30):
        assert breaches(window(detector, labelled(1500, 10_000))) == {LABEL}
    assert not breaches(window(detector, labelled(1000, 10_000)))


def test_a_jump_from_where_the_stream_lately_was():
    detector = watching(label_profile(0.1))
    for positives in (10_300, 10_500, 10_600, 10_700, 10_700, 10_700, 10_700, 10_700):
        assert not breaches(window(detector, labelled(positives, 100_000)))
    found = window(detector, labelled(9_350, 100_000))[LABEL]  # 6.5 % below the reference, 12 % below of late
    assert found.breached
    assert found.reference == pytest.approx(0.1065, rel=0.01)
    assert not breaches(window(detector, labelled(10_400, 100_000)))
    for _ in range(10):
        assert breaches(window(detector, labelled(9_350, 100_000))) == {LABEL}  # it does not get used to it


def weekend(random, day, factor=1.0):
    """Rows of a day; on the fourth and fifth the rate of positives is half as high again."""
    rate = 0.1 * (1.5 if day % 7 in (4, 5) else 1.0) * factor
    times = MONDAY + day * 86400 + np.sort(random.random(20_000)) * 86400
    ids = batch(f=np.zeros(20_000, np.int64)).encoded
    return WatchedBatch(20_000, ids, {"clk": (random.random(20_000) < rate).astype(np.float32)}, times=times)


@pytest.mark.parametrize(("days", "breached"), [(7, False), (14, True)])
def test_the_effect_of_a_day_is_known_from_two_weeks(days, breached):
    random = np.random.default_rng(4)
    detector = watching(profile_of(weekend(random, day) for day in range(days)))
    for day in range(days, days + 7):
        assert not breaches(window(detector, weekend(random, day)))
    for day in range(days + 7, days + 11):
        assert not breaches(window(detector, weekend(random, day)))
    found = window(detector, weekend(random, days + 11, factor=0.8))  # between a working day and this
    assert (LABEL in breaches(found)) is breached


def test_only_and_ignore():
    usual, other = batch(a=np.zeros(2000, np.int64), b=np.zeros(2000, np.int64)), None
    other = batch(a=np.full(2000, -1), b=np.full(2000, -1))
    for field, left in (({"only": ["a"]}, {"a"}), ({"ignore": ["a"]}, {"b"}), ({"enabled": False}, set())):
        detector = watching(profile_of([usual]), missing_rate=field)
        assert {name for check, name in breaches(window(detector, other)) if check == "missing_rate"} == left


def test_empty_batches_and_windows():
    detector = watching(reference_first_windows=2)
    detector.update(batch(f=np.zeros(0, np.int64)))
    assert detector.end_window(facts(0)) == []
    window(detector, labelled(100, 1000))
    assert detector.end_window(facts(1)) == []
    assert not detector.ready


def test_rows_of_unequal_number():
    detector = watching()
    with pytest.raises(ValueError, match="Feature 'b' has 3 rows, the batch 2"):
        detector.update(batch(a=np.zeros(2, np.int64), b=np.zeros(3, np.int64)))


def test_what_was_constant_while_it_was_learned_may_tell_the_day():
    random = np.random.default_rng(5)

    def rows(day, hour):
        return batch(day=np.full(5000, day), hour=np.full(5000, hour), x=random.normal(size=(5000, 2)))

    detector = watching(reference_first_windows=10)
    for number in range(40):
        found = window(detector, rows(number // 24, number % 24))
        assert not {one for one in breaches(found) if one[1] == "day"}
    known = watching(profile_of([rows(0, hour) for hour in range(24)]))
    assert breaches(window(known, rows(1, 0))) >= {("distribution", "day")}  # statistics are taken at their word


def test_ids_hashed_elsewhere_measure_the_same():
    alone, shared = (watching(reference_first_windows=2) for _ in range(2))
    for number in range(6):
        random = np.random.default_rng(number)
        one = batch({"clk": random.random(500) < 0.1}, a=random.integers(-1, 40, 500), b=random.integers(0, 3000, 500))
        flat = {name: ids.ids for name, ids in one.encoded.items()}
        alone.update(one)
        shared.update(dataclasses.replace(one, hashed=HashedOnce(flat)))
        facts = WindowFacts(500 * number, 500 * (number + 1), number, number + 1)
        found = alone.end_window(facts)
        assert shared.end_window(facts) == found
    assert {measurement.check for measurement in found} >= {"distribution", "missing_rate", "unseen_rate"}
    with pytest.raises(ValueError, match="were hashed as"):
        shared.update(dataclasses.replace(one, hashed=HashedOnce({"b": flat["b"]})))
