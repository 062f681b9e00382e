from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from easyrec_lite.layers import MLP, MMoE, activation, activation_names

RNG = np.random.default_rng(0)


def normal(*shape: int) -> tf.Tensor:
    return tf.constant(RNG.standard_normal(shape), tf.float32)


def layer_types(mlp: MLP) -> list[str]:
    """Variables' layers in order of use, without numbers."""
    seen = dict.fromkeys(v.path.split("/")[1] for v in mlp.variables)
    return list(seen)


def test_numbers_by_hand() -> None:
    mlp = MLP([2, 1], use_bn=False, final_activation="linear")
    mlp.build((None, 2))
    values = ([[1.0, -1.0], [2.0, 1.0]], [0.5, 0.0], [[1.0], [3.0]], [-1.0])
    mlp.set_weights([np.array(value) for value in values])
    # [1, 2] -> [1 + 4 + .5, -1 + 2] = [5.5, 1] -> 5.5 + 3 - 1
    # [-1, 0] -> relu [-.5, 1] = [0, 1] -> 3 - 1
    np.testing.assert_allclose(mlp(tf.constant([[1.0, 2.0], [-1.0, 0.0]])), [[7.5], [2.0]])


def test_order_is_dense_norm_activation_dropout() -> None:
    mlp = MLP([3, 2], [0.5], activation="dice", name="deep")
    mlp(normal(4, 5))
    assert layer_types(mlp) == ["dense_0", "bn_0", "activation_0", "dropout_0", "dense_1", "bn_1", "activation_1"]
    after = MLP([3], activation="dice", use_bn_after_activation=True)
    after(normal(4, 5))
    assert layer_types(after) == ["dense_0", "activation_0", "bn_0"]


def test_the_last_unit_may_differ() -> None:
    mlp = MLP([3, 2], activation="prelu", use_final_bn=False, final_activation="linear", use_final_bias=False)
    mlp(normal(4, 5))
    paths = [v.path.split("/", 1)[1] for v in mlp.trainable_variables]
    assert paths == [
        "dense_0/kernel",
        "dense_0/bias",
        "bn_0/gamma",
        "bn_0/beta",
        "activation_0/alpha",
        "dense_1/kernel",
    ]


def test_paths_hold_the_parents() -> None:
    class Model(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="model")
            self.towers = [MLP([2], use_bn=False, name="user"), MLP([2], use_bn=False, name="item")]

        def call(self, x: tf.Tensor) -> tf.Tensor:
            return self.towers[0](x) + self.towers[1](x)

    model = Model()
    model(normal(1, 2))
    assert [v.path for v in model.variables] == [
        "model/user/dense_0/kernel",
        "model/user/dense_0/bias",
        "model/item/dense_0/kernel",
        "model/item/dense_0/bias",
    ]


def test_kernels_are_drawn_by_he_uniform_each_for_itself() -> None:
    mlp = MLP([64, 64, 64])
    mlp.build((None, 64))
    kernels = [np.asarray(kernel) for kernel in mlp.kernels]
    assert len(kernels) == 3
    assert not np.array_equal(kernels[0], kernels[1])
    limit = np.sqrt(6 / 64)
    for kernel in kernels:
        assert np.abs(kernel).max() <= limit
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.05)


def test_no_hidden_units_is_the_identity() -> None:
    x = normal(2, 3)
    np.testing.assert_array_equal(MLP([])(x), x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_units": [4, 0]}, "positive"),
        ({"hidden_units": [4], "dropout_ratio": [0.1, 0.1]}, "more entries"),
        ({"hidden_units": [4], "dropout_ratio": [1.0]}, "rate"),
        ({"hidden_units": [4], "activation": "rellu"}, "'rellu'.*'relu'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLP(**arguments)


@pytest.mark.parametrize("name", [*activation_names(), "tf.nn.relu", "tf.nn.leaky_relu", "tf.tanh", None, "ReLU"])
def test_every_activation_works_in_the_stack(name: str | None) -> None:
    mlp = MLP([3, 2], activation=name or "")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(mlp(normal(4, 5), training=True)))
    assert np.isfinite(loss)
    assert all(g is not None for g in tape.gradient(loss, [v.value for v in mlp.trainable_variables]))


def test_activation_values() -> None:
    x = tf.constant([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(activation("tf.nn.relu", "a")(x), [0, 0, 2])
    np.testing.assert_allclose(activation("leaky_relu", "a")(x), [-0.2, 0, 2])
    np.testing.assert_allclose(activation("swish", "a")(x), x / (1 + np.exp(-x)), rtol=1e-6)
    np.testing.assert_allclose(activation("softplus", "a")(x), np.log1p(np.exp(x)), rtol=1e-6)
    assert activation("", "a")(x) is x


def test_dice_gates_by_the_normalised_input() -> None:
    dice = activation("dice", "dice")
    x = RNG.standard_normal((64, 3)).astype(np.float32)
    result = dice(tf.constant(x), training=True)
    z = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3)
    np.testing.assert_allclose(result, x / (1 + np.exp(-z)), atol=1e-5)


def test_mlp_survives_its_config() -> None:
    mlp = MLP([3, 2], [0.1], activation="dice", use_final_bn=False, final_activation="", initializer="glorot_normal")
    clone = MLP.from_config(mlp.get_config())
    assert clone.get_config() == mlp.get_config()


def test_mmoe_mixes_experts_by_softmax_gates() -> None:
    mmoe = MMoE(2, [[3], [3]], mlp={"use_bn": False}, name="mmoe")
    x = normal(4, 5)
    outputs = mmoe(x)
    experts = [np.asarray(expert(x)) for expert in mmoe.experts]
    for gate, output in zip(mmoe.gates, outputs, strict=True):
        g = tf.nn.softmax(x @ gate.kernel + gate.bias).numpy()
        np.testing.assert_allclose(output, g[:, :1] * experts[0] + g[:, 1:] * experts[1], rtol=1e-5, atol=1e-6)
    assert [v.path for v in mmoe.variables][-1] == "mmoe/gate_1/bias"
    assert len(mmoe.kernels) == 4


def test_mmoe_trains_its_experts_in_training_mode() -> None:
    mmoe = MMoE(1, [[3]])
    mmoe(normal(4, 5), training=True)
    norm = next(v for v in mmoe.variables if v.path.endswith("bn_0/counter"))
    assert int(norm) == 1


def test_mmoe_refuses_experts_of_unequal_width() -> None:
    with pytest.raises(ValueError, match="one width"):
        MMoE(2, [[4, 3], [4]])
