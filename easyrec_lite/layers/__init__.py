"""Keras layers: they take plain arguments and tensors, and know nothing of configs or features.

Rows come first ([B, ...]); sequences are flat (values [N, D] and row_splits [B + 1], see `segments`). Layers that can
keep the user's columns apart from the item's have `call_sided`; call them through `apply`.
"""

from easyrec_lite.layers import segments
from easyrec_lite.layers.activations import Dice, activation, activation_names
from easyrec_lite.layers.batch_norm import BatchNorm
from easyrec_lite.layers.dense import Dense
from easyrec_lite.layers.dropout import Dropout
from easyrec_lite.layers.fm import FM
from easyrec_lite.layers.folding import folded_batch_norms
from easyrec_lite.layers.mlp import MLP
from easyrec_lite.layers.mmoe import MMoE
from easyrec_lite.layers.sampling_frequency import SamplingFrequency
from easyrec_lite.layers.self_attention import SelfAttention
from easyrec_lite.layers.sequence_attention import SequenceAttention
from easyrec_lite.layers.sided import Side, Sided, apply, as_tensor, concat
from easyrec_lite.layers.similarity import Similarity
from easyrec_lite.layers.target_attention import History, TargetAttention
from easyrec_lite.layers.text_cnn import TextCNN

__all__ = [
    "FM",
    "MLP",
    "BatchNorm",
    "Dense",
    "Dice",
    "Dropout",
    "History",
    "MMoE",
    "SamplingFrequency",
    "SelfAttention",
    "SequenceAttention",
    "Side",
    "Sided",
    "Similarity",
    "TargetAttention",
    "TextCNN",
    "activation",
    "activation_names",
    "apply",
    "as_tensor",
    "concat",
    "folded_batch_norms",
    "segments",
]
