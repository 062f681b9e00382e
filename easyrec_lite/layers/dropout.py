"""Dropout that resumes at the exact mask (Srivastava et al., 2014)."""

from __future__ import annotations

import random
from typing import Any

import keras
import tensorflow as tf

from easyrec_lite.layers.sided import Sided

_LEVELS = 1 << 16


@keras.saving.register_keras_serializable("easyrec_lite")
class Dropout(keras.layers.Layer):
    """Zeroes a share of the input in training and scales the rest so that the mean stays.

    A mask is a pure function of (seed, number of training calls before, replica), by the counter-based generator
    Philox. Both numbers are the variable `seed_state`: saving and restoring it with the other variables continues the
    sequence of masks bit by bit.

    Random bits are drawn 16 a value (half the cost of a float32 each), so the rate is rounded to 1/65536; the scale
    uses the rounded rate, and the expectation is exact.

    Args:
        rate: share of values set to zero, in [0, 1).
        seed: start of the sequence; None draws one from Python's `random`, which `keras.utils.set_random_seed` seeds,
            like Keras's own initializers and dropout.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"rate must be in [0, 1). Received: {rate}")
        self.rate = rate
        self.seed = seed
        self._start = random.randint(1, 2**31 - 1) if seed is None else seed
        self._threshold = min(round(rate * _LEVELS), _LEVELS - 1)
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates seed_state [2] int64: the seed and the number of training calls so far."""
        self.seed_state = self.add_weight(
            name="seed_state",
            shape=(2,),
            dtype="int64",
            initializer=lambda shape, dtype: tf.constant([self._start, 0], dtype),
            trainable=False,
            aggregation="only_first_replica",
        )

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """[...] -> [...]; the identity unless training."""
        if not training or self._threshold == 0:
            return x
        keep = tf.reshape(self._next_bits(tf.size(x)), tf.shape(x)) >= tf.constant(self._threshold, tf.uint16)
        return tf.where(keep, x * (_LEVELS / (_LEVELS - self._threshold)), tf.zeros([], x.dtype))

    def call_sided(self, x: Sided, **_: Any) -> Sided:
        """The identity: sides exist at inference only."""
        return x

    def _next_bits(self, count: tf.Tensor) -> tf.Tensor:
        """[count] uint16 uniform, and one step of the sequence."""
        state = tf.identity(self.seed_state)
        self.seed_state.assign(state + tf.constant([0, 1], tf.int64))
        replica = tf.distribute.get_replica_context()
        if replica is not None and replica.num_replicas_in_sync > 1:
            state = tf.random.fold_in(state, replica.replica_id_in_sync_group)
        words = tf.random.stateless_uniform(
            [(count + 1) // 2], state, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
        )
        return tf.reshape(tf.bitcast(words, tf.uint16), [-1])[:count]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
