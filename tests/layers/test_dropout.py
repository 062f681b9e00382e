from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from easyrec_lite.layers import Dropout

ONES = tf.ones([64, 33])


def masks(layer: Dropout, count: int) -> list[np.ndarray]:
    call = tf.function(lambda: layer(ONES, training=True))
    return [call().numpy() for _ in range(count)]


def test_share_and_scale() -> None:
    y = Dropout(0.3, seed=1)(tf.ones([1000, 100]), training=True).numpy()
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.006)
    assert np.unique(y) == pytest.approx([0, 1 / 0.7], rel=1e-4)
    assert y.mean() == pytest.approx(1.0, abs=0.01)


def test_inference_is_the_identity_and_takes_no_step() -> None:
    layer = Dropout(0.5, seed=1)
    np.testing.assert_array_equal(layer(ONES), ONES)
    np.testing.assert_array_equal(layer.seed_state, [1, 0])


def test_masks_continue_bit_by_bit_after_a_restore() -> None:
    layer = Dropout(0.5, seed=7)
    masks(layer, 3)
    saved = layer.seed_state.numpy()
    expected = masks(layer, 3)
    resumed = Dropout(0.5, seed=8)
    resumed.build(ONES.shape)
    resumed.seed_state.assign(saved)
    for one, other in zip(expected, masks(resumed, 3), strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_step_and_every_seed_has_its_own_mask() -> None:
    drawn = [*masks(Dropout(0.5, seed=1), 4), *masks(Dropout(0.5, seed=2), 4)]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert np.mean((one == 0) == (other == 0)) == pytest.approx(0.5, abs=0.06)


def test_default_seeds_follow_the_global_one_and_differ_by_layer() -> None:
    def seeds() -> list[int]:
        keras.utils.set_random_seed(3)
        layers = [Dropout(0.5) for _ in range(3)]
        for layer in layers:
            layer.build((None, 2))
        return [int(layer.seed_state[0]) for layer in layers]

    assert seeds() == seeds()
    assert len(set(seeds())) == 3


def test_gradient_is_the_mask() -> None:
    layer = Dropout(0.5, seed=1)
    with tf.GradientTape() as tape:
        tape.watch(ONES)
        y = layer(ONES, training=True)
    np.testing.assert_array_equal(tape.gradient(y, ONES), y)


def test_odd_sizes_and_empty_batches() -> None:
    layer = Dropout(0.5, seed=1)
    assert layer(tf.ones([3, 5]), training=True).shape == (3, 5)
    assert layer(tf.ones([0, 5]), training=True).shape == (0, 5)


def test_rate_is_checked() -> None:
    with pytest.raises(ValueError, match="rate"):
        Dropout(1.0)
