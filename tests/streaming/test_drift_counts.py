"""Labels, missing values and distributions: each at its threshold, and what is no drift."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from drift_rows import MONDAY, Ragged, batch, breaches, label_profile, labelled, profile_of, watching, window

from easyrec_lite.features import Ids
from easyrec_lite.streaming.drift import WatchedBatch

LABEL = ("label_mean", "clk")


# ---- labels


@pytest.mark.parametrize(
    ("positives", "rows", "breached"),
    [
        (10_990, 100_000, False),  # 9.9 % more: 10 standard errors, but below the threshold
        (11_010, 100_000, True),
        (9_010, 100_000, False),
        (8_990, 100_000, True),
        (135, 1000, False),  # 35 % more, 3.7 standard errors
        (140, 1000, True),  # 4.2
    ],
)
def test_label_mean_needs_size_and_certainty(positives, rows, breached):
    found = window(watching(label_profile(0.1)), labelled(positives, rows))[LABEL]
    assert found.breached is breached
    assert found.value == pytest.approx(positives / rows)
    assert found.reference == pytest.approx(0.1)
    error = math.sqrt(0.09 * (1 / rows + 1 / 1_000_000))
    assert found.sigmas == pytest.approx(abs(positives / rows - 0.1) / error, rel=1e-3)


def test_the_threshold_of_the_config_counts():
    detector = watching(label_profile(0.1), label_mean={"threshold": 0.05})
    found = window(detector, labelled(10_700, 100_000))[LABEL]
    assert found.breached
    assert found.threshold == 0.05


def test_two_windows_tell_what_one_can_not():
    detector = watching(label_profile(0.1))
    first = window(detector, labelled(135, 1000))[LABEL]
    second = window(detector, labelled(135, 1000))[LABEL]
    assert not first.breached
    assert second.breached
    assert second.sigmas == pytest.approx(first.sigmas * math.sqrt(2), rel=0.02)


def test_a_breached_window_is_not_held_against_the_next():
    detector = watching(label_profile(0.1))
    assert breaches(window(detector, labelled(3000, 10_000))) == {LABEL}
    assert not breaches(window(detector, labelled(1000, 10_000)))


@pytest.mark.parametrize(("positives", "breached"), [(0, False), (10, False), (40, True)])
def test_a_label_that_never_was_positive(positives, breached):
    found = window(watching(label_profile(0.0)), labelled(positives, 10_000))[LABEL]
    assert found.breached is breached
    assert found.sigmas == pytest.approx(math.sqrt(positives), rel=0.01)


def test_a_label_that_is_never_positive_any_more():
    assert breaches(window(watching(label_profile(0.1)), labelled(0, 10_000))) == {LABEL}


def test_a_number_as_label_is_compared_by_its_own_deviation():
    random = np.random.default_rng(0)
    detector = watching(label_profile(0.0, std=1.0))  # around 0: a tenth of the deviation is its size
    rows = np.zeros(10_000, np.int64)
    assert not breaches(window(detector, batch({"clk": random.normal(0.0, 1.0, 10_000)}, f=rows)))
    found = window(detector, batch({"clk": random.normal(0.2, 1.0, 10_000)}, f=rows))[LABEL]
    assert found.breached
    assert found.sigmas == pytest.approx(0.2 * 100, rel=0.1)


def test_nan_labels_do_not_count():
    labels = np.where(np.arange(20_000) % 2, np.nan, np.arange(20_000) % 20 == 0)
    found = window(watching(label_profile(0.1)), batch({"clk": labels}, f=np.zeros(20_000, np.int64)))[LABEL]
    assert found.value == pytest.approx(0.1)
    assert not found.breached


# ---- missing values


@pytest.mark.parametrize(("empty", "breached"), [(590, False), (690, False), (720, True), (0, True)])
def test_missing_rate_of_ids(empty, breached):
    def rows(missing):
        return batch(f=np.where(np.arange(10_000) < missing, -1, 7))

    found = window(watching(profile_of([rows(500)])), rows(empty))["missing_rate", "f"]
    assert found.value == pytest.approx(empty / 10_000)
    assert found.reference == pytest.approx(0.05)
    assert found.breached is breached


def test_missing_rate_that_the_reader_knows():
    numbers = np.zeros(10_000, np.float32)
    detector = watching(profile_of([batch(missing={"price": 100}, price=numbers)]))
    assert not breaches(window(detector, batch(missing={"price": 120}, price=numbers)))
    assert breaches(window(detector, batch(missing={"price": 400}, price=numbers))) == {("missing_rate", "price")}


def test_missing_rate_of_lists():
    def rows(empty):
        return batch(tags=Ragged([[]] * empty + [[1, 2]] * (1000 - empty)))

    detector = watching(profile_of([rows(100)] * 10))
    found = window(detector, *[rows(200)] * 10)
    assert breaches(found) >= {("missing_rate", "tags")}
    assert found["missing_rate", "tags"].value == pytest.approx(0.2)


def test_a_feature_without_any_value():
    nothing = batch({"clk": np.arange(1000) % 2}, tags=Ragged([[]] * 1000), f=np.full(1000, -1))
    detector = watching(profile_of([nothing] * 10))
    for _ in range(3):
        found = window(detector, *[nothing] * 10)
        assert not breaches(found)
        assert found["missing_rate", "f"].value == found["missing_rate", "f"].reference == 1.0
        assert ("distribution", "f") not in found


# ---- distributions


def test_stability_index_of_numbers_by_hand():
    reference = np.arange(8000) / 8000  # twenty bins of 400
    detector = watching(profile_of([batch(x=reference)]))
    middles = (np.repeat(np.arange(20), 500) + 0.5) / 20
    middles[:250] = 0.975  # half of the first bin goes to the last
    found = window(detector, batch(x=middles))["distribution", "x"]
    index = (0.025 - 0.05) * math.log(0.025 / 0.05) + (0.075 - 0.05) * math.log(0.075 / 0.05)
    noise = 19 * (1 / 10_000 + 1 / 8000)
    assert found.value == pytest.approx(index - noise, rel=1e-3)
    assert found.sigmas > 5
    assert not found.breached  # 0.023 is less than 0.2
    shares = dict.fromkeys(range(20), (0.05, 0.05)) | {0: (0.025, 0.05), 19: (0.075, 0.05)}
    assert index == pytest.approx(sum((q - p) * math.log(q / p) for q, p in shares.values()))


def test_a_number_shifted_by_half_a_deviation():
    random = np.random.default_rng(1)
    detector = watching(profile_of([batch(x=random.normal(size=10_000)) for _ in range(5)]))
    assert not breaches(window(detector, batch(x=random.normal(size=10_000))))
    found = window(detector, batch(x=random.normal(0.5, size=10_000)))["distribution", "x"]
    assert found.breached
    assert found.value == pytest.approx(0.25, rel=0.1)  # d^2 of two normal distributions, d deviations apart
    assert found.contributions[0].what.startswith("1.6")
    assert found.contributions[0].share > 1.5 * found.contributions[0].reference_share


@pytest.mark.parametrize("constant", [0.0, -3.5, 1e20])
def test_a_constant_that_changes(constant):
    detector = watching(profile_of([batch(x=np.full(1000, constant, np.float32))] * 5))
    assert not breaches(window(detector, batch(x=np.full(5000, constant))))
    for other in (constant - abs(constant) - 1, constant + abs(constant) + 1):
        assert breaches(window(detector, batch(x=np.full(5000, other)))) == {("distribution", "x")}


def test_nan_numbers_do_not_count():
    random = np.random.default_rng(2)
    detector = watching(profile_of([batch(x=random.normal(size=10_000))]))
    values = np.where(np.arange(20_000) % 2, np.nan, random.normal(size=20_000))
    assert not breaches(window(detector, batch(x=values)))
    assert ("distribution", "x") not in window(detector, batch(x=np.full(1000, np.nan)))


def test_several_numbers_are_watched_apart():
    random = np.random.default_rng(3)
    detector = watching(profile_of([batch(x=random.normal(size=(5000, 2)))]))
    moved = random.normal([0.0, 1.0], size=(5000, 2))
    found = window(detector, batch(x=moved))
    assert breaches(found) == {("distribution", "x/1")}
    only = watching(profile_of([batch(x=random.normal(size=(5000, 2)))]), distribution={"ignore": ["x"]})
    assert not breaches(window(only, batch(x=moved)))


def test_steps_of_a_sequence():
    random = np.random.default_rng(4)

    def rows(mean, longest):
        lengths = random.integers(1, longest, 2000)
        ids = Ragged([random.integers(0, 50, length).tolist() for length in lengths])
        numbers = Ragged([[0.0]] * 2000, np.float32)
        numbers.row_splits = ids.row_splits
        numbers.flat_values = random.normal(mean, 1.0, (len(ids.flat_values), 1)).astype(np.float32)
        return batch(steps=ids, prices=numbers)

    detector = watching(profile_of([rows(0.0, 9) for _ in range(4)]))
    assert not breaches(window(detector, rows(0.0, 9), rows(0.0, 9)))
    assert breaches(window(detector, rows(1.0, 9), rows(1.0, 9))) == {("distribution", "prices")}
    assert breaches(window(detector, rows(0.0, 21), rows(0.0, 21))) == {("distribution", "steps/length")}


def test_ids_whose_shares_change_are_named():
    random = np.random.default_rng(5)
    shares = 1.0 / np.arange(1, 201)
    usual = shares / shares.sum()
    changed = usual.copy()
    changed[0] *= 4.0
    changed /= changed.sum()
    detector = watching(profile_of([batch(f=random.choice(200, 10_000, p=usual)) for _ in range(5)]))
    for _ in range(3):
        assert not breaches(window(detector, batch(f=random.choice(200, 10_000, p=usual))))
    found = window(detector, batch(f=random.choice(200, 10_000, p=changed)))["distribution", "f"]
    assert found.breached
    assert " 0" in found.contributions[0].what
    assert found.contributions[0].share == pytest.approx(changed[0], rel=0.2)


# ---- what is usual by the time of the day


def by_the_hour(random, hour, rows=2000, factor=1.0):
    """Clicks are three times as frequent at noon as at midnight; the hour itself is a feature; ids wander."""
    rate = factor * (0.1 - 0.05 * math.cos(hour / 24 * 2 * math.pi))
    times = MONDAY + hour * 3600 + random.random(rows) * 3600
    encoded = {
        "hour": Ids(np.full(rows, hour % 24)),
        "day": Ids(np.full(rows, hour // 24 % 7)),
        "user": Ids(random.integers(0, 500, rows) + 100 * (hour % 24)),
    }
    return WatchedBatch(rows, encoded, {"clk": (random.random(rows) < rate).astype(np.float32)}, times=times)


@pytest.fixture(scope="module")
def week():
    random = np.random.default_rng(6)
    return profile_of([by_the_hour(random, hour) for hour in range(7 * 24)])


def test_the_course_of_day_and_week_is_no_drift(week):
    random, detector = np.random.default_rng(7), watching(week)
    for hour in range(7 * 24, 9 * 24):
        span = (MONDAY + hour * 3600, MONDAY + (hour + 1) * 3600)
        found = window(detector, *(by_the_hour(random, hour) for _ in range(3)), event_time=span)
        assert not breaches(found)
        expected = 0.1 - 0.05 * math.cos(hour / 24 * 2 * math.pi)
        assert found[LABEL].reference == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("hour", [170, 180, 188])
def test_a_drift_is_found_at_any_hour(week, hour):
    random, detector = np.random.default_rng(8), watching(week)
    found = window(detector, *(by_the_hour(random, hour, factor=1.5) for _ in range(5)))
    assert breaches(found) == {LABEL}


def test_the_wrong_hour_is_a_drift(week):
    detector = watching(week)
    wrong = by_the_hour(np.random.default_rng(9), 180, rows=10_000)
    wrong = WatchedBatch(wrong.rows, wrong.encoded, wrong.labels, times=wrong.times - 6 * 3600)
    assert breaches(window(detector, wrong)) >= {("distribution", "hour"), ("distribution", "user"), LABEL}


def test_the_range_of_times_says_the_hour_too(week):
    random = np.random.default_rng(10)
    exact, rough = watching(week), watching(week)
    rows = by_the_hour(random, 180, rows=10_000)
    span = (MONDAY + 180 * 3600, MONDAY + 181 * 3600 - 1)
    one = window(exact, rows)[LABEL]
    other = window(rough, WatchedBatch(rows.rows, rows.encoded, rows.labels, event_time=span))[LABEL]
    assert other.reference == pytest.approx(one.reference, rel=1e-9)


def often_by_the_hour(random, hours):
    """By day, by night and at the weekend: 75 %, 91 %, 91 %, and 97 % in its nights; `never` has no value."""
    for hour in hours:
        night, weekend = hour % 24 < 8, hour // 24 % 7 >= 5
        there = random.random(500) < 1 / (1 + math.exp(-(1.1 + 1.2 * night + 1.2 * weekend)))
        times = MONDAY + hour * 3600 + np.sort(random.random(500)) * 3600
        rows = batch({"clk": there}, f=np.where(there, -1, 7), never=np.full(500, -1))
        yield dataclasses.replace(rows, times=times)


def test_what_happens_in_most_rows():
    random = np.random.default_rng(13)
    detector = watching(profile_of(often_by_the_hour(random, range(28 * 24))))
    for start in range(28 * 24, 35 * 24, 4):
        found = window(detector, *often_by_the_hour(random, range(start, start + 4)))
        assert not breaches(found), start
        for subject in (LABEL, ("missing_rate", "f")):
            assert found[subject].reference == pytest.approx(found[subject].value, abs=0.04)
        assert found["missing_rate", "never"].reference == 1.0
    assert start // 24 % 7 == 6  # with a weekend


def prices_by_the_hour(random, hours, more=0.0):
    """A price is missing in 14 % of the rows by night, and in 5 % by day."""
    for hour in hours:
        missing = (random.random(500) < (0.14 if hour % 24 < 8 else 0.05) + more).sum()
        times = MONDAY + hour * 3600 + np.sort(random.random(500)) * 3600
        rows = batch({}, {"price": int(missing)}, f=np.zeros(500, np.int64), price=random.normal(size=500))
        yield dataclasses.replace(rows, times=times)


@pytest.mark.parametrize("known", ["hours", "old file"])
def test_missing_numbers_by_the_hour(known):
    random = np.random.default_rng(12)
    profile = profile_of(prices_by_the_hour(random, range(14 * 24)))
    if known == "old file":
        profile.features["price"] = dataclasses.replace(profile.features["price"], cycle=None)
    detector, price = watching(profile), ("missing_rate", "price")
    for start in range(14 * 24, 21 * 24, 4):
        assert not breaches(window(detector, *prices_by_the_hour(random, range(start, start + 4)))), start
    night = window(watching(profile), *prices_by_the_hour(random, range(21 * 24, 21 * 24 + 4), more=0.05))[price]
    assert night.value == pytest.approx(0.19, abs=0.015)
    assert night.reference == pytest.approx(0.14 if known == "hours" else 0.08, abs=0.01)
    assert night.breached


def test_an_hour_that_the_reference_does_not_know_makes_unsure():
    random = np.random.default_rng(11)
    noon = profile_of([by_the_hour(random, 9 + hour % 6) for hour in range(60)])
    evening = by_the_hour(random, 18, rows=50_000)
    found = window(watching(noon), evening)[LABEL]
    assert not found.breached
    assert found.value < 0.8 * found.reference
    untimed = WatchedBatch(evening.rows, evening.encoded, evening.labels)
    assert window(watching(noon), untimed)[LABEL].sigmas > 15  # if it is not known that it is another hour
