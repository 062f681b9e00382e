"""A dense layer that treats the user's columns once a request."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import keras
import tensorflow as tf

from easyrec_lite.layers.sided import Side, Sided


@keras.saving.register_keras_serializable("easyrec_lite")
class Dense(keras.layers.Dense):
    """`keras.layers.Dense` for [B, D] or `Sided` input.

    W[u; i] = W_u u + W_i i, so a one-row user part costs one row, whatever the number of items.
    """

    def call_sided(self, x: Sided, **_: Any) -> tf.Tensor:
        """Sided [B, D] -> [B, units]."""
        pairs = list(zip(x.parts, x.by_columns(tf.convert_to_tensor(self.kernel)), strict=True))
        # What has one row comes first, the bias too: each sum over all the items' rows is a pass over [B, units].
        terms = [tf.matmul(part, kernel) for (side, part), kernel in pairs if side is Side.USER]
        if self.use_bias:
            terms.append(tf.convert_to_tensor(self.bias)[None])
        others = [(part, kernel) for (side, part), kernel in pairs if side is not Side.USER]
        if others:
            parts, kernels = zip(*others, strict=True)
            terms.append(tf.matmul(_joined(parts, axis=1), _joined(kernels, axis=0)))
        y = reduce(tf.add, terms)
        return y if self.activation is None else self.activation(y)


def _joined(tensors: Sequence[tf.Tensor], axis: int) -> tf.Tensor:
    return tensors[0] if len(tensors) == 1 else tf.concat(tensors, axis=axis)
