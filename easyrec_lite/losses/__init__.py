"""Losses as pure functions of float32 tensors: one value a row, and `weighted_mean` to make it one number."""

from easyrec_lite.losses.cross_entropy import probability_cross_entropy, sigmoid_cross_entropy, softmax_cross_entropy
from easyrec_lite.losses.in_batch_softmax import in_batch_softmax
from easyrec_lite.losses.reduction import weighted_mean
from easyrec_lite.losses.regression import l2, sigmoid_l2
from easyrec_lite.losses.regularization import l2_penalty

__all__ = [
    "in_batch_softmax",
    "l2",
    "l2_penalty",
    "probability_cross_entropy",
    "sigmoid_cross_entropy",
    "sigmoid_l2",
    "softmax_cross_entropy",
    "weighted_mean",
]
