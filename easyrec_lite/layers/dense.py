"""A dense layer that treats the user's columns once a request."""

from __future__ import annotations

from functools import reduce
from typing import Any

import keras
import tensorflow as tf

from easyrec_lite.layers.sided import Sided


@keras.saving.register_keras_serializable("easyrec_lite")
class Dense(keras.layers.Dense):
    """`keras.layers.Dense` for [B, D] or `Sided` input.

    W[u; i] = W_u u + W_i i, so a one-row user part costs one row, whatever the number of items.
    """

    def call_sided(self, x: Sided, **_: Any) -> tf.Tensor:
        """Sided [B, D] -> [B, units]."""
        kernels = x.by_columns(tf.convert_to_tensor(self.kernel))
        products = [tf.matmul(part, kernel) for (_, part), kernel in zip(x.parts, kernels, strict=True)]
        y = reduce(tf.add, products)
        if self.use_bias:
            y = tf.nn.bias_add(y, tf.convert_to_tensor(self.bias))
        return y if self.activation is None else self.activation(y)
