"""Optimizers of the dense part, and the learning rate of the tables, from the config."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.embeddings import SPARSE_KINDS
from easyrec_lite.protos import optimizer_pb2, pipeline_pb2, train_pb2
from easyrec_lite.training.schedules import Schedule, schedule_problems


def build_dense_optimizer(config: train_pb2.TrainConfig) -> keras.optimizers.Optimizer:
    """The optimizer of the dense variables: the only one of the config, or the second of [embedding, dense].

    Raises:
        ConfigError: see `optimizer_problems`.
    """
    _require(config)
    place = len(config.optimizer_config) - 1
    optimizer = config.optimizer_config[place]
    schedule = _schedule(optimizer, place)
    if optimizer.HasField("adagrad_optimizer"):
        adagrad = optimizer.adagrad_optimizer
        return keras.optimizers.Adagrad(
            schedule, adagrad.initial_accumulator_value, adagrad.epsilon, name="dense_adagrad"
        )
    adam = getattr(optimizer, optimizer.WhichOneof("optimizer"))
    return keras.optimizers.Adam(schedule, adam.beta1, adam.beta2, adam.epsilon, name="dense_adam")


def embedding_schedule(config: train_pb2.TrainConfig) -> Schedule:
    """Learning rate of the tables: the first optimizer's, times its `embedding_learning_rate_multiplier`.

    Raises:
        ConfigError: see `optimizer_problems`.
    """
    _require(config)
    optimizer = config.optimizer_config[0]
    explicit = optimizer.HasField("embedding_learning_rate_multiplier")
    return _schedule(optimizer, 0, optimizer.embedding_learning_rate_multiplier if explicit else 1.0)


def optimizer_problems(config: train_pb2.TrainConfig) -> Iterable[Problem]:
    """What keeps `train_config.optimizer_config` from being used."""
    path = "train_config.optimizer_config"
    if not 1 <= len(config.optimizer_config) <= 2:
        expected = "1 optimizer, or 2: of the embedding tables and of the rest"
        yield Problem(path, f"{len(config.optimizer_config)} optimizers", expected)
    for place, optimizer in enumerate(config.optimizer_config):
        kind = optimizer.WhichOneof("optimizer")
        if kind not in SPARSE_KINDS:  # each of them has a dense form too
            yield Problem(f"{path}[{place}]", kind or "no optimizer", f"one of {', '.join(SPARSE_KINDS)}")
            continue
        parameters = getattr(optimizer, kind)
        here = f"{path}[{place}].{kind}"
        yield from schedule_problems(parameters.learning_rate, f"{here}.learning_rate")
        for name in ("beta1", "beta2"):
            beta = getattr(parameters, name, 0.0)
            if not 0.0 <= beta < 1.0:
                yield Problem(f"{here}.{name}", f"{beta:g}", "a number from 0 up to, but not, 1")
        # Nothing else keeps a weight that has no gradient yet from 0 / 0.
        start = getattr(parameters, "initial_accumulator_value", 0.0)
        if start < 0.0:
            yield Problem(f"{here}.initial_accumulator_value", f"{start:g}", "a number from 0 upwards")
        if parameters.epsilon < 0.0 or (parameters.epsilon == 0.0 and start <= 0.0):
            yield Problem(f"{here}.epsilon", f"{parameters.epsilon:g}", "a number above 0")


def check(config: pipeline_pb2.EasyRecConfig) -> Iterable[Problem]:
    """`optimizer_problems` of a whole config: a check for `load_config`."""
    return optimizer_problems(config.train_config)


def _require(config: train_pb2.TrainConfig) -> None:
    if problems := list(optimizer_problems(config)):
        raise ConfigError(problems)


def _schedule(optimizer: optimizer_pb2.Optimizer, place: int, multiplier: float = 1.0) -> Schedule:
    kind = optimizer.WhichOneof("optimizer")
    path = f"train_config.optimizer_config[{place}].{kind}.learning_rate"
    return Schedule(getattr(optimizer, kind).learning_rate, multiplier, path)
