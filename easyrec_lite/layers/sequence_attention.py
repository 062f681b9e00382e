"""Learned attention pooling of a sequence, without a query."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from easyrec_lite.layers import segments


@keras.saving.register_keras_serializable("easyrec_lite")
class SequenceAttention(keras.layers.Layer):
    """EasyRec's `attention` sequence combiner: softmax over positions of values . v, then the weighted sum.

    A row without positions gives zeros. The one variable is `kernel` [D, 1].
    """

    def build(self, values_shape: tuple[int | None, ...], row_splits_shape: tuple[int | None, ...]) -> None:
        """Creates the kernel."""
        self.kernel = self.add_weight(name="kernel", shape=(values_shape[-1], 1), initializer="glorot_uniform")

    @property
    def kernels(self) -> list[keras.Variable]:
        """The kernel, for L2 regularisation."""
        return [self.kernel] if self.built else []

    def call(self, values: tf.Tensor, row_splits: tf.Tensor) -> tf.Tensor:
        """Values [N, D], row_splits [B + 1] -> [B, D]."""
        scores = tf.matmul(values, tf.convert_to_tensor(self.kernel))
        if row_splits.shape[0] == 2:  # one row, known to be one: a user's, in serving
            return tf.matmul(tf.nn.softmax(scores, axis=0), values, transpose_a=True)
        ids, rows = segments.row_ids(row_splits), segments.num_rows(row_splits)
        scores = tf.squeeze(scores, axis=1)
        weights = segments.segment_softmax(scores, ids, rows)
        return segments.segment_sum(weights[:, None] * values, ids, rows)

    def get_config(self) -> dict[str, Any]:
        """No arguments of its own."""
        return super().get_config()
