from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from easyrec_lite.layers import BatchNorm

RNG = np.random.default_rng(0)


def test_training_output_and_gradients_are_the_textbook_ones() -> None:
    x = tf.constant(RNG.standard_normal((64, 5)) * 3 + 2, tf.float32)
    upstream = tf.constant(RNG.standard_normal((64, 5)), tf.float32)
    layer = BatchNorm()
    layer.build(x.shape)
    layer.gamma.assign(RNG.standard_normal(5))
    layer.beta.assign(RNG.standard_normal(5))
    variables = [layer.gamma.value, layer.beta.value]

    def reference(x: tf.Tensor) -> tf.Tensor:
        mean, variance = tf.nn.moments(x, [0])
        return tf.nn.batch_normalization(x, mean, variance, variables[1], variables[0], 1e-3)

    results = []
    for function in (lambda x: layer(x, training=True), reference):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        results.append([y, *tape.gradient(y, [x, *variables], upstream)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)


def test_first_step_replaces_the_initial_averages() -> None:
    x = RNG.standard_normal((100, 3)) * 5 + 7
    layer = BatchNorm()
    layer(tf.constant(x, tf.float32), training=True)
    np.testing.assert_allclose(layer.moving_mean, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, x.var(0, ddof=1), rtol=1e-5)


def test_averages_use_the_warming_momentum() -> None:
    layer, mean = BatchNorm(momentum=0.4), 0.0
    for step in range(12):
        x = RNG.standard_normal((8, 1)) + step
        layer(tf.constant(x, tf.float32), training=True)
        keep = min(0.4, step / (step + 9))
        mean = keep * mean + (1 - keep) * x.mean()
    np.testing.assert_allclose(layer.moving_mean, [mean], rtol=1e-5)
    assert int(layer.counter) == 12


def test_a_few_hundred_steps_are_enough_for_inference() -> None:
    """After 200 steps of a drifting input the averages are near the present; with a fixed 0.99 they are far."""
    layer = BatchNorm()
    for step in range(200):
        layer(tf.constant(RNG.standard_normal((256, 1)) + step / 20, tf.float32), training=True)
    assert float(layer.moving_mean[0]) == pytest.approx(10.0, abs=1.5)
    assert float(layer.moving_variance[0]) == pytest.approx(1.0, abs=0.05)


def test_inference_uses_and_keeps_the_averages() -> None:
    layer = BatchNorm()
    layer.build((None, 2))
    layer.moving_mean.assign([1.0, 2.0])
    layer.moving_variance.assign([4.0 - 1e-3, 1.0 - 1e-3])
    np.testing.assert_allclose(layer(tf.constant([[3.0, 2.0]])), [[1.0, 0.0]], atol=1e-6)
    assert int(layer.counter) == 0


def test_an_empty_batch_changes_nothing() -> None:
    layer = BatchNorm()
    layer(tf.ones([4, 2]) * 3, training=True)
    y = layer(tf.zeros([0, 2]), training=True)
    assert y.shape == (0, 2)
    np.testing.assert_array_equal(layer.moving_mean, [3.0, 3.0])
    assert int(layer.counter) == 1


def test_higher_ranks_normalise_the_last_axis() -> None:
    x = RNG.standard_normal((4, 6, 3)).astype(np.float32)
    flat = BatchNorm()(tf.constant(x.reshape(24, 3)), training=True)
    np.testing.assert_array_equal(tf.reshape(BatchNorm()(tf.constant(x), training=True), [24, 3]), flat)


def test_training_is_deterministic() -> None:
    x = tf.constant(RNG.standard_normal((4096, 64)), tf.float32)
    runs = [BatchNorm()(x, training=True).numpy() for _ in range(5)]
    assert all(np.array_equal(run, runs[0]) for run in runs)


def test_arguments_are_checked_and_survive_the_config() -> None:
    with pytest.raises(ValueError, match="momentum"):
        BatchNorm(momentum=1.0)
    with pytest.raises(ValueError, match="epsilon"):
        BatchNorm(epsilon=0.0)
    layer = BatchNorm(momentum=0.9, epsilon=1e-2, scale=False)
    assert BatchNorm.from_config(layer.get_config()).get_config() == layer.get_config()
