"""From one loss a row to one number."""

from __future__ import annotations

import tensorflow as tf


def weighted_mean(losses: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Losses [B], weights [B] or None -> scalar sum(w * loss) / sum(w); 0 where the weights sum to 0.

    A row of weight 2 counts as two rows, and a row of weight 0 (masked out of a task) not at all.
    """
    if weights is None:
        return tf.math.divide_no_nan(tf.reduce_sum(losses), tf.cast(tf.size(losses), losses.dtype))
    weights = tf.cast(weights, losses.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(losses * weights), tf.reduce_sum(weights))
