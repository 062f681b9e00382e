"""Cross entropies, one value a row."""

from __future__ import annotations

import tensorflow as tf


def sigmoid_cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Labels [B] in [0, 1], logits [B] -> [B] -(y log p + (1 - y) log(1 - p)), p = sigmoid(logit), without overflow."""
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.cast(labels, logits.dtype), logits=logits)


def softmax_cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Labels [B] (class indices), logits [B, C] -> [B] -log softmax(logits)[label]."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.cast(labels, tf.int64), logits=logits)


def probability_cross_entropy(labels: tf.Tensor, probs: tf.Tensor, epsilon: float = 1e-7) -> tf.Tensor:
    """Labels [B], probabilities [B] -> [B] binary cross entropy, for models that give probabilities (products of them).

    Probabilities count as at least epsilon and at most 1 - epsilon; where that cuts, the gradient is 0.
    """
    labels = tf.cast(labels, probs.dtype)
    probs = tf.clip_by_value(probs, epsilon, 1.0 - epsilon)
    return -(labels * tf.math.log(probs) + (1.0 - labels) * tf.math.log1p(-probs))
