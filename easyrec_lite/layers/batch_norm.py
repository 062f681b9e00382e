"""Batch normalisation whose moving averages are right from the first step (Ioffe & Szegedy, 2015)."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import keras
import tensorflow as tf

from easyrec_lite.layers.sided import Sided

Remaining: TypeAlias = Literal["all", "shift", "nothing"]

_WARMUP_STEPS = 9.0


@keras.saving.register_keras_serializable("easyrec_lite")
class BatchNorm(keras.layers.Layer):
    """Normalises the last axis over all others: [..., D] -> [..., D].

    The moving averages use the momentum min(momentum, t / (t + 9)) at step t (from 0). The first batch replaces the
    initial 0 and 1 altogether, so the averages are unbiased, and they cover about the last 10 % of the steps until t
    reaches 9 * momentum / (1 - momentum) (891 at 0.99), from where on this is the usual average. With a fixed 0.99 an
    evaluation after a few hundred steps still sees mostly the initial values and the first batches.

    A zero-debiased average (as in Adam) would be unbiased as well, but weighs the first, quickly changing steps as
    much as the newest; this one forgets them.

    Training uses TensorFlow's fused kernel, which passes over the data less often than the moments written out
    (forward and backward on [4096, 256]: 1.5 ms against 3.2 ms on two CPU cores). The moving variance takes the
    unbiased estimate, as that kernel gives it.

    Args:
        momentum: weight of the past in the moving averages once they have warmed up.
        epsilon: added to the variance.
        center: learn an offset (beta).
        scale: learn a factor (gamma).

    Attributes:
        remaining: what of it the layers beside it don't do, at inference; see `folding`. Of the shift, beta is all.
    """

    def __init__(
        self, momentum: float = 0.99, epsilon: float = 1e-3, center: bool = True, scale: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum must be in [0, 1). Received: {momentum}")
        if epsilon <= 0.0:
            raise ValueError(f"epsilon must be above 0. Received: {epsilon}")
        self.momentum = momentum
        self.epsilon = epsilon
        self.center = center
        self.scale = scale
        self.remaining: Remaining = "all"
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates gamma, beta, moving_mean, moving_variance [D] and the step counter."""
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones") if self.scale else None
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros") if self.center else None
        self.moving_mean = self.add_weight(
            name="moving_mean", shape=shape, initializer="zeros", trainable=False, aggregation="mean"
        )
        self.moving_variance = self.add_weight(
            name="moving_variance", shape=shape, initializer="ones", trainable=False, aggregation="mean"
        )
        self.counter = self.add_weight(
            name="counter",
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
        )

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """[..., D] -> [..., D]; with training, by the batch's moments, which also move the averages."""
        if not training:
            if self.remaining == "nothing":
                return x
            if self.remaining == "shift":
                return tf.nn.bias_add(x, tf.convert_to_tensor(self.beta))
            factor, shift = self.affine()
            return x * factor + shift
        gamma = tf.ones_like(self.moving_mean) if self.gamma is None else tf.convert_to_tensor(self.gamma)
        beta = tf.zeros_like(self.moving_mean) if self.beta is None else tf.convert_to_tensor(self.beta)
        y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            tf.reshape(x, [1, -1, 1, x.shape[-1]]), gamma, beta, epsilon=self.epsilon, is_training=True
        )
        self._update(mean, variance, empty=tf.equal(tf.size(x), 0))
        return tf.reshape(y, tf.shape(x))

    def affine(self) -> tuple[tf.Tensor, tf.Tensor]:
        """What it does at inference: the factor and the shift of each column, [D] each."""
        if self.remaining == "shift":
            return tf.ones_like(self.moving_mean), tf.convert_to_tensor(self.beta)
        factor = tf.math.rsqrt(self.moving_variance + self.epsilon)
        factor = factor if self.gamma is None else factor * self.gamma
        shift = -self.moving_mean * factor
        return factor, shift if self.beta is None else shift + self.beta

    def call_sided(self, x: Sided, **_: Any) -> Sided:
        """The same column by column, at inference: every part keeps its side."""
        if self.remaining == "nothing":
            return x
        factor, shift = self.affine()
        columns = zip(x.parts, x.by_columns(factor), x.by_columns(shift), strict=True)
        return Sided(tuple((side, part * f + s) for (side, part), f, s in columns))

    def _update(self, mean: tf.Tensor, variance: tf.Tensor, empty: tf.Tensor) -> None:
        """Moves the averages, unless the batch has no rows (its moments are not numbers)."""
        step = tf.cast(self.counter, mean.dtype)
        keep = tf.where(empty, 1.0, tf.minimum(self.momentum, step / (step + _WARMUP_STEPS)))
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            past = tf.convert_to_tensor(moving)
            moving.assign(tf.where(empty, past, value + (past - value) * keep))
        self.counter.assign(self.counter + tf.cast(tf.logical_not(empty), tf.int64))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {"momentum": self.momentum, "epsilon": self.epsilon, "center": self.center, "scale": self.scale}
        return {**super().get_config(), **own}
