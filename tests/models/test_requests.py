"""One user and N items: the same predictions as with the user in every row, and the user's part of one row."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import MODELS, built, columns, rows

from easyrec_lite import models
from easyrec_lite.layers import Side
from easyrec_lite.models import Model, Recommender, register

SIDES = [f"data_config.input_fields[{name}].side=USER" for name in ("seen", "tags")]


def request(recommender: Recommender, user: int, items: int = 30) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """A request, and the same with the user in every row."""
    given = {n: c for n, c in columns(rows(items, seed=8)).items() if n in recommender.feature_columns}
    own = recommender.user_columns
    one = {name: column[user : user + 1] if name in own else column for name, column in given.items()}
    whole = {name: tf.repeat(column, items) if name in own else column for name, column in one.items()}
    return one, whole


def check(recommender: Recommender) -> dict[str, tf.Tensor]:
    found: dict[str, tf.Tensor] = {}
    for user in range(4):
        one, whole = request(recommender, user)
        found = recommender.predict_request(recommender.collection.variables_by_bucket, one)
        expected = recommender.predict(recommender.encode(whole, targets=False))
        assert set(found) == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name] + tf.zeros_like(values), values, atol=1e-5, err_msg=name)
    return found


@pytest.mark.parametrize("model", MODELS)
def test_every_model(model: str) -> None:
    found = check(built(MODELS[model], *SIDES, training=False))
    if model.startswith("dssm"):
        assert found["user_tower_emb"].shape == (1, 3)  # computed once


@pytest.mark.parametrize("user", [["item"], ["user", "item"], ["item", "seen"]])
def test_any_columns_may_be_the_users(user: list[str]) -> None:
    """A target that is the user's, a history that is the item's: nothing depends on what the columns are called."""
    names = ("user", "gender", "age", "item", "seen")
    sides = [f"data_config.input_fields[{n}].side={'USER' if n in user else 'ITEM'}" for n in names]
    check(built(MODELS["din"], *sides, training=False))


@pytest.mark.parametrize("user", [["user"], ["user", "item", "seen"]])
def test_an_encoded_history_is_whose_it_is(user: list[str]) -> None:
    names = ("user", "age", "item", "seen")
    sides = [f"data_config.input_fields[{n}].side={'USER' if n in user else 'ITEM'}" for n in names]
    check(built(MODELS["self_attention"], *sides, training=False))


def test_a_history_is_encoded_once_a_user() -> None:
    recommender = built(MODELS["self_attention"], *SIDES, training=False)
    one, _ = request(recommender, 1)
    specs = {n: tf.TensorSpec([1 if n in recommender.user_columns else None], x.dtype) for n, x in one.items()}

    def predict(given: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return recommender.predict_request(recommender.collection.variables_by_bucket, given)

    graph = tf.function(predict, input_signature=[specs], autograph=False).get_concrete_function().graph
    products = [op for op in graph.get_operations() if op.type.startswith("BatchMatMul")]
    assert [op.outputs[0].shape[0] for op in products] == [1] * 4  # two a block
    assert not any("While" in op.type for op in graph.get_operations())


def test_sides_of_features() -> None:
    text = MODELS["multi_tower"].replace(
        "model_config {",
        'features { feature_name: "cross" input_names: ["user", "item"] feature_type: ComboFeature'
        " hash_bucket_size: 50 embedding_dim: 4 }\nmodel_config {",
        1,
    )
    text = text.replace('["item", "price", "age_row"]', '["item", "price", "age_row", "cross"]')
    recommender = built(text, training=False)
    sides = {name: recommender.sides[name] for name in ("user", "age_row", "item", "price", "tags", "cross")}
    assert sides == {
        "user": Side.USER,
        "age_row": Side.USER,
        "item": Side.ITEM,
        "price": Side.ITEM,  # not said
        "tags": Side.ITEM,
        "cross": Side.BOTH,
    }
    check(recommender)


def test_training_looks_up_together_what_goes_together() -> None:
    requests = {training: built(MODELS["dbmtl"], training=training).collection.requests for training in (True, False)}
    assert [request.features for request in requests[True] if hasattr(request, "features")] == [("user", "item")]
    assert [request.features for request in requests[False] if hasattr(request, "features")] == [("user",), ("item",)]


def test_a_model_that_knows_no_sides() -> None:
    @register("Plain")
    class Plain(Model):
        """Reads groups as tensors, a history among them."""

        params_field = "model_params"

        def __init__(self, config, layouts) -> None:  # type: ignore[no-untyped-def]
            super().__init__(config, layouts)
            self.last = keras.layers.Dense(1, name="last")

        def call(self, groups, training=False):  # type: ignore[no-untyped-def]
            (history,) = groups["history"]
            steps = tf.RaggedTensor.from_row_splits(history.keys, history.row_splits)
            parts = [groups["user"], history.query, tf.reduce_sum(steps, axis=1)]
            return self.tasks[0].predictions(self.last(tf.concat(parts, axis=1)))

    try:
        text = MODELS["din"].replace('"MultiTowerDIN"', '"Plain"')
        start = text.index("  multi_tower {")
        check(built(text[:start] + "  model_params { l2_regularization: 0.1 }\n}\n", *SIDES, training=False))
    finally:
        models.registry._MODELS.pop("Plain")
