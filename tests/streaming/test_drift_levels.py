"""New ids, repeated rows, partitions, rates and metrics: what the stream itself tells."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from drift_rows import MONDAY, Ragged, batch, breaches, labelled, profile_of, watching, window

from easyrec_lite.streaming.drift.layout import FlatBatch
from easyrec_lite.streaming.drift.repeats import hash_rows

WINDOWS = 4
LEARN = {"reference_first_windows": WINDOWS}


def fresh(random, rows=10_000):
    """Rows that hardly ever repeat."""
    return random.normal(size=(rows, 2))


# ---- new ids


@pytest.mark.parametrize(("share", "breached"), [(0.018, False), (0.025, True)])
def test_unseen_ids(share, breached):
    random = np.random.default_rng(0)

    def rows(new=0.0):
        ids = random.integers(0, 1000, 10_000)
        return batch(f=np.where(random.random(10_000) < new, ids + 1000, ids))

    detector = watching(profile_of([rows()]), unseen_rate={"only": ["f"]}, distribution={"enabled": False})
    for _ in range(10):  # what is usual is learned from the stream
        assert ("unseen_rate", "f") not in window(detector, rows())
    for _ in range(3):
        assert not breaches(window(detector, rows()))
    found = window(detector, rows(share))["unseen_rate", "f"]
    assert found.breached is breached
    assert found.value == pytest.approx(share, abs=0.004)
    if breached:
        assert all(int(part.what.split()[1]) >= 1000 for part in found.contributions)


def test_unseen_ids_among_very_many():
    random = np.random.default_rng(1)
    known = random.permutation(10**12 + np.arange(400_000))  # more than there are slots

    def rows(new=0.0):
        ids = random.choice(known, 10_000)
        return batch(f=np.where(random.random(10_000) < new, random.integers(0, 10**9, 10_000), ids))

    detector = watching(profile_of([batch(f=known)]))
    for _ in range(10):
        window(detector, rows())
    found = window(detector, rows(0.1))["unseen_rate", "f"]
    assert found.value == pytest.approx(0.1, abs=0.02)
    assert found.breached


def test_too_many_ids_are_said_once(caplog):
    everything = np.arange(1_500_000)
    detector = watching(profile_of([batch(f=everything)]))
    for _ in range(12):
        assert ("unseen_rate", "f") not in window(detector, batch(f=everything[:1000]))
    assert caplog.text.count("f has too many ids") == 1


def test_fewer_new_ids_than_usual_are_no_drift():
    random = np.random.default_rng(2)
    detector = watching(profile_of([batch(f=np.arange(1000))]), distribution={"enabled": False})
    for _ in range(10):
        window(detector, batch(f=random.integers(0, 2000, 5000)))
    found = window(detector, batch(f=random.integers(0, 1000, 5000)))["unseen_rate", "f"]
    assert found.reference == pytest.approx(0.5, abs=0.02)
    assert found.value == 0
    assert not found.breached


def test_ids_are_learned_from_the_first_half_of_the_first_windows():
    random = np.random.default_rng(3)
    detector = watching(**LEARN)
    for number in range(WINDOWS):
        assert not detector.ready, number
        assert not window(detector, batch(f=random.integers(0, 100, 5000), x=fresh(random, 5000)))
    assert detector.ready
    # Two windows for the ids, four that tell how many are usually new.
    for _ in range(2):
        assert ("unseen_rate", "f") not in window(
            detector, batch(f=random.integers(0, 100, 5000)[:], x=fresh(random, 5000))
        )
    found = window(detector, batch(f=random.integers(0, 110, 5000), x=fresh(random, 5000)))
    assert breaches(found) >= {("unseen_rate", "f")}


def test_unseen_ids_in_lists():
    random = np.random.default_rng(4)

    def rows(new):
        lists = [random.integers(0, 300, 5).tolist() + [10_000] * new for _ in range(2000)]
        return batch(tags=Ragged(lists))

    detector = watching(**LEARN)
    for _ in range(2 * WINDOWS):
        window(detector, rows(0))
    assert not breaches(window(detector, rows(0)))
    found = window(detector, rows(1))
    assert found["unseen_rate", "tags"].value == pytest.approx(1 / 6, rel=0.01)
    assert found["unseen_rate", "tags"].contributions[0].what == "id 10000"


# ---- repeated rows


def learned(random, make, windows=WINDOWS + 1, **fields):
    """A detector that has seen some windows of rows."""
    detector = watching(**LEARN, **fields)
    for _ in range(windows):
        window(detector, *make(random))
    return detector


@pytest.mark.parametrize(("repeated", "breached"), [(90, False), (150, True)])
def test_repeated_rows(repeated, breached):
    random = np.random.default_rng(5)
    detector = learned(random, lambda r: [batch(x=fresh(r))])
    numbers = fresh(random)
    numbers[-repeated:] = numbers[:repeated]
    found = window(detector, batch(x=numbers[:6000]), batch(x=numbers[6000:]))["duplicates", ""]
    assert found.value == pytest.approx(repeated / 10_000)
    assert found.breached is breached


def test_rows_repeated_from_the_window_before():
    random = np.random.default_rng(6)
    detector = learned(random, lambda r: [batch(x=fresh(r))])
    one, two, three = fresh(random), fresh(random), fresh(random)
    window(detector, batch(x=one))
    two[:500], three[500:1000] = one[:500], one[500:1000]
    assert window(detector, batch(x=two))["duplicates", ""].value == pytest.approx(0.05)
    assert window(detector, batch(x=three))["duplicates", ""].value == pytest.approx(0.0)  # two windows ago


def test_rows_that_are_often_equal_by_nature():
    random = np.random.default_rng(7)

    def rows(random, distinct=3000):
        return [batch({"clk": np.zeros(5000)}, f=random.integers(0, distinct, 5000))]

    detector = learned(random, rows, distribution={"enabled": False})
    for _ in range(20):
        found = window(detector, *rows(random))
        assert not breaches(found)
        assert found["duplicates", ""].reference > 0.5
    assert breaches(window(detector, *rows(random, 1500))) == {("duplicates", "")}


def test_what_makes_rows_differ():
    x = np.arange(5000.0)
    labels = {"clk": x % 2}

    def hashes(labels, x, tags):
        one = batch(labels, x=x, tags=Ragged([tags] * 5000))
        return hash_rows(FlatBatch(one.encoded, one.rows, 0), one.labels)

    base = hashes(labels, x, [1, 2, 3])
    assert len(np.unique(base)) == 5000
    assert (hashes(labels, x, [1, 2, 3]) == base).all()
    for other in (
        hashes({"clk": 1 - x % 2}, x, [1, 2, 3]),
        hashes(labels, x + 0.25, [1, 2, 3]),
        hashes(labels, x, [3, 2, 1]),
        hashes(labels, x, [1, 2]),
        hashes(labels, x, []),
    ):
        assert not np.isin(other, base).any()


def test_windows_of_very_many_rows_are_sampled():
    random = np.random.default_rng(8)
    detector = learned(random, lambda r: [batch(x=fresh(r, 100_000)) for _ in range(4)], windows=2 * WINDOWS)
    numbers = fresh(random, 400_000)
    numbers[:20_000] = numbers[-20_000:]
    found = window(detector, *(batch(x=part) for part in np.split(numbers, 4)))["duplicates", ""]
    assert found.value == pytest.approx(0.05, abs=0.005)
    assert found.breached


# ---- partitions


def silent(detector, messages, **facts):
    """Partitions that are found silent."""
    found = window(detector, labelled(100, 1000), messages=messages, **facts)
    return {key[1] for key in breaches(found) if key[0] == "partition_silent"}


def test_a_partition_falls_silent():
    detector = learned(None, lambda _: [labelled(100, 1000)])
    usual = {0: 400, 1: 300, 2: 200, 3: 100}
    for _ in range(WINDOWS):
        assert silent(detector, usual) == set()
    assert silent(detector, {0: 400, 1: 300, 2: 200, 3: 12}) == set()  # 0.13 of the usual share
    assert silent(detector, {0: 400, 1: 300, 2: 200}) == {"3"}
    assert silent(detector, {0: 0, 1: 300, 2: 200, 3: 100}) == {"0"}
    assert silent(detector, {1: 300, 2: 200, 3: 100}, waiting=frozenset({0})) == set()
    assert silent(detector, usual) == set()


def test_a_small_partition_needs_two_windows():
    detector = learned(None, lambda _: [labelled(100, 1000)])
    usual = {0: 980, 1: 20}
    for _ in range(WINDOWS):
        silent(detector, usual)
    assert silent(detector, {0: 980}) == set()  # 20 expected: 4.5 standard errors
    assert silent(detector, {0: 980}) == {"1"}


def test_a_new_partition_is_learned():
    detector = learned(None, lambda _: [labelled(100, 1000)])
    for _ in range(WINDOWS):
        silent(detector, {0: 500, 1: 500})
    for _ in range(WINDOWS):
        assert silent(detector, {0: 400, 1: 400, 2: 200}) == set()
    assert silent(detector, {0: 500, 1: 500}) == {"2"}


def test_files_have_no_partitions():
    detector = learned(None, lambda _: [labelled(100, 1000)])
    assert not any(key[0] == "partition_silent" for key in window(detector, labelled(100, 1000)))


# ---- rows a second


def rate(detector, seconds, start=MONDAY):
    found = window(detector, labelled(100, 1000), event_time=(start, start + seconds))
    return found.get(("row_rate", ""))


@pytest.mark.parametrize(("seconds", "breached"), [(60, False), (300, False), (1200, True), (3, True)])
def test_row_rate(seconds, breached):
    detector = learned(None, lambda _: [labelled(100, 1000)])
    for number in range(3 * WINDOWS):
        rate(detector, 60 + number % 3)
    found = rate(detector, seconds)
    assert found.breached is breached
    assert found.value == pytest.approx(1000 / seconds)
    assert found.reference == pytest.approx(1000 / 60.5, rel=0.02)


def test_row_rate_by_the_hour():
    rows = [labelled(10, 100)] * 2

    def hour(number):
        """Ten times the traffic at day."""
        many = 10 if number % 24 in range(8, 20) else 1
        times = MONDAY + number * 3600 + np.linspace(0, 3599, 100 * many)
        ids = np.zeros(100 * many, np.int64)
        return type(rows[0])(100 * many, batch(f=ids).encoded, {}, times=times)

    detector = watching(profile_of([hour(number) for number in range(72)]))
    for number in range(72, 100):
        one = hour(number)
        found = window(detector, one, event_time=(one.times[0], one.times[-1] + 1.0))
        assert not breaches(found)
    assert number % 24 == 3
    slow = hour(104)  # by day, as little as at night
    slow = type(slow)(100, batch(f=np.zeros(100, np.int64)).encoded, {}, times=slow.times[::10])
    found = window(detector, slow, event_time=(slow.times[0], slow.times[0] + 3600.0))
    assert ("row_rate", "") in breaches(found)


# ---- metrics


def metric(detector, **metrics):
    return breaches(window(detector, labelled(100, 1000), metrics=metrics))


def test_calibration_is_compared_with_one():
    detector = learned(None, lambda _: [labelled(100, 1000)])
    random = np.random.default_rng(9)
    for _ in range(20):
        assert not metric(detector, calibration=random.normal(1.0, 0.02), calibration_buy=random.normal(1.1, 0.02))
    assert not metric(detector, calibration=1.18, calibration_buy=1.1)
    assert metric(detector, calibration=1.3, calibration_buy=1.1) == {("calibration", "calibration")}
    assert metric(detector, calibration=1.0, calibration_buy=0.7) == {("calibration", "calibration_buy")}


def test_calibration_is_compared_with_one_whatever_it_has_been():
    detector = watching(reference_half_life_windows=5.0)

    def of(calibration):
        found = window(detector, labelled(100, 1000), metrics={"calibration": calibration})
        return found.get(("calibration", "calibration"))

    found = [of(1.0 + 0.01 * number) for number in range(40)]  # grows slowly
    assert all(one.reference == 1.0 for one in found)
    assert [one.breached for one in found[10:]] == [False] * 11 + [True] * 19
    detector.accept([("calibration", "calibration")])
    assert all(of(1.4) is None for _ in range(WINDOWS))
    for _ in range(20):
        found = of(1.5)
    assert not found.breached
    assert found.reference > 1.45  # accepted, it follows the stream as other levels do


def test_a_fall_of_auc():
    detector = learned(None, lambda _: [labelled(100, 1000)])
    random = np.random.default_rng(10)
    for _ in range(20):
        assert not metric(detector, auc=random.normal(0.75, 0.003), auc_buy=random.normal(0.9, 0.003))
    assert not metric(detector, auc=0.85, auc_buy=0.9)  # no fall
    assert not metric(detector, auc=0.73, auc_buy=0.9)
    assert metric(detector, auc=0.65, auc_buy=0.9) == {("auc_fall", "auc")}


def test_auc_is_compared_with_what_it_rose_to():
    detector = learned(None, lambda _: [labelled(100, 1000)])
    for number in range(60):
        assert not metric(detector, auc=min(0.6 + 0.005 * number, 0.8))
    found = window(detector, labelled(100, 1000), metrics={"auc": 0.72})["auc_fall", "auc"]
    assert found.reference == pytest.approx(0.8, abs=0.01)
    assert found.breached


def test_auc_that_varies_much_needs_a_deep_fall():
    random = np.random.default_rng(11)
    detector = learned(None, lambda _: [labelled(100, 1000)])
    for _ in range(50):
        assert not metric(detector, auc=random.normal(0.75, 0.03))
    assert not metric(detector, auc=0.68)
    assert metric(detector, auc=0.50) == {("auc_fall", "auc")}


def test_windows_without_metrics_and_with_nan():
    detector = learned(None, lambda _: [labelled(100, 1000)])
    for _ in range(WINDOWS):
        metric(detector, auc=0.75)
    assert not metric(detector)
    assert not metric(detector, auc=float("nan"), logloss=9.0)
    assert metric(detector, auc=0.5) == {("auc_fall", "auc")}


# ---- decisions


def test_what_is_accepted_is_learned_anew():
    detector = learned(None, lambda _: [labelled(100, 1000)])
    for _ in range(2 * WINDOWS):
        metric(detector, auc=0.75)
    assert metric(detector, auc=0.6) == {("auc_fall", "auc")}
    detector.accept([("auc_fall", "auc"), ("label_mean", "clk")])
    for _ in range(WINDOWS):
        found = window(detector, labelled(500, 1000), metrics={"auc": 0.6})
        assert not {("auc_fall", "auc"), ("label_mean", "clk")} & set(found)
    assert not breaches(window(detector, labelled(500, 1000), metrics={"auc": 0.6}))
    assert breaches(window(detector, labelled(100, 1000), metrics={"auc": 0.4})) == {
        ("auc_fall", "auc"),
        ("label_mean", "clk"),
    }


def test_new_ids_and_distributions_that_are_accepted():
    random = np.random.default_rng(12)

    def rows(first, mean):
        return batch(f=random.integers(first, first + 100, 5000), x=random.normal(mean, size=5000))

    detector = watching(**LEARN)
    for _ in range(3 * WINDOWS):
        assert not breaches(window(detector, rows(0, 0.0)))
    changed = {("unseen_rate", "f"), ("distribution", "f"), ("distribution", "x")}
    assert breaches(window(detector, rows(1000, 5.0))) == changed
    detector.accept(changed)
    for _ in range(2 * WINDOWS):
        assert not breaches(window(detector, rows(1000, 5.0)))
    found = window(detector, rows(1000, 5.0))
    assert changed <= set(found)
    assert not breaches(found)
    assert breaches(window(detector, rows(1000, 0.0))) == {("distribution", "x")}


def test_what_the_reference_does_not_know_is_said_once_and_learned(caplog):
    random = np.random.default_rng(13)
    detector = watching(profile_of([batch(f=np.arange(100))]))
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            found = window(
                detector, batch({"clk": np.arange(5000) % 2}, f=random.integers(0, 100, 5000), x=fresh(random, 5000))
            )
            assert ("missing_rate", "f") in found
            assert not {("label_mean", "clk"), ("missing_rate", "x"), ("distribution", "x/0")} & set(found)
    found = window(
        detector, batch({"clk": np.arange(5000) % 2}, f=random.integers(0, 100, 5000), x=fresh(random, 5000))
    )
    assert {("label_mean", "clk"), ("missing_rate", "x"), ("distribution", "x/0")} <= set(found)
    assert not breaches(found)
    assert caplog.text.count("don't know clk, x, x/0, x/1: what is usual is learned from 10 windows") == 1
