"""What a profile knows of hours, days and single ids."""

from __future__ import annotations

import json

import numpy as np
import pytest

from easyrec_lite.features import Ids, Numbers, Profile, Statistics
from easyrec_lite.features.hashing import CYCLE_BUCKETS, SLOTS, slots_of
from easyrec_lite.features.sketches import DAYS, HOURS

THURSDAY = 1_704_326_400.0  # 2024-01-04 00:00 UTC


class Ragged:
    def __init__(self, rows):
        self.flat_values = np.array([value for row in rows for value in row], np.int64)
        self.row_splits = np.concatenate([[0], np.cumsum([len(row) for row in rows])])


@pytest.fixture
def rows():
    random = np.random.default_rng(1)
    times = THURSDAY + np.sort(random.random(4000)) * 3 * 86400
    hours = (times // 3600 % 24).astype(np.int64)
    clicks = random.random(4000) < hours / 48
    ids = np.where(random.random(4000) < 0.1, -1, hours)
    lists = [[hour] * (number % 4) for number, hour in enumerate(hours)]
    return times, hours, clicks, ids, lists


def seen(rows, size=1000, statistics=None):
    statistics = statistics or Statistics()
    times, _, clicks, ids, lists = rows
    for start in range(0, len(times), size):
        part = slice(start, start + size)
        encoded = {"h": Ids(ids[part]), "list": Ids(Ragged(lists[part])), "x": Numbers(np.ones((len(ids[part]), 1)))}
        statistics.update(encoded, {"clk": clicks[part].astype(np.float32)}, times[part])
    return statistics


def test_rows_and_labels_by_hour_and_day(rows):
    times, hours, clicks, ids, _ = rows
    profile = seen(rows).profile()
    assert len(profile.cycle) == HOURS + DAYS
    assert profile.cycle[:HOURS] == np.bincount(hours, minlength=24).tolist()
    assert profile.cycle[HOURS:] == [*np.bincount(((times - THURSDAY) // 86400).astype(int), minlength=7)]
    assert profile.labels["clk"].cycle[:HOURS] == np.bincount(hours, clicks, 24).tolist()
    assert profile.features["h"].cycle[:HOURS] == np.bincount(hours[ids < 0], minlength=24).tolist()
    assert profile.features["x"].cycle is None


def test_every_fourth_id_by_hour(rows):
    _, hours, _, ids, _ = rows
    cycle = np.array(seen(rows).profile().features["h"].ids.cycle)
    assert cycle.shape == (HOURS + DAYS, CYCLE_BUCKETS)
    for hour in range(HOURS):
        bucket = int(slots_of(np.array([hour]))[0]) // (SLOTS // CYCLE_BUCKETS)
        fourth = (hours[::4] == hour) & (ids[::4] >= 0)
        assert cycle[hour].tolist() == [fourth.sum() if place == bucket else 0 for place in range(CYCLE_BUCKETS)]
    assert cycle[:HOURS].sum() == cycle[HOURS:].sum()


def test_lists_by_hour(rows):
    _, hours, _, _, lists = rows
    cycle = np.array(seen(rows).profile().features["list"].ids.cycle)
    flat = np.repeat(hours, [len(one) for one in lists])[::4]
    assert cycle[:HOURS].sum(axis=1).tolist() == np.bincount(flat, minlength=24).tolist()


def test_batches_restores_and_merges_do_not_matter(rows):
    whole = seen(rows).profile()
    assert seen(rows, size=333).profile().features["h"] == whole.features["h"]
    half = tuple(part[:2000] for part in rows)
    other = tuple(part[2000:] for part in rows)
    resumed = seen(other, statistics=Statistics.restore(seen(half).state())).profile()
    merged = seen(half)
    merged.merge(seen(other))
    for found in (resumed, merged.profile()):
        assert found.features["list"] == whole.features["list"]
        assert found.labels["clk"].cycle == whole.labels["clk"].cycle
        assert found.cycle == whole.cycle


def test_missing_numbers_by_hour(rows):
    times, hours, *_ = rows
    statistics = Statistics()
    for hour in range(3 * 24):  # the reader counts: of which rows, it doesn't say
        part = np.flatnonzero((times - THURSDAY) // 3600 == hour)
        encoded = {"x": Numbers(np.ones((len(part), 1))), "n": Ids(np.zeros(len(part), np.int64))}
        statistics.update(encoded, {}, times[part], {"x": hour % 24, "n": 5})
    profile = Statistics.restore(statistics.state()).profile()
    assert profile.features["x"].cycle[:HOURS] == [3 * hour for hour in range(24)]
    assert profile.features["n"].cycle[:HOURS] == [15] * 24
    # One row that comes late doesn't matter.
    late = np.concatenate([times[:1], times[hours == 9][-40:]])
    statistics.update({"x": Numbers(np.ones((41, 1))), "n": Ids(np.zeros(41, np.int64))}, {}, late, {"x": 41})
    assert statistics.profile().features["x"].cycle[9] == 3 * 9 + 40
    # Shuffled rows are of any hour; that some are doesn't matter.
    shuffled = {"x": Numbers(np.ones((4000, 1))), "n": Ids(np.zeros(4000, np.int64))}
    statistics.update(shuffled, {}, times, {"x": 500, "n": 24})
    profile = Statistics.restore(statistics.state()).profile()
    assert profile.features["x"].cycle is None
    assert sum(profile.features["n"].cycle[:HOURS]) == pytest.approx(profile.features["n"].missing, abs=12)


def test_seen_slots(rows):
    ids = seen(rows).profile().features["h"].ids
    slots = ids.seen_slots()
    assert slots.shape == (SLOTS,)
    assert np.flatnonzero(slots).tolist() == sorted(slots_of(np.arange(24)).tolist())


def test_through_json(rows):
    profile = seen(rows).profile()
    assert Profile.from_json(profile.to_json()) == profile


def test_profiles_of_before_there_were_cycles(rows):
    content = json.loads(seen(rows).to_json())
    del content["cycle"]
    for label in content["labels"].values():
        del label["cycle"]
    for feature in content["features"].values():
        del feature["cycle"]
        if feature["ids"]:
            del feature["ids"]["cycle"], feature["ids"]["seen"]
    profile = Profile.from_json(json.dumps(content))
    assert profile.cycle is None
    assert profile.features["h"].ids.seen_slots() is None
    assert profile.rows == 4000


def test_without_times_there_are_no_cycles(rows):
    statistics = Statistics()
    statistics.update({"h": Ids(rows[3])}, {"clk": rows[2]}, np.where(np.arange(4000) == 7, 0.0, rows[0]))
    profile = statistics.profile()
    assert profile.cycle is None
    assert profile.labels["clk"].cycle is None
    assert profile.features["h"].cycle is None
    assert profile.features["h"].ids.cycle is None
    assert profile.first_event == rows[0][0]
