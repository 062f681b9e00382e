"""States kept in the servable: right or not used, whatever comes at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from exports import SIDES, Exported, columns_of, make, request_rows, served

from easyrec_lite.config import ConfigError
from easyrec_lite.serving import LoadedModel
from easyrec_lite.serving.user_cache import CacheOptions, UserCache, serialised

SPECS = [tf.TensorSpec([1, 2], tf.float32), tf.TensorSpec([None], tf.string)]


def asker(cache: UserCache) -> Callable[[str, float], tuple[list[np.ndarray], dict[str, int]]]:
    """Asks for the state of a key, which is made of `value` where it is not there."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.float32)])
    def ask(key: tf.Tensor, value: tf.Tensor) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        return cache(key, lambda: [tf.fill([1, 2], value), tf.stack([key, key])], SPECS)

    def run(key: str, value: float) -> tuple[list[np.ndarray], dict[str, int]]:
        state, told = ask(tf.constant(key), tf.constant(value))
        return [x.numpy() for x in state], {name: int(x[0]) for name, x in told.items()}

    return run


def make_cache(slots: int = 4, max_age: float = 0.0) -> UserCache:
    return UserCache(CacheOptions(slots, max_age=max_age), [spec.dtype for spec in SPECS])


def test_a_state_is_computed_once() -> None:
    ask = asker(make_cache())
    state, told = ask("ann", 1.0)
    assert told == {"cache_hits": 0, "cache_misses": 1, "cache_overwrites": 0, "cache_hit": 0}
    again, told = ask("ann", 2.0)
    assert told == {"cache_hits": 1, "cache_misses": 1, "cache_overwrites": 0, "cache_hit": 1}
    for one, other in zip(state, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert again[1].tolist() == [b"ann", b"ann"]


def test_a_new_state_takes_the_place_of_an_old_one() -> None:
    ask = asker(make_cache(slots=1))
    ask("ann", 1.0)
    state, told = ask("bob", 2.0)
    assert state[0].tolist() == [[2, 2]]
    assert told == {"cache_hits": 0, "cache_misses": 2, "cache_overwrites": 1, "cache_hit": 0}
    assert ask("bob", 9.0)[0][0].tolist() == [[2, 2]]
    assert ask("ann", 3.0)[0][0].tolist() == [[3, 3]]


@pytest.mark.parametrize("part", [0, 1, 2, 3, 4])
def test_a_damaged_entry_is_not_used(part: int) -> None:
    cache = make_cache(slots=1)
    ask = asker(cache)
    ask("ann", 1.0)
    entry = cache.entries.numpy()
    entry[0, part] = entry[0, part][:-1] + b"!"
    cache.entries.assign(entry)
    state, told = ask("ann", 5.0)
    assert state[0].tolist() == [[5, 5]]
    assert told["cache_hit"] == 0
    assert ask("ann", 6.0)[1]["cache_hit"] == 1


def test_parts_of_two_entries_are_not_used() -> None:
    cache = make_cache(slots=1)
    ask = asker(cache)
    ask("ann", 1.0)
    old = cache.entries.numpy()
    ask("bob", 2.0)
    torn = cache.entries.numpy()
    torn[0, 3] = old[0, 3]
    cache.entries.assign(torn)
    assert ask("bob", 3.0)[0][0].tolist() == [[3, 3]]


def test_a_state_grows_old(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = tf.Variable(1000.0, dtype=tf.float64)
    monkeypatch.setattr(tf, "timestamp", clock.read_value)
    ask = asker(make_cache(max_age=10.0))
    ask("ann", 1.0)
    clock.assign(1010.0)
    assert ask("ann", 2.0)[1]["cache_hit"] == 1
    clock.assign(1010.1)
    state, told = ask("ann", 3.0)
    assert state[0].tolist() == [[3, 3]]
    assert (told["cache_hit"], told["cache_overwrites"]) == (0, 0)  # the same user's entry, written anew
    clock.assign(900.0)  # a clock that was set back
    assert ask("ann", 4.0)[1]["cache_hit"] == 0


def test_different_rows_are_different_keys() -> None:
    rows = [("a", "bc", 1, 0.0), ("ab", "c", 1, 0.0), ("a", "bc", 11, 0.0), ("a", "bc", 1, -0.0), ("a:2", "bc", 1, 0.0)]
    keys = {
        serialised([tf.constant([x]) for x in row]).numpy()  # type: ignore[list-item]
        for row in rows
    }
    assert len(keys) == len(rows)


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Fewer slots than users."""
    return make(tmp_path_factory.mktemp("cached"), "din", *SIDES, "export_config.user_cache.slots=5")


def test_many_threads_get_right_answers(cached: Exported) -> None:
    columns = served(columns_of(cached.recommender, request_rows(40)))
    inputs = {name: column.numpy() for name, column in columns.items()}
    own = cached.recommender.user_columns
    with LoadedModel(cached.path) as ask:
        requests = [
            {name: x[[user]] if name in own else x[: 1 + user % 7] for name, x in inputs.items()} for user in range(40)
        ]
        expected = [ask("serving_default", request)["logits"] for request in requests]
        wrong: list[float] = []
        asked = 150

        def run(seed: int) -> None:
            for user in np.random.default_rng(seed).zipf(1.3, asked) % 40:
                found = ask("serving_cached", requests[user])["logits"]
                wrong.extend(np.abs(found - expected[user])[np.abs(found - expected[user]) > 1e-5])

        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        told = ask("serving_cached", requests[0])
        assert told["cache_hits"][0] + told["cache_misses"][0] == 8 * asked + 1
        assert 0 < told["cache_overwrites"][0] < told["cache_misses"][0]
        assert told["cache_hits"][0] > 8 * asked / 10


def test_by_user_id_other_columns_may_lag(tmp_path: Path) -> None:
    edits = ("export_config.user_cache.key=user", "export_config.user_cache.max_age_seconds=3600")
    export = make(tmp_path, "multi_tower", *SIDES, *edits)
    inputs = {n: x.numpy() for n, x in served(columns_of(export.recommender, request_rows(4))).items()}
    own = export.recommender.user_columns
    first = {name: x[[1]] if name in own else x for name, x in inputs.items()}
    with LoadedModel(export.path) as ask:
        cold = ask("serving_cached", first)
        later = ask("serving_cached", {**first, "age": first["age"] + 1})
        np.testing.assert_array_equal(later["logits"], cold["logits"])
        other = ask("serving_cached", {**first, "user": first["user"] + 1})
        assert (later["cache_hit"][0], other["cache_hit"][0]) == (1, 0)


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (["key=item", "max_age_seconds=5"], r"user_cache.key: found 'item', expected a column with side: USER"),
        (["key=user"], r"user_cache.max_age_seconds: found 0, expected seconds above 0"),
        (["slots=0"], r"user_cache.slots: found 0, expected at least 1"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, edits: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(tmp_path, "multi_tower", *SIDES, *(f"export_config.user_cache.{edit}" for edit in edits))
