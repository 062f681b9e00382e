"""Batch norms folded into dense layers: the same numbers, and everything as it was afterwards."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from easyrec_lite.layers import MLP, BatchNorm, Side, Sided, folded_batch_norms

RNG = np.random.default_rng(0)
ROWS = tf.constant(RNG.standard_normal([6, 5]), tf.float32)


def shaken(layer: keras.layers.Layer) -> None:
    """Every variable away from its start; variances stay positive."""
    for variable in layer.variables:
        if variable.dtype == "float32":
            noise = RNG.uniform(0.5, 2.0, variable.shape) * RNG.choice([-1, 1], variable.shape)
            variable.assign(np.abs(noise) if "variance" in variable.path else noise)


def values(layer: keras.layers.Layer) -> list[np.ndarray]:
    return [variable.numpy() for variable in layer.variables]


class Towers(keras.layers.Layer):
    """As models have them: a norm, and the MLP that reads it."""

    def __init__(self, **mlp: Any) -> None:
        super().__init__()
        self.norm = BatchNorm(name="input_bn")
        self.mlp = MLP([4, 3], name="dnn", **mlp)

    @property
    def normed_inputs(self) -> list[tuple[BatchNorm, MLP]]:
        return [(self.norm, self.mlp)]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.mlp(self.norm(x))


@pytest.mark.parametrize(
    ("options", "done"),
    [
        ({}, ["shift", "shift"]),
        ({"use_bias": False}, ["shift", "shift"]),
        ({"activation": "dice"}, ["shift", "shift"]),
        ({"use_final_bn": False}, ["shift"]),
        ({"use_bn_after_activation": True}, ["all", "all"]),
    ],
)
def test_mlps(options: dict[str, Any], done: list[str]) -> None:
    mlp = MLP([4, 3], **options)
    mlp(ROWS)
    shaken(mlp)
    expected, before = mlp(ROWS), values(mlp)
    sided = Sided(((Side.USER, ROWS[:1, :2]), (Side.ITEM, ROWS[:, 2:])))
    expected_sided = mlp.call_sided(sided)
    with folded_batch_norms(mlp):
        norms = [layer for layer in mlp._flatten_layers() if layer.name.startswith("bn_")]
        assert [norm.remaining for norm in norms] == done
        np.testing.assert_allclose(mlp(ROWS), expected, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(mlp.call_sided(sided), expected_sided, rtol=2e-5, atol=2e-5)
    assert all(map(np.array_equal, values(mlp), before))
    np.testing.assert_array_equal(mlp(ROWS), expected)


@pytest.mark.parametrize(
    ("options", "done"),
    [
        ({}, "nothing"),
        ({"use_bias": False}, "nothing"),
        ({"use_bn_after_activation": True}, "nothing"),
        ({"use_bn": False}, "nothing"),
        ({"use_bn": False, "use_bias": False}, "all"),  # nowhere to put the shift
    ],
)
def test_norms_of_inputs(options: dict[str, Any], done: str) -> None:
    towers = Towers(**options)
    towers(ROWS)
    shaken(towers)
    expected, before = towers(ROWS), values(towers)
    with folded_batch_norms(towers):
        assert towers.norm.remaining == done
        np.testing.assert_allclose(towers(ROWS), expected, rtol=5e-5, atol=5e-5)
    assert towers.norm.remaining == "all"
    assert all(map(np.array_equal, values(towers), before))


def test_an_error_within_leaves_the_layers_as_they_were() -> None:
    mlp = MLP([4])
    mlp(ROWS)
    shaken(mlp)
    before = values(mlp)
    with pytest.raises(KeyError), folded_batch_norms(mlp):
        raise KeyError
    assert all(map(np.array_equal, values(mlp), before))


def test_a_folded_product_is_one_fused_operation() -> None:
    mlp = MLP([4, 3], use_bias=False)
    mlp(ROWS)

    def kinds() -> set[str]:
        graph = tf.function(mlp.call, autograph=False).get_concrete_function(tf.TensorSpec([None, 5])).graph
        return {op.type for op in graph.get_operations()}

    assert {"Mul", "Rsqrt"} <= kinds()
    with folded_batch_norms(mlp):
        assert not {"Mul", "Rsqrt"} & kinds()
        assert {"MatMul", "BiasAdd", "Relu"} <= kinds()
