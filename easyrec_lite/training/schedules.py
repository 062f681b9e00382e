"""Learning rate schedules: pure functions of the step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf
from google.protobuf import text_format

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.protos import optimizer_pb2


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate that a `LearningRate` message describes, as a function of the number of steps done.

    Args:
        config: the message.
        multiplier: of the rate at every step.
        path: of the message in the config, for errors.

    Raises:
        ConfigError: the message describes no schedule.
    """

    def __init__(
        self, config: optimizer_pb2.LearningRate, multiplier: float = 1.0, path: str = "learning_rate"
    ) -> None:
        if problems := list(schedule_problems(config, path)):
            raise ConfigError(problems)
        self._config = config
        self._multiplier = multiplier
        kind = config.WhichOneof("learning_rate")
        self._function = getattr(self, f"_{kind}")
        self._parameters = getattr(config, kind)

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Learning rate (scalar float32) of the step that follows `step` steps."""
        return self._multiplier * self._function(tf.cast(step, tf.float32), self._parameters)

    def get_config(self) -> dict[str, Any]:
        """As in Keras."""
        text = text_format.MessageToString(self._config, as_one_line=True)
        return {"config": text, "multiplier": self._multiplier}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schedule:
        """As in Keras."""
        return cls(text_format.Parse(config["config"], optimizer_pb2.LearningRate()), config["multiplier"])

    @staticmethod
    def _constant_learning_rate(step: tf.Tensor, c: optimizer_pb2.ConstantLearningRate) -> tf.Tensor:
        return tf.constant(c.learning_rate, tf.float32)

    @staticmethod
    def _exponential_decay_learning_rate(step: tf.Tensor, c: optimizer_pb2.ExponentialDecayLearningRate) -> tf.Tensor:
        power = tf.maximum(step - float(c.burnin_steps), 0.0) / float(c.decay_steps)
        power = tf.floor(power) if c.staircase else power
        rate = c.initial_learning_rate * tf.pow(c.decay_factor, power)
        if c.burnin_steps:
            start = c.burnin_learning_rate
            warm = start + (c.initial_learning_rate - start) * step / float(c.burnin_steps)
            rate = tf.where(step < float(c.burnin_steps), warm, rate)
        return tf.maximum(rate, c.min_learning_rate)

    @staticmethod
    def _manual_step_learning_rate(step: tf.Tensor, c: optimizer_pb2.ManualStepLearningRate) -> tf.Tensor:
        rates = tf.constant([c.initial_learning_rate, *(part.learning_rate for part in c.schedule)], tf.float32)
        changes = tf.constant([float(part.step) for part in c.schedule], tf.float32)
        rate = tf.gather(rates, tf.math.count_nonzero(changes <= step))
        if not (c.warmup and c.schedule and c.schedule[0].step):
            return rate
        first = float(c.schedule[0].step)
        return tf.where(step < first, rates[0] + (rates[1] - rates[0]) * step / first, rate)

    @staticmethod
    def _cosine_decay_learning_rate(step: tf.Tensor, c: optimizer_pb2.CosineDecayLearningRate) -> tf.Tensor:
        # Loshchilov and Hutter (2017), without restarts.
        still = float(c.warmup_steps + c.hold_base_rate_steps)
        share = tf.clip_by_value((step - still) / (float(c.total_steps) - still), 0.0, 1.0)
        rate = 0.5 * c.learning_rate_base * (1.0 + tf.cos(math.pi * share))
        if not c.warmup_steps:
            return rate
        slope = (c.learning_rate_base - c.warmup_learning_rate) / float(c.warmup_steps)
        return tf.where(step < float(c.warmup_steps), c.warmup_learning_rate + slope * step, rate)

    @staticmethod
    def _poly_decay_learning_rate(step: tf.Tensor, c: optimizer_pb2.PolyDecayLearningRate) -> tf.Tensor:
        left = 1.0 - tf.minimum(step / float(c.total_steps), 1.0)
        return c.end_learning_rate + (c.learning_rate_base - c.end_learning_rate) * tf.pow(left, c.power)

    @staticmethod
    def _transformer_learning_rate(step: tf.Tensor, c: optimizer_pb2.TransformerLearningRate) -> tf.Tensor:
        # Vaswani et al. (2017), section 5.3; steps count from 1.
        n = step + 1.0
        scale = c.learning_rate_base * c.step_scaling_rate / math.sqrt(c.hidden_size)
        return scale * tf.minimum(tf.math.rsqrt(n), n * float(c.warmup_steps) ** -1.5)


def schedule_problems(config: optimizer_pb2.LearningRate, path: str) -> Iterable[Problem]:
    """What keeps a `LearningRate` message from being a schedule.

    Args:
        config: the message.
        path: of the message in the config.
    """
    kind = config.WhichOneof("learning_rate")
    if kind is None:
        yield Problem(path, "no schedule", "constant_learning_rate { learning_rate: 0.001 }, or another schedule")
        return
    parameters = getattr(config, kind)
    for name in ("learning_rate", "initial_learning_rate", "learning_rate_base"):
        rate = getattr(parameters, name, 0.0)
        if not 0.0 <= rate < math.inf:
            yield Problem(f"{path}.{kind}.{name}", f"{rate:g}", "a number from 0 upwards")
    positive = {
        "exponential_decay_learning_rate": ("decay_steps", "decay_factor"),
        "poly_decay_learning_rate": ("total_steps",),
        "transformer_learning_rate": ("hidden_size", "warmup_steps"),
    }
    for name in positive.get(kind, ()):
        value = getattr(parameters, name)
        if value <= 0:
            yield Problem(f"{path}.{kind}.{name}", f"{value:g}", "a number above 0")
    if kind == "manual_step_learning_rate":
        steps = [part.step for part in parameters.schedule]
        if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
            yield Problem(f"{path}.{kind}.schedule", f"steps {steps}", "steps in ascending order")
    if kind == "cosine_decay_learning_rate":
        still = parameters.warmup_steps + parameters.hold_base_rate_steps
        if parameters.total_steps <= still:
            expected = f"more than the {still} of warmup_steps and hold_base_rate_steps together"
            hint = "warmup_steps is 10000 unless set"
            yield Problem(f"{path}.{kind}.total_steps", str(parameters.total_steps), expected, hint)
