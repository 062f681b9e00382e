"""How often each item comes up in the batches: what in-batch negatives have to be corrected by."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("easyrec_lite")
class SamplingFrequency(keras.layers.Layer):
    """Counts items over all batches so far and gives the log of their share, log q.

    In-batch negatives are drawn by popularity, so a softmax over them punishes popular items; subtracting log q from
    each column's logit makes up for it (Yi et al., 2019). Items are counted in hashed buckets; two items that share one
    count as equally frequent.

    Args:
        buckets: number of buckets, 8 bytes each.
    """

    def __init__(self, buckets: int = 1 << 18, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if buckets < 1:
            raise ValueError(f"buckets must be positive. Received: {buckets}")
        self.buckets = buckets

    def build(self, ids_shape: tuple[int | None, ...]) -> None:
        """Creates the counts [buckets] int64; being whole numbers, they don't depend on the order of a batch."""
        self.counts = self.add_weight(
            name="counts", shape=(self.buckets,), dtype="int64", initializer="zeros", trainable=False
        )

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Ids [B], integers or text -> log q [B] float32, this batch included in the counts."""
        text = ids if ids.dtype == tf.string else tf.strings.as_string(ids)
        bucket = tf.strings.to_hash_bucket_fast(text, self.buckets)
        counts = self.counts.value.scatter_add(tf.IndexedSlices(tf.ones_like(bucket), bucket))
        share = tf.gather(counts, bucket) / tf.reduce_sum(counts)
        return tf.cast(tf.math.log(share), tf.float32)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "buckets": self.buckets}
