"""Squared errors, one value a row."""

from __future__ import annotations

import tensorflow as tf


def l2(labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
    """Labels [B], predictions [B] -> [B] (y - prediction)^2."""
    return tf.math.squared_difference(predictions, tf.cast(labels, predictions.dtype))


def sigmoid_l2(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Labels [B] in [0, 1], logits [B] -> [B] (y - sigmoid(logit))^2."""
    return l2(labels, tf.nn.sigmoid(logits))
