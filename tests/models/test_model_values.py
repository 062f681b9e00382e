"""Every model against NumPy: predictions, losses, gradients, names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from model_reference import Reference
from tiny import MODELS, built, encode, load, rows

from easyrec_lite.models import Recommender

NAMES = Path(__file__).parent / "data" / "variable_names.json"

OUTPUTS = {
    "multi_tower": ["logits", "probs"],
    "self_attention": ["logits", "probs"],
    "din": ["logits", "probs"],
    "dssm": ["item_tower_emb", "logits", "probs", "user_tower_emb"],
    "dssm_pointwise": ["item_tower_emb", "logits", "probs", "user_tower_emb"],
    "dbmtl": ["logits_buy", "logits_click", "probs_buy", "probs_click"],
    "dbmtl_experts": ["logits_buy", "logits_click", "probs_buy", "probs_click"],
    "deepfm": ["logits", "probs"],
    "deepfm_final": ["logits", "probs"],
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> tuple[str, Recommender]:
    """Each model with random weights."""
    return request.param, built(MODELS[request.param])


def test_predictions(model: tuple[str, Recommender]) -> None:
    name, recommender = model
    frame = rows(24, seed=1)
    predictions = recommender.predict(encode(recommender, frame, targets=False))
    expected = getattr(Reference(recommender, frame, training=False), name)()
    assert sorted(predictions) == OUTPUTS[name] == sorted(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(predictions[key], value, rtol=2e-4, atol=2e-5, err_msg=key)


def test_losses(model: tuple[str, Recommender]) -> None:
    name, recommender = model
    frame = rows(24, seed=2)
    reference = Reference(recommender, frame, training=True)
    batch = encode(recommender, frame)
    weights = recommender.collection.weights(recommender.collection.gather(batch.plan))
    predictions, embedding_l2 = recommender.forward(weights, batch, training=True)
    losses = recommender.losses(predictions, batch.targets, embedding_l2)
    expected_predictions = getattr(reference, name)()
    for key, value in expected_predictions.items():
        np.testing.assert_allclose(predictions[key], value, rtol=1e-3, atol=1e-4, err_msg=key)
    expected = reference.losses(name, expected_predictions)
    assert list(losses) == recommender.loss_names
    assert {key: float(value) for key, value in losses.items()} == pytest.approx(expected, rel=1e-3)


def test_gradients_reach_every_variable_and_row(model: tuple[str, Recommender]) -> None:
    _, recommender = model
    batch = encode(recommender, rows(24, seed=3))
    weights = recommender.collection.weights(recommender.collection.gather(batch.plan))
    variables = [variable.value for variable in recommender.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(weights)
        predictions, _ = recommender.forward(weights, batch, training=True)
        total = tf.add_n(list(recommender.model.task_losses(predictions, batch.targets).values()))
    dense, sparse = tape.gradient(total, (variables, weights))
    for variable, gradient in zip(recommender.trainable_variables, dense, strict=True):
        assert gradient is not None, variable.path
        # What is added to all scores of a softmax changes nothing.
        if "attention/dense_1/bias" not in variable.path:
            assert np.any(np.abs(gradient) > 1e-9), variable.path
    for key, gradient in sparse.items():
        gradient = tf.convert_to_tensor(gradient).numpy()
        assert gradient.shape == weights[key].shape
        touched = np.any(gradient != 0, axis=1)
        assert touched[1:].mean() > 0.9, key  # ReLUs may shut a row's only example out


def test_variable_names_stay(model: tuple[str, Recommender]) -> None:
    """Checkpoints, warm starts and users' scripts know variables by these names."""
    name, recommender = model
    tables = [view.name for view in recommender.collection.views() if view.name.endswith("/weights")]
    names = [*sorted(tables), *(variable.path for variable in recommender.dense_variables)]
    assert len(set(names)) == len(names)
    assert names == json.loads(NAMES.read_text())[name]


def test_the_seed_decides_the_initial_weights() -> None:
    def weights(seed: int) -> list[np.ndarray]:
        recommender = Recommender(load(MODELS["din"], f"train_config.seed={seed}").message)
        recommender.build()
        return [v.numpy() for v in recommender.dense_variables] + [
            view.read(0, view.shape[0]) for view in recommender.collection.views()
        ]

    first, again, other = weights(5), weights(5), weights(6)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    kernels = [(a, b) for a, b in zip(first, other, strict=True) if a.ndim == 2 and a.any()]
    assert kernels
    assert not any(np.array_equal(a, b) for a, b in kernels)


def test_layers_of_one_shape_start_differently() -> None:
    """One seed for the run must not mean one value for all layers."""
    recommender = Recommender(load(MODELS["dbmtl_experts"]).message)
    recommender.build()
    kernels = {
        v.path: v.numpy() for v in recommender.dense_variables if "expert_" in v.path and v.path[-6:] == "kernel"
    }
    assert len(kernels) == 3
    assert len({kernel.tobytes() for kernel in kernels.values()}) == 3


def test_a_relation_dnn_without_relations() -> None:
    """Every tower that has the field has the layers; relations without them are concatenated."""
    click, buy = "dnn { hidden_units: [4, 2] }", "relation_dnn { hidden_units: [3] use_bn: false }"
    assert click in MODELS["dbmtl"]
    text = MODELS["dbmtl"].replace(buy, "").replace(click, f"{click} {buy}")
    recommender = built(text)
    frame = rows(24, seed=1)
    reference = Reference(recommender, frame, training=False)
    x = reference.mlp(reference.all_features(), "model/bottom_dnn")
    seen = reference.mlp(reference.mlp(x, "model/click_dnn"), "model/click_relation_dnn")
    expected = {"click": seen, "buy": np.concatenate([reference.mlp(x, "model/buy_dnn"), seen], 1)}
    predictions = recommender.predict(encode(recommender, frame, targets=False))
    for task, hidden in expected.items():
        logits = reference.dense(hidden, f"model/{task}_output")[:, 0]
        np.testing.assert_allclose(predictions[f"logits_{task}"], logits, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("place", ["din_towers", "sequence_features"])
def test_attention_reads_the_fields_of_its_network(place: str) -> None:
    """In din_towers and in sequence_features alike."""
    network, history = "dnn { hidden_units: [3, 1] use_bn: false }", 'seq_att_map { key: "item" hist_seq: "seen" }'
    within = f'sequence_features {{ group_name: "q" {history} allow_key_search: true seq_%s }}'

    def started(fields: str) -> dict[str, np.ndarray]:
        own = network.replace("}", f"{fields} }}")
        text = MODELS["din"].replace(network, own)
        if place == "sequence_features":
            text = MODELS["din"].replace('["user", "age"]', f'["user", "age"] {within % own}')
        recommender = Recommender(load(text).message)
        recommender.build()
        path = "history_attention/" if place == "din_towers" else "user_q_attention/"
        return {v.path.split(path)[1]: np.asarray(v) for v in recommender.dense_variables if path in v.path}

    plain = started("")
    assert {name for name in plain if name.endswith("bias")} == {"attention/dense_0/bias", "attention/dense_1/bias"}
    first = plain["attention/dense_0/kernel"]
    assert np.abs(first).max() <= np.sqrt(6 / sum(first.shape))  # glorot_uniform, as in the completed config
    told = started('use_bias: false use_final_bias: false initializer: "zeros"')
    assert sorted(told) == ["attention/dense_0/kernel", "attention/dense_1/kernel"]
    assert not any(kernel.any() for kernel in told.values())
