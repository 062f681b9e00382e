"""L2 penalties, as EasyRec counts them: scale * sum(x^2) / 2."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf


def l2_penalty(tensors: Iterable[tf.Tensor], scale: float) -> tf.Tensor:
    """Kernels (`l2_regularization`) of any shapes -> scalar scale * sum of x^2 / 2 over all; 0 without tensors or scale."""
    if scale == 0.0:
        return tf.constant(0.0)
    terms = [tf.nn.l2_loss(tf.convert_to_tensor(tensor)) for tensor in tensors]
    return scale * tf.add_n(terms) if terms else tf.constant(0.0)


def embedding_penalty(outputs: Iterable[tf.Tensor], scale: float) -> tf.Tensor:
    """Looked-up vectors (`embedding_regularization`), each [B, ...] -> scalar scale * sum of x^2 / 2 / B.

    Taken on what was looked up, not on the tables, so only rows in the batch shrink; a mean over rows, so the strength
    does not depend on the batch size.
    """
    if scale == 0.0:
        return tf.constant(0.0)
    terms = [
        tf.math.divide_no_nan(tf.nn.l2_loss(output), tf.cast(tf.shape(output)[0], output.dtype)) for output in outputs
    ]
    return scale * tf.add_n(terms) if terms else tf.constant(0.0)
