"""Graph pieces of the collection: rows taken, rows summed, bags numbered and weighed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from easyrec_lite.embeddings.stored import StoredRows

_FAST_WIDTH = 31  # SparseTensorDenseMatMul takes a several times slower way for wider rows


def take(table: tf.Tensor | tf.Variable | StoredRows, indices: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Rows of `table` `[U, dim]` at each of `indices`: `[..., dim]` each.

    The gradient of a tensor is summed by row in one pass over all of `indices`. A variable is only read.
    """
    if isinstance(table, StoredRows):
        return [table.rows(index) for index in indices]
    if isinstance(table, tf.Variable):
        return [tf.gather(table, index) for index in indices]

    @tf.custom_gradient
    def taken(rows: tf.Tensor) -> tuple[list[tf.Tensor], object]:
        def gradient(*upstream: tf.Tensor) -> tf.Tensor:
            values = _joined([tf.reshape(part, [-1, rows.shape[1]]) for part in upstream])
            return sum_rows(values, _joined([tf.reshape(index, [-1]) for index in indices]), tf.shape(rows)[0])

        return [tf.gather(rows, index) for index in indices], gradient

    return list(taken(table))


def sum_rows(
    values: tf.Tensor,
    index: tf.Tensor,
    count: tf.Tensor | int,
    weights: tf.Tensor | None = None,
    *,
    differentiable: bool = False,
) -> tf.Tensor:
    """`[count, dim]` whose row i is the sum of the rows of `values` `[N, dim]` at which `index` `[N]` is i.

    The same as `tf.math.unsorted_segment_sum(values * weights[:, None], index, count)`, and several times faster on a
    CPU: a product with a sparse matrix that has one entry a row of `values`. The sums are in order, so the result
    does not depend on the number of threads. If it is to be `differentiable`, it is by `values` only; an exported graph
    is better without, for it would name a gradient that whoever loads it doesn't have.
    """
    dim = values.shape[1]
    index = tf.cast(index, tf.int32)
    weights = tf.ones_like(index, values.dtype) if weights is None else weights
    # Wide rows as several narrow ones.
    pieces = next((p for p in range(1, dim // 8 + 1) if dim % p == 0 and dim // p <= _FAST_WIDTH), 1)

    def summed(values: tf.Tensor) -> tf.Tensor:
        place, share = index, weights
        if pieces > 1:
            place = tf.reshape(index[:, None] * pieces + tf.range(pieces), [-1])
            share = tf.repeat(weights, pieces)
        sums = tf.raw_ops.SparseTensorDenseMatMul(
            a_indices=_numbered(place),
            a_values=share,
            a_shape=tf.stack([tf.cast(count, tf.int64) * pieces, tf.size(place, tf.int64)]),
            b=tf.reshape(values, [-1, dim // pieces]),
        )
        return tf.reshape(sums, [-1, dim])

    @tf.custom_gradient
    def summed_with_gradient(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return summed(values), lambda upstream: tf.gather(upstream, index) * weights[:, None]

    return summed_with_gradient(values) if differentiable else summed(values)


def _numbered(index: tf.Tensor) -> tf.Tensor:
    """Each of `index` `[N]` beside its place: `[N, 2]`.

    The two halves of one 64-bit number, the lower first: `tf.stack` along the last axis takes several times as long.
    """
    one = tf.bitwise.left_shift(tf.constant(1, tf.int64), tf.constant(32, tf.int64))
    place = tf.range(tf.constant(0, tf.int64), tf.size(index, tf.int64) * one, one)
    return tf.bitcast(tf.cast(index, tf.int64) + place, tf.int32)


def bag_numbers(splits: tf.Tensor) -> tf.Tensor:
    """The bag `[N]` int64 of each value, for the row_splits `[bags + 1]`.

    `tf.repeat` takes time in proportion to the longest bag times the number of bags; this takes none for it.
    """
    starts = tf.scatter_nd(splits[1:-1, None], tf.ones_like(splits[1:-1]), splits[-1:] + 1)
    return tf.cumsum(starts)[:-1]


def shares(
    combiner: str, present: tf.Tensor, bags: tf.Tensor, count: tf.Tensor, weights: tf.Tensor | None
) -> tf.Tensor:
    """What each value counts in the sum that stands for its bag `[N]` float32.

    Args:
        combiner: `sum`, `mean` (weighted) or `sqrtn` (divided by the root of the sum of squared weights).
        present: `[N]`; a value that is missing counts nothing, not even in the divisor.
        bags: `[N]` bag of each value.
        count: number of bags.
        weights: `[N]`, or None for 1 each. As in EasyRec, a value whose weight isn't positive is left out, unless
            values are just summed.
    """
    share = tf.cast(present, tf.float32)
    if weights is not None:
        share *= weights if combiner == "sum" else tf.maximum(weights, 0.0)
    if combiner == "sum":
        return share
    if combiner == "mean":
        norm = tf.math.unsorted_segment_sum(share, bags, count)
    else:
        norm = tf.sqrt(tf.math.unsorted_segment_sum(tf.square(share), bags, count))
    return tf.math.divide_no_nan(share, tf.gather(norm, bags))


def distinct_rows(parts: Sequence[tf.Tensor], dtype: tf.DType) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Distinct row numbers of all parts, row 0 first, and each part as positions (int32) among them."""
    flat = tf.concat([tf.zeros([1], dtype), *(tf.reshape(part, [-1]) for part in parts)], axis=0)
    distinct, index = tf.unique(flat)
    pieces = tf.split(index, tf.stack([1, *(tf.size(part) for part in parts)]), num=len(parts) + 1)[1:]
    return distinct, [tf.reshape(piece, tf.shape(part)) for piece, part in zip(pieces, parts, strict=True)]


def transposed(matrix: tf.Tensor, places: Sequence[int]) -> tf.Tensor:
    """The rows `places` of a matrix, as columns."""
    first, last = places[0], places[-1] + 1
    neighbours = list(places) == list(range(first, last))
    return tf.transpose(matrix[first:last] if neighbours else tf.gather(matrix, places))


def _joined(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)
