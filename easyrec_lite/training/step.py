"""The training step, and several of them in one call of the graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from easyrec_lite.models import Batch, Recommender
from easyrec_lite.training.optimizers import build_dense_optimizer, embedding_schedule

_MANY = 2**62


class Element(NamedTuple):
    """What the input pipeline hands to the step.

    Attributes:
        batch: the rows, encoded.
        position: the next row to read after this batch, JSON.
        rows: number of rows, int64.
        event_time: the newest time of the rows, seconds since 1970, float64; -inf if unknown.
    """

    batch: Batch
    position: tf.Tensor
    rows: tf.Tensor
    event_time: tf.Tensor


class Until(NamedTuple):
    """Where a call of `Stepper.run` ends: after the first step that reaches one of these.

    Attributes:
        steps: number of steps.
        rows: number of rows.
        event_time: of any row of this call, seconds since 1970.
        seconds: by the clock; so callbacks, Ctrl-C and the terminal never wait longer than a batch takes to come.
    """

    steps: int = _MANY
    rows: int = _MANY
    event_time: float = math.inf
    seconds: float = 1.0


class StepsResult(NamedTuple):
    """What a call of `Stepper.run` did.

    Attributes:
        steps: number of steps done.
        rows: rows trained.
        losses: of each step, by name: float32 `[steps]`.
        position: of the last batch taken, JSON; '' if none was.
        event_time: the newest of the rows, seconds since 1970; -inf if unknown.
        more: False at the end of the data.
    """

    steps: int
    rows: int
    losses: dict[str, np.ndarray]
    position: str
    event_time: float = -math.inf
    more: bool = True

    @property
    def mean_losses(self) -> dict[str, float]:
        """Mean over the steps, by name; empty if there was no step."""
        return {name: float(values.mean()) for name, values in self.losses.items()} if self.steps else {}


class _Done(NamedTuple):
    """What the loop in the graph carries on; as in StepsResult."""

    steps: tf.Tensor
    rows: tf.Tensor
    event_time: tf.Tensor
    losses: tf.TensorArray
    position: tf.Tensor
    more: tf.Tensor


# Called to build the graph of a step: (batch, inference predictions before it, number of steps done, event time).
Scorer = Callable[[Batch, Callable[[], dict[str, tf.Tensor]], tf.Tensor, tf.Tensor | None], tf.Operation | None]


class Stepper:
    """Runs training steps of a recommender.

    Args:
        recommender: built with `training=True`.
        scorers: what looks at each batch before it is trained on.

    Attributes:
        step: number of steps done (int64 variable).
        optimizer: of the dense variables.
    """

    def __init__(self, recommender: Recommender, scorers: Sequence[Scorer] = ()) -> None:
        self.recommender = recommender
        self._scorers = tuple(scorers)
        config = recommender.config.train_config
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._embedding_rate = embedding_schedule(config)
        self._clip_norm = config.gradient_clipping_by_norm
        recommender.build()
        self.optimizer: keras.optimizers.Optimizer = build_dense_optimizer(config)
        self.optimizer.build(recommender.trainable_variables)
        self._loss_names = ["loss", *recommender.loss_names]
        self._runs: dict[tf.data.Iterator, tf.types.experimental.PolymorphicFunction] = {}

    def train(self, batch: Batch, event_time: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """One step: forward, backward, update.

        Args:
            batch: the rows.
            event_time: the newest of them, for the scorers.

        Returns:
            The losses (scalars) by name, with their sum `loss`.
        """
        recommender, collection = self.recommender, self.recommender.collection
        rows = collection.gather(batch.plan)
        weights = collection.weights(rows)
        # They read variables which are assigned below: in a graph, TensorFlow keeps that order.
        for scorer in self._scorers:
            scorer(batch, lambda: recommender.forward(weights, batch)[0], self.step.read_value(), event_time)
        variables = [variable.value for variable in recommender.trainable_variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variables, weights])
            predictions, embedding_l2 = recommender.forward(weights, batch, training=True)
            losses = recommender.losses(predictions, batch.targets, embedding_l2)
            total = tf.add_n(list(losses.values()))
        dense_gradients, row_gradients = tape.gradient(total, (variables, weights))
        if self._clip_norm > 0:
            dense_gradients, row_gradients = self._clip(dense_gradients, row_gradients)
        done = self.step.assign_add(1)
        collection.update(batch.plan, rows, row_gradients, self._embedding_rate(done - 1), done)
        self.optimizer.apply(dense_gradients, recommender.trainable_variables)
        return {"loss": total, **losses}

    def _clip(
        self, dense: list[tf.Tensor | None], rows: dict[str, tf.Tensor | None]
    ) -> tuple[list[tf.Tensor | None], dict[str, tf.Tensor | None]]:
        """Scales all gradients so that their joint norm is at most the configured one."""
        # Without the first of the rows, the missing one: its gradient may be the largest, and is never applied.
        applied = [tf.convert_to_tensor(gradient)[1:] for gradient in rows.values() if gradient is not None]
        flat = [gradient for gradient in [*dense, *applied] if gradient is not None]
        norm = tf.linalg.global_norm(flat)
        factor = self._clip_norm / tf.maximum(norm, self._clip_norm)

        def scaled(gradient: tf.Tensor | None) -> tf.Tensor | None:
            return None if gradient is None else gradient * factor

        return [scaled(gradient) for gradient in dense], {key: scaled(gradient) for key, gradient in rows.items()}

    def run(self, iterator: tf.data.Iterator, until: Until) -> StepsResult:
        """Steps over an iterator of `Element`, inside the graph, up to the first limit reached; at least one batch.

        A batch without rows, by which a stream says that nothing came, is no step and ends the call.
        """
        if iterator not in self._runs:
            self._runs = {iterator: self._build_run(iterator)}
        done, rows, event_time, losses, position, more = self._runs[iterator](*until)
        names = dict(zip(self._loss_names, losses.numpy().T, strict=True))
        return StepsResult(int(done), int(rows), names, position.numpy().decode(), float(event_time), bool(more))

    def _build_run(self, iterator: tf.data.Iterator) -> tf.types.experimental.PolymorphicFunction:
        signature = [tf.TensorSpec([], dtype) for dtype in (tf.int64, tf.int64, tf.float64, tf.float64)]

        @tf.function(input_signature=signature, autograph=False)
        def run(steps: tf.Tensor, rows: tf.Tensor, event_time: tf.Tensor, seconds: tf.Tensor) -> tuple[tf.Tensor, ...]:
            deadline = tf.timestamp() + seconds

            def goes_on(going: tf.Tensor, done: _Done) -> tf.Tensor:
                within = (done.steps < steps) & (done.rows < rows) & (done.event_time < event_time)
                return going & within & ((done.steps == 0) | (tf.timestamp() < deadline))

            def body(going: tf.Tensor, done: _Done) -> tuple[tf.Tensor, _Done]:
                del going
                optional = iterator.get_next_as_optional()

                def train(element: Element) -> tuple[tf.Tensor, _Done]:
                    losses = self.train(element.batch, element.event_time)
                    values = tf.stack([losses[name] for name in self._loss_names])
                    trained = _Done(
                        done.steps + 1,
                        done.rows + element.rows,
                        tf.maximum(done.event_time, element.event_time),
                        done.losses.write(tf.cast(done.steps, tf.int32), values),
                        element.position,
                        done.more,
                    )
                    return tf.constant(True), trained

                def take() -> tuple[tf.Tensor, _Done]:
                    element = optional.get_value()
                    idle = done._replace(position=element.position)
                    return tf.cond(element.rows > 0, lambda: train(element), lambda: (tf.constant(False), idle))

                def end() -> tuple[tf.Tensor, _Done]:
                    return tf.constant(False), done._replace(more=tf.constant(False))

                return tf.cond(optional.has_value(), take, end)

            zero = tf.constant(0, tf.int64)
            losses = tf.TensorArray(tf.float32, 0, dynamic_size=True, element_shape=[len(self._loss_names)])
            start = _Done(zero, zero, tf.constant(-math.inf, tf.float64), losses, tf.constant(""), tf.constant(True))
            _, done = tf.while_loop(goes_on, body, (tf.constant(True), start))
            return (*done[:3], done.losses.stack(), done.position, done.more)

        return run
