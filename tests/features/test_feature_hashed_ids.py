"""Ids hashed once for all who count them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easyrec_lite.features import HashedIds, HashedOnce, Ids, Statistics, hashing
from easyrec_lite.features.hashing import HISTOGRAM_BUCKETS, SLOTS, STRIDE, slots_of

IDS = st.lists(st.integers(-2, 2**63 - 1) | st.sampled_from([-1, 0, 1]), max_size=40)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), IDS), st.sampled_from([3, 7, 1000]))
def test_slots_and_counts(ids: dict[str, list[int]], at_once: int) -> None:
    arrays = {name: np.array(part, np.int64) for name, part in ids.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "_AT_ONCE", at_once)
        hashed = HashedIds.of(arrays)
    assert hashed.features == tuple(ids)
    assert len(hashed.index) == sum(map(len, ids.values()))
    for place, part in enumerate(arrays.values()):
        expected = np.where(part < 0, SLOTS, slots_of(part))
        np.testing.assert_array_equal(hashed.slots(place), expected)
        np.testing.assert_array_equal(hashed.index[slice(*hashed.starts[place : place + 2])], expected + place * STRIDE)
        buckets = expected // (SLOTS // HISTOGRAM_BUCKETS)
        np.testing.assert_array_equal(hashed.counts[place], np.bincount(buckets, minlength=HISTOGRAM_BUCKETS + 1))


def test_hashed_by_the_first_who_asks() -> None:
    once = HashedOnce({"a": np.arange(100_000)})
    with ThreadPoolExecutor(4) as pool:
        found = [future.result() for future in [pool.submit(once) for _ in range(8)]]
    assert all(one is found[0] for one in found)


def encoded(names: str, rng: np.random.Generator) -> dict[str, Ids]:
    """Ids, of the last one lists; the same for each name, in whatever order."""
    lengths = np.array([2, 0, 1, 1, 3])
    splits = np.concatenate([[0], np.cumsum(lengths)])
    found = {name: Ids(rng.integers(-1, 50, 5)) for name in "ab"}
    found["c"] = Ids(SimpleNamespace(flat_values=rng.integers(0, 9, 7), row_splits=splits))
    return {name: found[name] for name in names}


def flat(batch: dict[str, Ids]) -> dict[str, np.ndarray]:
    return {name: getattr(ids.ids, "flat_values", ids.ids) for name, ids in batch.items()}


@pytest.mark.parametrize("second", ["abc", "cab"])
def test_statistics_of_ids_hashed_elsewhere(second: str) -> None:
    alone, shared = Statistics(), Statistics()
    for seed, names in enumerate(["abc", second]):
        batch = encoded(names, np.random.default_rng(seed))
        times = 1.7e9 + 5000.0 * np.arange(5)
        alone.update({name: batch[name] for name in "abc"}, {}, times)
        shared.update(batch, {}, times, hashed=HashedOnce(flat(batch)))
    assert alone.to_json() == shared.to_json()
    for name, array in alone.state().items():
        np.testing.assert_array_equal(shared.state()[name], array, err_msg=name)
