"""L2 penalties, as EasyRec counts them."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf


def l2_penalty(tensors: Iterable[tf.Tensor], scale: float) -> tf.Tensor:
    """Tensors of any shapes -> scalar scale * sum(x^2) / 2 over all of them; 0 without tensors or scale.

    For dense kernels (`l2_regularization`) and for looked-up vectors (`embedding_regularization`). The latter are
    summed over the batch's rows, not averaged, as in EasyRec: their pull grows with the batch size.
    """
    if scale == 0.0:
        return tf.constant(0.0)
    terms = [tf.nn.l2_loss(tf.convert_to_tensor(tensor)) for tensor in tensors]
    return scale * tf.add_n(terms) if terms else tf.constant(0.0)
