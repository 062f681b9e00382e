"""Optimizers of the dense part, from the config."""

from __future__ import annotations

import keras

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.protos import optimizer_pb2, train_pb2
from easyrec_lite.training.schedules import Schedule


def build_dense_optimizer(config: train_pb2.TrainConfig) -> keras.optimizers.Optimizer:
    """The optimizer of the dense variables: the only one of the config, or the second of [embedding, dense].

    Raises:
        ConfigError: an optimizer that has no dense form here.
    """
    place = len(config.optimizer_config) - 1
    optimizer = config.optimizer_config[place]
    kind = optimizer.WhichOneof("optimizer")
    if kind in ("adam_optimizer", "lazy_adam_optimizer"):
        adam = getattr(optimizer, kind)
        return keras.optimizers.Adam(
            Schedule(adam.learning_rate), adam.beta1, adam.beta2, adam.epsilon, name="dense_adam"
        )
    if kind == "adagrad_optimizer":
        adagrad = optimizer.adagrad_optimizer
        return keras.optimizers.Adagrad(
            Schedule(adagrad.learning_rate), adagrad.initial_accumulator_value, adagrad.epsilon, name="dense_adagrad"
        )
    path = f"train_config.optimizer_config[{place}]"
    raise ConfigError([Problem(path, str(kind), "adam_optimizer, lazy_adam_optimizer or adagrad_optimizer")])


def embedding_schedule(config: train_pb2.TrainConfig) -> Schedule:
    """Learning rate of the tables: the first optimizer's, times its `embedding_learning_rate_multiplier`."""
    optimizer = config.optimizer_config[0]
    return Schedule(learning_rate_of(optimizer), _multiplier(optimizer))


def learning_rate_of(optimizer: optimizer_pb2.Optimizer) -> optimizer_pb2.LearningRate:
    """The schedule of whichever optimizer the message holds."""
    kind = optimizer.WhichOneof("optimizer")
    return getattr(optimizer, kind).learning_rate if kind else optimizer_pb2.LearningRate()


def _multiplier(optimizer: optimizer_pb2.Optimizer) -> float:
    if optimizer.HasField("embedding_learning_rate_multiplier"):
        return optimizer.embedding_learning_rate_multiplier
    return 1.0
