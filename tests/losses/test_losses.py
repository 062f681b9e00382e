from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from easyrec_lite import losses

RNG = np.random.default_rng(0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


LABELS = RNG.integers(0, 2, 50).astype(np.float32)
LOGITS = RNG.standard_normal(50).astype(np.float32) * 3
ENTROPY = -(LABELS * np.log(sigmoid(LOGITS)) + (1 - LABELS) * np.log(1 - sigmoid(LOGITS)))


def test_weighted_mean() -> None:
    values = tf.constant([1.0, 2.0, 6.0])
    assert float(losses.weighted_mean(values)) == 3.0
    assert float(losses.weighted_mean(values, tf.constant([2.0, 0.0, 1.0]))) == pytest.approx(8 / 3)
    assert float(losses.weighted_mean(values, tf.constant([2, 0, 1], tf.int64))) == pytest.approx(8 / 3)
    assert float(losses.weighted_mean(values, tf.zeros(3))) == 0.0
    assert float(losses.weighted_mean(tf.zeros([0]))) == 0.0


def test_sigmoid_cross_entropy() -> None:
    np.testing.assert_allclose(losses.sigmoid_cross_entropy(LABELS, tf.constant(LOGITS)), ENTROPY, rtol=1e-4, atol=1e-6)
    extreme = losses.sigmoid_cross_entropy(tf.constant([0, 1], tf.int64), tf.constant([200.0, -200.0]))
    np.testing.assert_allclose(extreme, [200.0, 200.0])


def test_probability_cross_entropy() -> None:
    probs = tf.constant(sigmoid(LOGITS))
    np.testing.assert_allclose(losses.probability_cross_entropy(LABELS, probs), ENTROPY, rtol=1e-3, atol=1e-5)
    sure = losses.probability_cross_entropy(tf.constant([1.0, 0.0]), tf.constant([0.0, 1.0]))
    np.testing.assert_allclose(sure, [-np.log(1e-7)] * 2, rtol=2e-2)


def test_softmax_cross_entropy() -> None:
    logits = RNG.standard_normal((6, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 2, 1, 0])
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), labels]
    np.testing.assert_allclose(losses.softmax_cross_entropy(labels, tf.constant(logits)), expected, rtol=1e-5)


def test_squared_errors() -> None:
    np.testing.assert_allclose(losses.l2(LABELS, tf.constant(LOGITS)), (LABELS - LOGITS) ** 2, rtol=1e-5)
    np.testing.assert_allclose(
        losses.sigmoid_l2(LABELS, tf.constant(LOGITS)), (LABELS - sigmoid(LOGITS)) ** 2, rtol=1e-4, atol=1e-7
    )


def test_l2_penalty_is_half_the_sum_of_squares() -> None:
    tensors = [tf.constant([[1.0, 2.0]]), tf.constant([3.0])]
    assert float(losses.l2_penalty(tensors, 0.1)) == pytest.approx(0.7)
    assert float(losses.l2_penalty(tensors, 0.0)) == 0.0
    assert float(losses.l2_penalty([], 0.1)) == 0.0
