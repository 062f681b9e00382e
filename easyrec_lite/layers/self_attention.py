"""Self-attention over a behaviour history: a transformer encoder that sees no target (Vaswani et al., 2017)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from easyrec_lite.layers import segments
from easyrec_lite.layers.dense import Dense
from easyrec_lite.layers.dropout import Dropout
from easyrec_lite.layers.mlp import MLP

_SCORES_AT_A_TIME = 1 << 22


@keras.saving.register_keras_serializable("easyrec_lite")
class SelfAttention(keras.layers.Layer):
    """Encodes each row's history by attention among its own steps, and gives the mean of the encoded steps.

        x = sqrt(D) (steps + positions)
        x = x + attention(norm(x)), then x = x + feed_forward(norm(x)); so in each block
        y = mean over the row's steps of norm(x)

    Attention is softmax(Q K' / sqrt(D / heads)) V in `heads` parts of the columns, among all steps of the row: a
    history lies before what is predicted, so no step is hidden from another as in SASRec (Kang and McAuley, 2018),
    whose encoder this is otherwise. Layer norms come first in each branch (Xiong et al., 2020), which trains without a
    warm-up. Nothing here depends on a target, so serving encodes a history once for all of a request's items.

    Histories are flat (`segments`): all but attention itself costs what the true steps cost. Attention takes rows
    of like length together, at most about 4 million scores (16 MiB) at a time, and its gradient computes them again.
    So memory grows with the number of steps, not with their square, and one long history makes no other longer. One
    row, known as such by the static shape of its row_splits, is a plain series of matrix products without a loop.

    Args:
        heads: of attention; they divide the steps' width D.
        layers: number of blocks.
        hidden_units: of the feed-forward networks (ReLU); None: 4 D.
        dropout_ratio: of the first block's input and of each branch's output.
        positions: places from the first step that have a learned vector; later steps share the last one's. 0: none,
            and the order of the steps is of no account.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        heads: int = 2,
        layers: int = 1,
        hidden_units: int | None = None,
        dropout_ratio: float = 0.0,
        positions: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if heads < 1 or layers < 1 or positions < 0 or (hidden_units is not None and hidden_units < 1):
            raise ValueError(
                "heads, layers and hidden_units must be positive, positions at least 0. "
                f"Received: heads={heads}, layers={layers}, hidden_units={hidden_units}, positions={positions}"
            )
        self.heads = heads
        self.layers = layers
        self.hidden_units = hidden_units
        self.dropout_ratio = dropout_ratio
        self.num_positions = positions
        self.dropout = Dropout(dropout_ratio, name="dropout") if dropout_ratio else None
        self.blocks = [_Block(heads, hidden_units, dropout_ratio, name=f"block_{i}") for i in range(layers)]
        self.norm = _layer_norm("norm")

    @property
    def kernels(self) -> list[keras.Variable]:
        """The kernels of all blocks, for L2 regularisation."""
        return [kernel for block in self.blocks for kernel in block.kernels]

    def build(self, values_shape: tuple[int | None, ...], row_splits_shape: tuple[int | None, ...]) -> None:
        """Creates the variables.

        Raises:
            ValueError: the heads don't divide the width.
        """
        width = values_shape[-1]
        if width is None or width % self.heads:
            raise ValueError(
                f"Self-attention {self.name!r} splits the columns among its heads: their number must divide the static "
                f"width. Received: heads={self.heads}, steps {tuple(values_shape)}"
            )
        if self.num_positions:
            # As the tables of embeddings start.
            initial = keras.initializers.TruncatedNormal(stddev=width**-0.5)
            self.positions = self.add_weight(name="positions", shape=(self.num_positions, width), initializer=initial)
        shape = (None, width)
        for layer in [*([self.dropout] if self.dropout else []), *self.blocks, self.norm]:
            layer.build(shape)

    def call(self, values: tf.Tensor, row_splits: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Steps [N, D], row_splits [B + 1] -> [B, D]; a row without steps gives zeros."""
        if _is_one_row(row_splits):
            return self._encode(values, row_splits, training)
        lengths = row_splits[1:] - row_splits[:-1]
        by_length = tf.argsort(lengths, direction="DESCENDING", stable=True)
        starts, lengths = tf.gather(row_splits[:-1], by_length), tf.gather(lengths, by_length)
        splits = tf.concat([row_splits[:1], tf.cumsum(lengths)], axis=0)
        steps = tf.repeat(starts - splits[:-1], lengths) + tf.range(splits[-1])
        encoded = self._encode(_permuted(values, steps), splits, training)
        return _permuted(encoded, tf.math.invert_permutation(by_length))

    def _encode(self, x: tf.Tensor, row_splits: tf.Tensor, training: bool | None) -> tf.Tensor:
        """The same for rows by descending length."""
        width = x.shape[-1]
        ids, rows = segments.row_ids(row_splits), segments.num_rows(row_splits)
        x *= width**0.5
        if self.num_positions:
            place = tf.range(row_splits[-1]) - tf.gather(row_splits, ids)
            last = tf.constant(self.num_positions - 1, place.dtype)
            # Scaled before the gather: so the gradient of the variable is dense.
            x += tf.gather(tf.convert_to_tensor(self.positions) * width**0.5, tf.minimum(place, last))
        x = self.dropout(x, training=training) if self.dropout else x
        for block in self.blocks:
            x = block(x, row_splits, training=training)
        count = tf.cast(tf.maximum(row_splits[1:] - row_splits[:-1], 1), x.dtype)
        return segments.segment_sum(self.norm(x), ids, rows) / count[:, None]

    def compute_output_shape(
        self, values_shape: tuple[int | None, ...], row_splits_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """[B, D]."""
        rows = row_splits_shape[0]
        return (None if rows is None else rows - 1, values_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {
            "heads": self.heads,
            "layers": self.layers,
            "hidden_units": self.hidden_units,
            "dropout_ratio": self.dropout_ratio,
            "positions": self.num_positions,
        }
        return {**super().get_config(), **own}


class _Block(keras.layers.Layer):
    """Attention and a feed-forward network, each added to its input: [N, D] -> [N, D]."""

    def __init__(self, heads: int, hidden_units: int | None, dropout_ratio: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.hidden_units = hidden_units
        self.dropout_ratio = dropout_ratio
        self.attention_norm = _layer_norm("attention_norm")
        self.dropout = Dropout(dropout_ratio, name="dropout") if dropout_ratio else None
        self.feed_forward_norm = _layer_norm("feed_forward_norm")

    @property
    def kernels(self) -> list[keras.Variable]:
        return [self.qkv.kernel, self.mix.kernel, *self.feed_forward.kernels] if self.built else []

    def build(self, x_shape: tuple[int | None, int], row_splits_shape: tuple[int | None, ...] | None = None) -> None:
        width = x_shape[-1]
        # A bias of the keys would cancel in the softmax; those of queries and values the norm before them has.
        self.qkv = Dense(3 * width, use_bias=False, name="qkv")
        self.mix = Dense(width, use_bias=False, name="mix")
        self.feed_forward = MLP(
            (self.hidden_units or 4 * width, width),
            (0.0, self.dropout_ratio),
            use_bn=False,
            final_activation="linear",
            initializer="glorot_uniform",
            name="feed_forward",
        )
        layers = [self.attention_norm, self.qkv, self.mix, self.feed_forward_norm, self.feed_forward]
        for layer in [*layers, *([self.dropout] if self.dropout else [])]:
            layer.build(x_shape)

    def call(self, x: tf.Tensor, row_splits: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        y = self.mix(_attention(self.qkv(self.attention_norm(x)), row_splits, self.heads))
        x += self.dropout(y, training=training) if self.dropout else y
        return x + self.feed_forward(self.feed_forward_norm(x), training=training)


def _layer_norm(name: str) -> keras.layers.Layer:
    return keras.layers.LayerNormalization(epsilon=1e-6, name=name)


def _is_one_row(row_splits: tf.Tensor) -> bool:
    return row_splits.shape[0] == 2


def _permuted(x: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """x [N, D] in another order [N]; its gradient is a gather too."""

    @tf.custom_gradient
    def permute(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.gather(x, order), lambda dy: tf.gather(dy, tf.argsort(order))

    return permute(x)


def _attention(qkv: tf.Tensor, row_splits: tf.Tensor, heads: int) -> tf.Tensor:
    """Queries, keys and values [N, 3 D] of rows by descending length -> what each step takes from its row [N, D]."""
    if _is_one_row(row_splits):
        # An empty history is given a step of zeros and loses it again: fused products don't bear to have no columns.
        steps = tf.shape(qkv)[0]
        padded = tf.pad(qkv, [[0, tf.cast(tf.equal(steps, 0), tf.int32)], [0, 0]])
        return _dot_product(padded[None], heads)[0][:steps]
    lengths = row_splits[1:] - row_splits[:-1]
    width = qkv.shape[-1] // 3

    @tf.custom_gradient
    def attention(qkv: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        def forward(start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
            return _of_rows(qkv[row_splits[start] : row_splits[end]], lengths[start:end], heads)

        def gradient(dy: tf.Tensor) -> tf.Tensor:
            def backward(start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
                first, last = row_splits[start], row_splits[end]
                part = qkv[first:last]
                with tf.GradientTape() as tape:
                    tape.watch(part)
                    y = _of_rows(part, lengths[start:end], heads)
                return tape.gradient(y, part, dy[first:last])

            return _by_chunks(backward, lengths, heads, 3 * width, qkv.dtype)

        return _by_chunks(forward, lengths, heads, width, qkv.dtype), gradient

    return attention(qkv)


def _by_chunks(
    function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    lengths: tf.Tensor,
    heads: int,
    width: int,
    dtype: tf.DType,
) -> tf.Tensor:
    """`function(start, end)` of ranges of rows, which have few scores together, one below the other: [N, width].

    Args:
        function: gives [steps of the rows, width].
        lengths: of all rows, descending.
        heads: of attention.
        width: of what the function gives.
        dtype: likewise.
    """
    filled = tf.math.count_nonzero(lengths, dtype=lengths.dtype)

    def chunk(start: tf.Tensor, parts: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        rows = _SCORES_AT_A_TIME // (heads * lengths[start] ** 2)
        end = tf.minimum(start + tf.maximum(rows, 1), filled)
        return end, parts.write(parts.size(), function(start, end))

    parts = tf.TensorArray(dtype, 0, dynamic_size=True, infer_shape=False, element_shape=[None, width])
    # No rows at all are a part too: what joins the parts needs one. One chunk at a time, to bound the memory.
    parts = parts.write(0, tf.zeros([0, width], dtype))
    start = tf.zeros([], lengths.dtype)
    _, parts = tf.while_loop(lambda start, _: start < filled, chunk, (start, parts), parallel_iterations=1)
    return tf.ensure_shape(parts.concat(), [None, width])


def _of_rows(qkv: tf.Tensor, lengths: tf.Tensor, heads: int) -> tf.Tensor:
    """[N, 3 D] of rows of one step at least -> [N, D], filled up to the longest row in between."""
    true = tf.sequence_mask(lengths)
    places = tf.where(true)
    shape = tf.concat([tf.shape(true, places.dtype), [qkv.shape[-1]]], axis=0)
    padded = tf.ensure_shape(tf.scatter_nd(places, qkv, shape), [None, None, qkv.shape[-1]])
    return tf.gather_nd(_dot_product(padded, heads, true), places)


def _dot_product(qkv: tf.Tensor, heads: int, true: tf.Tensor | None = None) -> tf.Tensor:
    """Attention among the steps that are `true` [B, L] (None: all): [B, L, 3 D] -> [B, L, D]."""
    rows, steps = tf.shape(qkv)[0], tf.shape(qkv)[1]
    width = qkv.shape[-1] // 3
    split = tf.reshape(qkv, [rows, steps, 3, heads, width // heads])
    query, key, value = tf.unstack(tf.transpose(split, [2, 0, 3, 1, 4]))
    scores = tf.matmul(query * (width // heads) ** -0.5, key, transpose_b=True)
    if true is not None:
        scores += tf.where(true, 0.0, -float("inf"))[:, None, None]
    mixed = tf.matmul(tf.nn.softmax(scores), value)
    return tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [rows, steps, width])
