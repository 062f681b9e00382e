"""Activations by the names that EasyRec's configs use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from easyrec_lite.layers.batch_norm import BatchNorm

Activation = Callable[[tf.Tensor], tf.Tensor]


def _linear(x: tf.Tensor) -> tf.Tensor:
    return x


def _leaky_relu(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.leaky_relu(x, alpha=0.2)


def _gelu(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.gelu(x, approximate=True)


_FUNCTIONS: dict[str, Activation] = {
    "": _linear,
    "none": _linear,
    "linear": _linear,
    "relu": tf.nn.relu,
    "sigmoid": tf.nn.sigmoid,
    "tanh": tf.nn.tanh,
    "leaky_relu": _leaky_relu,
    "gelu": _gelu,
    "swish": tf.nn.silu,
    "silu": tf.nn.silu,
    "elu": tf.nn.elu,
    "selu": tf.nn.selu,
    "softplus": tf.nn.softplus,
}


@keras.saving.register_keras_serializable("easyrec_lite")
class Dice(keras.layers.Layer):
    """Data-adaptive PReLU (DIN, Zhou et al., 2018): [..., D] -> [..., D].

    p * x + (1 - p) * alpha * x with p = sigmoid(batch norm of x, without gamma and beta) and one alpha a column.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # EasyRec's epsilon of 1e-9 makes p a step function on a constant column; BatchNorm's own default does not.
        self.norm = BatchNorm(center=False, scale=False, name="bn")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates alpha [D] and the normalisation's averages."""
        self.alpha = self.add_weight(name="alpha", shape=(input_shape[-1],), initializer="zeros")
        self.norm.build(input_shape)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """[..., D] -> [..., D]."""
        p = tf.nn.sigmoid(self.norm(x, training=training))
        return x * (p + (1.0 - p) * self.alpha)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape."""
        return input_shape


def activation_names() -> tuple[str, ...]:
    """All names that `activation` takes; each may also be written with the prefix `tf.nn.` or `tf.`."""
    return (*sorted(_FUNCTIONS), "dice", "prelu")


def activation(name: str | None, layer_name: str) -> Activation | keras.layers.Layer:
    """The activation of a name: a function, or a new layer (named `layer_name`) for those that learn.

    Raises:
        ValueError: no activation has that name.
    """
    key = (name or "").lower()
    for prefix in ("tf.nn.", "tf.keras.activations.", "tf."):
        key = key.removeprefix(prefix)
    if key == "dice":
        return Dice(name=layer_name)
    if key == "prelu":
        return keras.layers.PReLU(name=layer_name)
    if key not in _FUNCTIONS:
        known = ", ".join(repr(known) for known in activation_names())
        raise ValueError(f"No activation is called {name!r}; there are {known}.")
    return _FUNCTIONS[key]
