"""Group tensors: which columns, how wide, in which order."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from model_reference import Reference, encoded
from tiny import HEAD, built, encode, load, rows

from easyrec_lite.config import ConfigError
from easyrec_lite.models import Recommender

# One group with every kind of piece, and a second one that shares most of them.
TEXT = (
    HEAD % {"data": 'label_fields: "click"'}
    + """
model_config {
  model_class: "MultiTower"
  feature_groups {
    group_name: "all"
    feature_names: ["user", "gender", "age", "item", "words", "tags", "age_row", "price"]
    sequence_features {
      group_name: "history" seq_att_map { key: "item" hist_seq: "seen" } seq_dnn { hidden_units: [3, 1] use_bn: false }
    }
    sequence_features {
      group_name: "bare" need_key_feature: false
      seq_att_map { key: "item" hist_seq: "seen" } seq_dnn { hidden_units: [3, 1] use_bn: false }
    }
  }
  feature_groups { group_name: "other" feature_names: ["words", "gender", "user"] }
  feature_groups { group_name: "linear" feature_names: ["user", "tags", "age"] wide_deep: WIDE }
  multi_tower {
    towers { input: "all" dnn { hidden_units: [2] } }
    towers { input: "other" dnn { hidden_units: [2] } }
    towers { input: "linear" dnn { hidden_units: [2] } }
    final_dnn { hidden_units: [2] }
  }
}
"""
)


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    """A recommender of the config above."""
    return built(TEXT)


def test_slots_are_in_the_order_of_the_config(recommender: Recommender) -> None:
    slots = {name: [(slot.name, slot.width) for slot in layout.slots] for name, layout in recommender.layouts.items()}
    ids = [("user", 4), ("gender", 4)]
    assert slots["all"] == [
        *ids,
        ("age", 1),
        ("item", 4),
        ("words", 4),  # the last layer of its mlp
        ("tags", 4),
        ("age_row", 4),
        ("price", 4),
        ("history", 8),  # pooled, then the key
        ("bare", 4),
    ]
    assert slots["other"] == [("words", 4), ("gender", 4), ("user", 4)]
    assert slots["linear"] == [("user", 1), ("tags", 1), ("age", 1)]
    assert {name: layout.width for name, layout in recommender.layouts.items()} == {"all": 41, "other": 12, "linear": 3}


def test_values_are_those_of_the_slots(recommender: Recommender) -> None:
    frame = rows(20, seed=4)
    batch = encode(recommender, frame, targets=False)
    outputs = recommender.collection.outputs(
        recommender.collection.weights(recommender.collection.gather(batch.plan)), batch.plan
    )
    groups = recommender.groups(outputs, batch.numbers)
    reference = Reference(recommender, frame, training=False)
    query, steps = reference.summed("item"), reference.steps("seen", "item")
    pieces = {
        "user": reference.summed("user"),
        "gender": reference.summed("gender"),
        "age": reference.numbers["age"],
        "item": query,
        "words": reference.text_cnn("words", 4, [1, 2]),
        "tags": reference.mean("tags"),
        "age_row": reference.projected("age_row"),
        "price": reference.summed("price"),
        "history": np.concatenate(
            [reference.target_attention(query, steps, "groups/all_history_attention/attention"), query], axis=1
        ),
        "bare": reference.target_attention(query, steps, "groups/all_bare_attention/attention"),
    }
    for group in ("all", "other"):
        expected = np.concatenate([pieces[slot.name] for slot in recommender.layouts[group].slots], axis=1)
        np.testing.assert_allclose(groups[group], expected, rtol=1e-3, atol=1e-5)
    # A linear weight a value: multi-valued features are summed whatever their combiner, numbers have one weight.
    linear = [reference.summed("user", "user_wide"), reference.summed("tags", "tags_wide")]
    linear.append(reference.projected("age", "age_wide_projection"))
    np.testing.assert_allclose(groups["linear"], np.concatenate(linear, axis=1), rtol=1e-3, atol=1e-5)


def test_groups_share_tables_lookups_and_layers(recommender: Recommender) -> None:
    tables = recommender.collection.tables
    assert set(tables) == {"user", "gender", "item", "words", "tags", "price", "user_wide", "tags_wide"}
    assert tables["item"].owners == ("item", "seen")
    assert (tables["item"].rows, tables["item"].dim, tables["user_wide"].dim) == (20, 4, 1)
    words = [request for request in recommender.collection.requests if getattr(request, "feature", "") == "words"]
    assert len(words) == 1
    kernels = [
        v.path for v in recommender.dense_variables if v.path.startswith("groups/words") and "conv_0/kernel" in v.path
    ]
    assert kernels == ["groups/words_combiner/conv_0/kernel"]


def test_neighbours_are_looked_up_by_one_gather(recommender: Recommender) -> None:
    pieces = recommender.layouts["all"].pieces
    assert [slot.name for slot in pieces[0].slots] == ["user", "gender"]
    assert [piece.kind for piece in pieces] == [
        *("lookup", "numbers", "lookup", "combiner", "lookup", "projection", "lookup"),
        *("attention", "attention"),
    ]


def test_a_row_does_not_depend_on_the_others(recommender: Recommender) -> None:
    frame = rows(20, seed=5)
    together = recommender.predict(encode(recommender, frame, targets=False))["logits"].numpy()
    alone = [
        recommender.predict(encode(recommender, frame.iloc[[i]], targets=False))["logits"].numpy()[0] for i in range(20)
    ]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


PROJECTED = 'input_names: "age" feature_type: RawFeature embedding_dim: 4'


def _projection(fields: str, *edits: str) -> np.ndarray:
    """How the rows of age_row begin."""
    recommender = Recommender(load(TEXT.replace(PROJECTED, f"{PROJECTED} {fields}"), *edits).message)
    recommender.build()
    (kernel,) = (v for v in recommender.dense_variables if v.path == "groups/age_row_projection/kernel")
    return np.asarray(kernel)


def test_the_rows_of_numbers_begin_as_their_initializer_says() -> None:
    assert PROJECTED in TEXT
    told = "initializer { constant_initializer { consts: %s } }"
    np.testing.assert_array_equal(_projection(told % "7"), np.full((1, 4), 7.0))
    several = _projection(f"raw_input_dim: 2 {told % [1, 2, 3, 4, 5, 6, 7, 8]}")
    np.testing.assert_array_equal(several, [[1, 2, 3, 4], [5, 6, 7, 8]])
    with pytest.raises(ConfigError, match=r"features\[age_row\].initializer.*8 values, expected 1 value, or 1 x 4"):
        _projection(told % [1, 2, 3, 4, 5, 6, 7, 8])


def test_the_models_initializer_is_for_the_rows_of_numbers_too() -> None:
    edits = "model_config.embedding_initializer.random_normal_initializer.mean=100", "train_config.seed=5"
    first, again = (_projection("raw_input_dim: 3", *edits) for _ in range(2))
    assert np.abs(first - 100).max() < 10
    assert len(np.unique(first)) == 12
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, _projection("raw_input_dim: 3", *edits[:1]))


def test_histories_encoded_without_a_target() -> None:
    """As wide as their steps, the target or not; of the maps of one block each has an encoder of its own."""
    encoder = "self_attention { heads: 4 }"
    text = TEXT.replace(
        'group_name: "history" seq_att_map { key: "item" hist_seq: "seen" }'
        " seq_dnn { hidden_units: [3, 1] use_bn: false }",
        'group_name: "history" seq_att_map { hist_seq: "seen" aux_hist_seq: "again" }'
        f' seq_att_map {{ hist_seq: "again" }} {encoder}',
    ).replace(
        "model_config {",
        'features { feature_name: "again" input_names: "seen" feature_type: SequenceFeature num_buckets: 20'
        " embedding_dim: 4 }\nmodel_config {",
        1,
    )
    recommender = built(text)
    widths = {slot.name: slot.width for slot in recommender.layouts["all"].slots}
    assert (widths["history_0"], widths["history_1"], widths["bare"]) == (8, 4, 4)
    assert [piece.kind for piece in recommender.layouts["all"].pieces][-3:] == [
        *("self_attention", "self_attention", "attention")
    ]
    shapes = {v.path: tuple(v.shape) for v in recommender.dense_variables if v.path.endswith("qkv/kernel")}
    assert shapes == {
        "groups/all_history_0_attention/block_0/qkv/kernel": (8, 24),
        "groups/all_history_1_attention/block_0/qkv/kernel": (4, 12),
    }
    frame = rows(20, seed=4)
    batch = encode(recommender, frame, targets=False)
    weights = recommender.collection.weights(recommender.collection.gather(batch.plan))
    group = recommender.groups(recommender.collection.outputs(weights, batch.plan), batch.numbers)["all"]
    reference = Reference(recommender, frame, training=False)
    seen, again = reference.steps("seen", "item"), reference.steps("again")
    both = [np.concatenate(pair, axis=1) for pair in zip(seen, again, strict=True)]
    for name, histories in (("history_0", both), ("history_1", again)):
        path = f"groups/all_{name}_attention"
        expected = [encoded(reference.variables, path, steps, heads=4) for steps in histories]
        start = sum(list(widths.values())[: list(widths).index(name)])
        np.testing.assert_allclose(group[:, start : start + widths[name]], expected, rtol=1e-3, atol=1e-5)


def test_histories_of_one_map_have_one_length() -> None:
    text = TEXT.replace(
        'sequence_features {\n      group_name: "history" seq_att_map { key: "item" hist_seq: "seen" }',
        'sequence_features {\n      allow_key_search: true group_name: "history"'
        ' seq_att_map { key: ["item", "user"] hist_seq: ["seen", "second"] }',
    ).replace(
        "model_config {",
        'features { feature_name: "second" input_names: "words" feature_type: SequenceFeature'
        " hash_bucket_size: 9 embedding_dim: 4 }\nmodel_config {",
        1,
    )
    recommender = built(text)
    assert {slot.name: slot.width for slot in recommender.layouts["all"].slots}["history"] == 16
    frame = rows(3).assign(seen="1|2", words="a|b")
    recommender.predict(encode(recommender, frame, targets=False))
    with pytest.raises(tf.errors.InvalidArgumentError, match="'history' differ in length"):
        recommender.predict(encode(recommender, frame.assign(words="a|b|c"), targets=False))
