from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from easyrec_lite.losses import in_batch_softmax, weighted_mean

RNG = np.random.default_rng(0)
IDS = np.array([7, 3, 7, 5, 3, 9, 3])  # five rows, two more sampled negatives


def reference(logits: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
    """From the definition, row by row."""
    rows = []
    for i, row in enumerate(logits.astype(np.float64)):
        keep = np.ones(len(row), bool) if ids is None else ids != ids[i]
        keep[i] = True
        rows.append(np.log(np.exp(row[keep] - row.max()).sum()) + row.max() - row[i])
    return np.array(rows)


def plain(logits: tf.Tensor, ids: np.ndarray | None) -> tf.Tensor:
    """By TensorFlow's own op, for the gradients."""
    if ids is not None:
        rows = logits.shape[0]
        hits = (ids[:rows, None] == ids[None]) & ~np.eye(rows, len(ids), dtype=bool)
        logits = tf.where(hits, -1e30, logits)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.range(logits.shape[0]), logits)


@pytest.mark.parametrize("ids", [None, IDS, IDS.astype(str)], ids=["all", "int ids", "string ids"])
def test_values_and_gradients(ids: np.ndarray | None) -> None:
    logits = tf.constant(RNG.standard_normal((5, 7)) * 4, tf.float32)
    weights = tf.constant([1.0, 0.0, 2.0, 0.5, 1.0])
    tensor = None if ids is None else tf.constant(ids)
    np.testing.assert_allclose(in_batch_softmax(logits, tensor), reference(logits.numpy(), ids), rtol=1e-5)
    gradients = []
    for function, keys in ((in_batch_softmax, tensor), (plain, ids)):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = weighted_mean(function(logits, keys), weights)
        gradients.append(tape.gradient(loss, logits))
    np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-7)


def test_accidental_hits_get_no_gradient() -> None:
    logits = tf.zeros([2, 2])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = in_batch_softmax(logits, tf.constant([4, 4]))
    np.testing.assert_array_equal(loss, [0.0, 0.0])
    np.testing.assert_array_equal(tape.gradient(loss, logits), np.zeros((2, 2)))


def test_an_own_item_of_probability_zero_keeps_its_loss_and_gradient() -> None:
    logits = tf.constant([[0.0, 500.0], [0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = in_batch_softmax(logits)
    np.testing.assert_allclose(loss, [500.0, np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(loss, logits), [[-1.0, 1.0], [0.5, -0.5]])


def test_works_in_a_graph_with_unknown_rows() -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, None]), tf.TensorSpec([None], tf.int64)])
    def step(logits: tf.Tensor, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        loss = weighted_mean(in_batch_softmax(logits, ids))
        return loss, tf.gradients(loss, logits)[0]

    logits = RNG.standard_normal((5, 7)).astype(np.float32)
    loss, gradient = step(logits, IDS)
    assert float(loss) == pytest.approx(reference(logits, IDS).mean(), rel=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(gradient, axis=1), np.zeros(5), atol=1e-6)
