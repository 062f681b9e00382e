"""Optimizers over embedding rows: pure functions of the rows touched.

A row of the fused variable holds the weights and, beside them, its optimizer state, so that an update reads and
writes each row once. Keras's optimizers turn sparse gradients into dense ones, which costs a pass over the whole table.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.protos import optimizer_pb2

_ANONYMOUS = "cd2c89b7-88b7-44c8-ad83-06c2a9158347"  # the name by which TensorFlow knows a resource without one

# Fields of the `Optimizer` message that have a sparse form.
SPARSE_KINDS = ("adam_optimizer", "lazy_adam_optimizer", "adagrad_optimizer")


class RowOptimizer(abc.ABC):
    """One update rule.

    `slots` names the state kept per weight; a packed row is `[weights, slot 0, slot 1, ...]`, each `dim` wide.
    """

    slots: ClassVar[tuple[str, ...]]

    @property
    def initial_slots(self) -> tuple[float, ...]:
        """Initial value of each slot."""
        return (0.0,) * len(self.slots)

    @abc.abstractmethod
    def update(self, rows: tf.Tensor, gradient: tf.Tensor, learning_rate: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """New packed rows.

        Args:
            rows: `[U, dim * (1 + len(slots))]` packed rows as they are.
            gradient: `[U, dim]`, summed over the batch; every row counts as touched.
            learning_rate: scalar float32.
            step: scalar int64, 1 in the first step.

        Returns:
            Packed rows, shaped as `rows`.
        """


@dataclass(frozen=True)
class Adam(RowOptimizer):
    """Adam (Kingma and Ba, 2015), as Keras has it: epsilon is added to the root before the bias correction.

    Applied to the rows of a batch only, it is lazy: the moments of other rows stand still, and the bias correction
    counts the steps of the run, not of the row.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    slots: ClassVar[tuple[str, ...]] = ("m", "v")

    def update(self, rows: tf.Tensor, gradient: tf.Tensor, learning_rate: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """See RowOptimizer.update."""
        weights, m, v = map(_temporary_variable, tf.split(rows, 3, axis=1))
        t = tf.cast(step, tf.float32)
        tf.raw_ops.ResourceApplyAdam(  # one pass over the numbers, where the formula in ops takes ten
            var=weights,
            m=m,
            v=v,
            beta1_power=tf.pow(self.beta1, t),
            beta2_power=tf.pow(self.beta2, t),
            lr=learning_rate,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
            grad=gradient,
        )
        updated = [tf.raw_ops.ReadVariableOp(resource=one, dtype=rows.dtype) for one in (weights, m, v)]
        return tf.ensure_shape(tf.concat(updated, axis=1), rows.shape)


@dataclass(frozen=True)
class Adagrad(RowOptimizer):
    """Adagrad (Duchi, Hazan and Singer, 2011): the step shrinks with the sum of squared gradients of each weight.

    `epsilon` is added to that sum, under the root, as in Keras: tables and dense layers follow one formula.
    """

    initial_accumulator: float = 0.1
    epsilon: float = 1e-7
    slots: ClassVar[tuple[str, ...]] = ("accumulator",)

    @property
    def initial_slots(self) -> tuple[float, ...]:
        """The accumulator's start, which bounds the first steps."""
        return (self.initial_accumulator,)

    def update(self, rows: tf.Tensor, gradient: tf.Tensor, learning_rate: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """See RowOptimizer.update."""
        del step
        weights, accumulator = tf.split(rows, 2, axis=1)
        accumulator += tf.square(gradient)
        step_size = learning_rate * tf.math.rsqrt(accumulator + self.epsilon)
        return tf.concat([weights - step_size * gradient, accumulator], axis=1)


def _temporary_variable(value: tf.Tensor) -> tf.Tensor:
    """A handle to `value` for kernels that update variables in place; it lasts as long as the handle.

    In a graph, tf.Variable would be state that lasts; an anonymous one is made anew whenever the op runs.
    """
    handle = tf.raw_ops.VarHandleOp(dtype=value.dtype, shape=value.shape, shared_name=_ANONYMOUS)
    tf.raw_ops.AssignVariableOp(resource=handle, value=value)
    return handle


def build_row_optimizer(config: optimizer_pb2.Optimizer) -> tuple[RowOptimizer, bool]:
    """The update rule for tables that `config` names, and whether it touches every row each step (`dense_decay`).

    Raises:
        ConfigError: the optimizer has no sparse form here.
    """
    kind = config.WhichOneof("optimizer")
    if kind in ("adam_optimizer", "lazy_adam_optimizer"):
        adam = getattr(config, kind)
        return Adam(adam.beta1, adam.beta2, adam.epsilon), adam.dense_decay
    if kind == "adagrad_optimizer":
        adagrad = config.adagrad_optimizer
        return Adagrad(adagrad.initial_accumulator_value, adagrad.epsilon), False
    raise ConfigError(
        [Problem("train_config.optimizer_config[0]", kind or "no optimizer", f"one of {', '.join(SPARSE_KINDS)}")]
    )
