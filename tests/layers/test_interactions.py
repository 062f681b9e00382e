from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import tensorflow as tf

from easyrec_lite.layers import FM, Similarity

RNG = np.random.default_rng(0)


def normal(*shape: int) -> tf.Tensor:
    return tf.constant(RNG.standard_normal(shape), tf.float32)


def test_fm_is_the_sum_over_pairs() -> None:
    x = normal(3, 4, 2)
    pairs = sum(x[:, i] * x[:, j] for i, j in combinations(range(4), 2))
    np.testing.assert_allclose(FM(use_variant=True)(x), pairs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(FM()(x), tf.reduce_sum(pairs, 1, keepdims=True), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(FM(dim=2)(tf.reshape(x, [3, 8])), FM()(x))


@pytest.mark.parametrize("use_variant", [False, True])
def test_the_gradient_of_fm_is_that_of_the_sum_over_pairs(use_variant: bool) -> None:
    x, upstream = normal(3, 4, 2), normal(3, 2 if use_variant else 1)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        pairs = tf.add_n([x[:, i] * x[:, j] for i, j in combinations(range(4), 2)])
        expected = tf.reduce_sum(upstream * pairs)
        three = FM(use_variant)(x, training=True)
        two = FM(use_variant, dim=2)(tf.reshape(x, [3, 8]), training=True)
    np.testing.assert_allclose(tape.gradient(three, x, upstream), tape.gradient(expected, x), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(three, FM(use_variant)(x))
    np.testing.assert_array_equal(tape.gradient(two, x, upstream), tape.gradient(three, x, upstream))


def test_fm_names_no_gradient_of_its_own_in_an_exported_graph() -> None:
    layer = FM()
    traced = tf.function(lambda x: layer(x)).get_concrete_function(tf.TensorSpec([None, 4, 2]))
    assert not any("_gradient_op_type" in operation.node_def.attr for operation in traced.graph.get_operations())


def test_fm_needs_fields_of_one_width() -> None:
    for layer in (FM(), FM(dim=3)):
        with pytest.raises(ValueError, match="one width"):
            layer(normal(2, 8))


def test_cosine() -> None:
    user, item = normal(4, 3), normal(4, 3)
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (user.numpy(), item.numpy()))
    layer = Similarity("cosine", temperature=0.1)
    np.testing.assert_allclose(layer(user, item), (u * v).sum(1) / 0.1, rtol=1e-5)
    np.testing.assert_allclose(layer(user, item, pairwise=True), u @ v.T / 0.1, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.normalize(user), u, rtol=1e-6)
    assert layer.variables == []


def test_scaled_inner_product() -> None:
    layer = Similarity("inner_product", scale=True, temperature=2.0, name="sim")
    user, item = normal(2, 3), normal(5, 3)
    layer(user, item, pairwise=True)
    layer.sim_w.assign(-3.0)
    layer.sim_b.assign(1.0)
    expected = (3.0 * user.numpy() @ item.numpy().T + 1.0) / 2.0
    np.testing.assert_allclose(layer(user, item, pairwise=True), expected, rtol=1e-5)
    np.testing.assert_allclose(layer(user[:1], item), expected[0], rtol=1e-5)
    assert [v.path for v in layer.variables] == ["sim/sim_w", "sim/sim_b"]


def test_a_zero_vector_has_similarity_0_and_finite_gradients() -> None:
    user = tf.zeros([1, 3])
    with tf.GradientTape() as tape:
        tape.watch(user)
        y = Similarity()(user, normal(1, 3))
    assert float(y[0]) == 0.0
    assert np.isfinite(tape.gradient(y, user)).all()


def test_similarity_arguments() -> None:
    with pytest.raises(ValueError, match="kind"):
        Similarity("euclid")
    with pytest.raises(ValueError, match="temperature"):
        Similarity(temperature=0.0)
    layer = Similarity("inner_product", scale=True)
    assert Similarity.from_config(layer.get_config()).get_config() == layer.get_config()
