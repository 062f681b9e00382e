"""Learning rate schedules: pure functions of the step."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.protos import optimizer_pb2


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate that a `LearningRate` message describes, as a function of the number of steps done.

    Raises:
        ConfigError: the message names no schedule.
    """

    def __init__(self, config: optimizer_pb2.LearningRate, multiplier: float = 1.0) -> None:
        self._config = config
        self._multiplier = multiplier
        kind = config.WhichOneof("learning_rate")
        if kind is None:
            raise ConfigError(
                [
                    Problem(
                        "train_config.optimizer_config[*].learning_rate",
                        "no schedule",
                        "constant_learning_rate { ... } or another schedule",
                    )
                ]
            )
        self._function = getattr(self, f"_{kind}")
        self._parameters = getattr(config, kind)

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Learning rate (scalar float32) of the step that follows `step` steps."""
        return self._multiplier * self._function(tf.cast(step, tf.float32), self._parameters)

    def get_config(self) -> dict[str, Any]:
        """As in Keras."""
        return {"config": self._config.SerializeToString().hex(), "multiplier": self._multiplier}

    @staticmethod
    def _constant_learning_rate(step: tf.Tensor, c: optimizer_pb2.ConstantLearningRate) -> tf.Tensor:
        return tf.constant(c.learning_rate, tf.float32)

    @staticmethod
    def _exponential_decay_learning_rate(step: tf.Tensor, c: optimizer_pb2.ExponentialDecayLearningRate) -> tf.Tensor:
        # The decay starts where the burn-in ends.
        power = tf.maximum(step - float(c.burnin_steps), 0.0) / float(c.decay_steps)
        power = tf.floor(power) if c.staircase else power
        rate = tf.maximum(c.initial_learning_rate * tf.pow(tf.constant(c.decay_factor), power), c.min_learning_rate)
        if not c.burnin_steps:
            return rate
        start = c.burnin_learning_rate
        warm = start + (c.initial_learning_rate - start) * step / float(c.burnin_steps)
        return tf.where(step < float(c.burnin_steps), warm, rate)

    @staticmethod
    def _manual_step_learning_rate(step: tf.Tensor, c: optimizer_pb2.ManualStepLearningRate) -> tf.Tensor:
        steps = [0.0, *(float(part.step) for part in c.schedule)]
        rates = [c.initial_learning_rate, *(part.learning_rate for part in c.schedule)]
        place = tf.searchsorted(tf.constant(steps), tf.reshape(step, [1]), side="right")[0] - 1
        rate = tf.gather(tf.constant(rates, tf.float32), place)
        if not (c.warmup and c.schedule):
            return rate
        # Warm-up: linear from the initial rate to that of the first entry.
        first = c.schedule[0]
        warm = rates[0] + (first.learning_rate - rates[0]) * step / max(float(first.step), 1.0)
        return tf.where(step < float(first.step), warm, rate)

    @staticmethod
    def _cosine_decay_learning_rate(step: tf.Tensor, c: optimizer_pb2.CosineDecayLearningRate) -> tf.Tensor:
        still = float(c.warmup_steps + c.hold_base_rate_steps)
        share = (step - still) / max(float(c.total_steps) - still, 1.0)
        rate = 0.5 * c.learning_rate_base * (1.0 + tf.cos(math.pi * tf.clip_by_value(share, 0.0, 1.0)))
        if not c.warmup_steps:
            return rate
        slope = (c.learning_rate_base - c.warmup_learning_rate) / float(c.warmup_steps)
        return tf.where(step < float(c.warmup_steps), c.warmup_learning_rate + slope * step, rate)

    @staticmethod
    def _poly_decay_learning_rate(step: tf.Tensor, c: optimizer_pb2.PolyDecayLearningRate) -> tf.Tensor:
        left = 1.0 - tf.minimum(step, float(c.total_steps)) / float(c.total_steps)
        return c.end_learning_rate + (c.learning_rate_base - c.end_learning_rate) * tf.pow(left, c.power)

    @staticmethod
    def _transformer_learning_rate(step: tf.Tensor, c: optimizer_pb2.TransformerLearningRate) -> tf.Tensor:
        # Vaswani et al. (2017), section 5.3; steps count from 1.
        n = step + 1.0
        scale = c.learning_rate_base * c.step_scaling_rate / math.sqrt(c.hidden_size)
        return scale * tf.minimum(tf.math.rsqrt(n), n * float(c.warmup_steps) ** -1.5)
