"""Second-order factorisation machine (Rendle, 2010)."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import keras
import tensorflow as tf

from easyrec_lite.layers.sided import Sided


@keras.saving.register_keras_serializable("easyrec_lite")
class FM(keras.layers.Layer):
    """The sum of products of all pairs of fields, in linear time: 0.5 * ((sum_f e_f)^2 - sum_f e_f^2).

    Args:
        use_variant: keep the vector [B, d] (EasyRec's variant); otherwise it is summed to [B, 1].
        dim: d, for input as a matrix [B, F * d] (field by field) or `Sided`; not needed for [B, F, d].

    Raises:
        ValueError: matrix input without `dim`, or of a width that is no multiple of it.
    """

    def __init__(self, use_variant: bool = False, dim: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.use_variant = use_variant
        self.dim = dim

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, F, d] or [B, F * d] -> [B, d] with use_variant, else [B, 1]; in training, with a faster gradient."""
        fields = self._fields(x)
        if not training:  # an exported graph would name a gradient that whoever loads it doesn't have
            return self._interact(*_sums(fields))
        _, count, dim = fields.shape

        @tf.custom_gradient
        def interaction(matrix: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            total, squares = _sums(tf.reshape(matrix, [-1, count, dim]))

            def repeated(part: tf.Tensor) -> tf.Tensor:
                return tf.concat([part] * count, axis=1)  # several times as fast as TensorFlow's broadcasts

            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                """Of a field: upstream * (total - field)."""
                own = repeated(upstream) if self.use_variant else upstream
                return repeated(upstream * total) - own * matrix

            return self._interact(total, squares), gradient

        return interaction(tf.reshape(x, [-1, count * dim]))

    def call_sided(self, x: Sided, training: bool = False) -> tf.Tensor:
        """The same outside of training, with the sums over the user's fields taken once."""
        sums, squares = zip(*(_sums(self._fields(part)) for _, part in x.user_first), strict=True)
        return self._interact(reduce(tf.add, sums), reduce(tf.add, squares))

    def _interact(self, total: tf.Tensor, squares: tf.Tensor) -> tf.Tensor:
        y = 0.5 * (tf.square(total) - squares)
        return y if self.use_variant else tf.reduce_sum(y, axis=1, keepdims=True)

    def _fields(self, x: tf.Tensor) -> tf.Tensor:
        """[B, F, d] of either form."""
        if x.shape.rank == 3:
            return x
        if self.dim is None or x.shape[-1] % self.dim:
            raise ValueError(
                f"FM layer {self.name!r} needs fields of one width: [B, F, d], or [B, F * d] with dim=d. "
                f"Received: shape {tuple(x.shape)}, dim={self.dim}"
            )
        return tf.reshape(x, [-1, x.shape[-1] // self.dim, self.dim])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "use_variant": self.use_variant, "dim": self.dim}


def _sums(fields: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[B, F, d] -> the sum and the sum of squares over the fields, each [B, d]."""
    return tf.reduce_sum(fields, axis=1), tf.reduce_sum(tf.square(fields), axis=1)
