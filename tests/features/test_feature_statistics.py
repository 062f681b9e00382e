"""Statistics against NumPy on all rows at once."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from easyrec_lite.features import Ids, Numbers, Profile, Statistics
from easyrec_lite.features.hashing import HISTOGRAM_BUCKETS
from easyrec_lite.features.sketches import RowSample

ROWS = 50_000
SAMPLE = 4096


def ragged(values, lengths):
    return SimpleNamespace(flat_values=values, row_splits=np.concatenate([[0], np.cumsum(lengths)]))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    lengths = rng.integers(0, 5, ROWS)
    return SimpleNamespace(
        user=np.where(rng.random(ROWS) < 0.1, -1, rng.integers(0, 20_000, ROWS)),
        lengths=lengths,
        tags=rng.integers(0, 50, lengths.sum()),
        price=rng.lognormal(size=(ROWS, 2)).astype(np.float32),
        steps=rng.normal(size=(lengths.sum(), 1)).astype(np.float32),
        click=(rng.random(ROWS) < 0.03).astype(np.float32),
        time=1.7e9 + rng.permutation(ROWS),
    )


def feed(statistics, data, first=0, last=ROWS, size=4096):
    starts = np.concatenate([[0], np.cumsum(data.lengths)])
    for begin in range(first, last, size):
        end = min(begin + size, last)
        steps = slice(starts[begin], starts[end])
        encoded = {
            "user": Ids(data.user[begin:end]),
            "tags": Ids(ragged(data.tags[steps], data.lengths[begin:end])),
            "price": Numbers(data.price[begin:end]),
            "steps": Numbers(ragged(data.steps[steps], data.lengths[begin:end])),
        }
        labels = {"click": data.click[begin:end]}
        statistics.update(encoded, labels, data.time[begin:end], missing={"price": 2}, unknown={"tags": 1})
    return statistics


def test_profile(data):
    profile = feed(Statistics(sample_rows=SAMPLE), data).profile()
    batches = math.ceil(ROWS / 4096)
    assert profile.rows == ROWS
    assert (profile.first_event, profile.last_event) == (1.7e9, 1.7e9 + ROWS - 1)
    assert profile.labels["click"].mean == pytest.approx(data.click.mean())

    user = profile.features["user"]
    assert user.missing == (data.user < 0).sum()
    assert user.ids.count == sum(user.ids.histogram) == (data.user >= 0).sum()
    assert user.ids.distinct == pytest.approx(len(np.unique(data.user)) - 1, rel=0.02)
    assert (user.ids.lengths, user.unknown) == (None, None)

    tags = profile.features["tags"]
    assert (tags.missing, tags.unknown) == ((data.lengths == 0).sum(), batches)
    assert tags.ids.distinct == 50
    assert (tags.ids.lengths.min, tags.ids.lengths.max) == (0, 4)
    assert tags.ids.lengths.mean == pytest.approx(data.lengths.mean())

    price = profile.features["price"]
    assert price.missing == 2 * batches
    for place, number in enumerate(price.numbers):
        column = data.price[:, place].astype(np.float64)
        assert number.count == ROWS
        assert number.mean == pytest.approx(column.mean())
        assert number.std == pytest.approx(column.std())
        assert (number.min, number.max) == (column.min(), column.max())
        check_quantiles(number.quantiles, column)

    steps = profile.features["steps"]
    assert steps.missing == (data.lengths == 0).sum()
    assert steps.numbers[0].count == len(data.steps)
    assert steps.numbers[0].std == pytest.approx(data.steps.astype(np.float64).std())
    check_quantiles(steps.numbers[0].quantiles, data.steps[:, 0])


def check_quantiles(quantiles, column):
    """The bound that RowSample states, at 1 - d = 99.9 %; a fifth of rows less for sequences, as some are empty."""
    bound = math.sqrt(math.log(2 / 0.001) / (2 * 0.8 * SAMPLE))
    shares = np.searchsorted(np.sort(column), quantiles) / len(column)
    assert np.abs(shares - np.linspace(0, 1, 101)).max() < bound


def test_the_same_ids_fall_into_the_same_buckets():
    one, other = Statistics(), Statistics()
    one.update({"x": Ids(np.array([5, 7, 5]))})
    other.update({"x": Ids(np.array([7, 5, 5]))})
    histogram = one.profile().features["x"].ids.histogram
    assert histogram == other.profile().features["x"].ids.histogram
    assert len(histogram) == HISTOGRAM_BUCKETS
    assert sorted(histogram)[-2:] == [1, 2]


def test_consecutive_ids_spread_evenly():
    statistics = Statistics()
    statistics.update({"x": Ids(np.arange(100_000))})
    ids = statistics.profile().features["x"].ids
    assert ids.distinct == pytest.approx(100_000, rel=0.02)
    expected = 100_000 / HISTOGRAM_BUCKETS
    chi2 = sum((count - expected) ** 2 / expected for count in ids.histogram)
    assert abs(chi2 - HISTOGRAM_BUCKETS) < 5 * math.sqrt(2 * HISTOGRAM_BUCKETS)


def test_batches_do_not_matter(data):
    whole = feed(Statistics(sample_rows=SAMPLE), data, size=ROWS).profile()
    parts = feed(Statistics(sample_rows=SAMPLE), data, size=999).profile()
    assert whole.features["price"].numbers[0].quantiles == parts.features["price"].numbers[0].quantiles
    assert whole.features["user"] == parts.features["user"]
    assert whole.features["price"].numbers[1].std == pytest.approx(parts.features["price"].numbers[1].std, rel=1e-9)


def test_resumed_is_the_same(data):
    straight = feed(Statistics(seed=5, sample_rows=SAMPLE), data)
    first = feed(Statistics(seed=5, sample_rows=SAMPLE), data, last=4096 * 4)
    resumed = feed(Statistics.restore(first.state()), data, first=4096 * 4)
    assert resumed.to_json() == straight.to_json()
    for key, array in straight.state().items():
        np.testing.assert_array_equal(resumed.state()[key], array, err_msg=key)


def test_state_of_nothing():
    restored = Statistics.restore(Statistics(seed=4).state())
    restored.update({"x": Ids(np.array([1]))})
    assert restored.profile().rows == 1


def test_merged(data):
    half = ROWS // 2
    merged = feed(Statistics(seed=1, sample_rows=SAMPLE), data, last=half)
    merged.merge(feed(Statistics(seed=2, sample_rows=SAMPLE), data, first=half))
    merged.merge(Statistics())
    straight = feed(Statistics(sample_rows=SAMPLE), data).profile()
    profile = merged.profile()
    assert profile.rows == ROWS
    assert profile.features["user"] == straight.features["user"]
    assert profile.labels["click"].count == ROWS
    assert profile.features["price"].numbers[0].std == pytest.approx(straight.features["price"].numbers[0].std)
    check_quantiles(profile.features["price"].numbers[0].quantiles, data.price[:, 0])
    empty = Statistics()
    empty.merge(merged)
    assert empty.to_json() == merged.to_json()


def test_json_round_trip(data):
    profile = feed(Statistics(sample_rows=64), data, last=5000).profile()
    assert Profile.from_json(profile.to_json()) == profile
    with pytest.raises(ValueError, match=r"easyrec_lite\.profile/1"):
        Profile.from_json('{"format": "else"}')


def test_tensors_are_taken():
    statistics = Statistics()
    ids = tf.ragged.constant([[1, 2], [], [3]], tf.int64)
    statistics.update({"t": Ids(ids, tf.ones_like(ids)), "x": Numbers(tf.constant([[1.0], [2.0], [6.0]]))})
    profile = statistics.profile()
    assert (profile.features["t"].missing, profile.features["t"].ids.count) == (1, 3)
    assert profile.features["x"].numbers[0].mean == 3


def test_another_set_of_features_is_refused():
    statistics = Statistics()
    statistics.update({"x": Ids(np.array([1]))})
    with pytest.raises(ValueError, match=r"differ.*\['x'\].*\['y'\]"):
        statistics.update({"y": Ids(np.array([1]))})


def test_a_column_without_numbers():
    statistics = Statistics()
    statistics.update({"s": Numbers(ragged(np.zeros((0, 1), np.float32), [0, 0]))})
    number = statistics.profile().features["s"].numbers[0]
    assert (number.count, number.quantiles) == (0, [])
    assert Profile.from_json(statistics.to_json()).features["s"].missing == 2


def test_sample_is_uniform():
    # Each of 200 rows is in a sample of 50 with probability 1/4: over 400 seeds 100 times, standard deviation 8.7.
    chosen = np.zeros(200)
    for seed in range(400):
        sample = RowSample(["row"], size=50, seed=seed)
        for begin in range(0, 200, 32):
            rows = np.arange(begin, min(begin + 32, 200), dtype=np.float32)
            sample.update([rows], sample.priorities(len(rows)))
        chosen[sample.values("row").astype(int)] += 1
    assert chosen.sum() == 400 * 50
    assert np.abs(chosen - 100).max() < 4.5 * 8.7
