"""Convolutions over a sequence with max pooling over time (TextCNN, Kim, 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from easyrec_lite.layers import segments
from easyrec_lite.layers.activations import activation as make_activation


@keras.saving.register_keras_serializable("easyrec_lite")
class TextCNN(keras.layers.Layer):
    """[N, D] positions -> [B, sum(num_filters)].

    Rows are cut or zero-filled to `pad_sequence_length`, whatever else is in the batch, so that a row's result is its
    own. Every filter size slides over the positions ("valid"), and each filter's largest response is kept.

    Args:
        filter_sizes: widths in positions.
        num_filters: filters of each size.
        pad_sequence_length: positions a row.
        activation: of the convolutions.

    Raises:
        ValueError: the two lists differ in length, are empty, or a filter is wider than the sequence.
    """

    def __init__(
        self,
        filter_sizes: Sequence[int],
        num_filters: Sequence[int],
        pad_sequence_length: int,
        activation: str = "relu",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not filter_sizes or len(filter_sizes) != len(num_filters):
            raise ValueError(
                f"filter_sizes and num_filters must be of one length, at least 1. "
                f"Received: {list(filter_sizes)} and {list(num_filters)}"
            )
        if max(filter_sizes) > pad_sequence_length:
            raise ValueError(
                f"A filter is wider than the sequence. "
                f"Received: filter_sizes={list(filter_sizes)}, pad_sequence_length={pad_sequence_length}"
            )
        self.filter_sizes = tuple(int(size) for size in filter_sizes)
        self.num_filters = tuple(int(count) for count in num_filters)
        self.pad_sequence_length = int(pad_sequence_length)
        self.activation = activation
        self._activations = [make_activation(activation, f"activation_{i}") for i in range(len(self.filter_sizes))]
        self.convolutions = [
            keras.layers.Conv1D(count, size, name=f"conv_{i}")
            for i, (size, count) in enumerate(zip(self.filter_sizes, self.num_filters, strict=True))
        ]

    @property
    def kernels(self) -> list[keras.Variable]:
        """The convolutions' kernels, for L2 regularisation."""
        return [convolution.kernel for convolution in self.convolutions if convolution.built]

    def build(self, values_shape: tuple[int | None, ...], row_splits_shape: tuple[int | None, ...]) -> None:
        """Creates the convolutions' variables."""
        shape = (None, self.pad_sequence_length, values_shape[-1])
        for convolution, act in zip(self.convolutions, self._activations, strict=True):
            convolution.build(shape)
            if isinstance(act, keras.layers.Layer):
                act.build(convolution.compute_output_shape(shape))

    def call(self, values: tf.Tensor, row_splits: tf.Tensor) -> tf.Tensor:
        """Values [N, D], row_splits [B + 1] -> [B, sum(num_filters)], in the order of filter_sizes."""
        x = segments.to_padded(values, row_splits, self.pad_sequence_length)
        pooled = [
            tf.reduce_max(act(convolution(x)), axis=1)
            for convolution, act in zip(self.convolutions, self._activations, strict=True)
        ]
        return tf.concat(pooled, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {
            "filter_sizes": self.filter_sizes,
            "num_filters": self.num_filters,
            "pad_sequence_length": self.pad_sequence_length,
            "activation": self.activation,
        }
        return {**super().get_config(), **own}
