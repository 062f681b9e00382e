"""The training step, and several of them in one call of the graph."""

from __future__ import annotations

from typing import NamedTuple

import keras
import tensorflow as tf

from easyrec_lite.models import Batch, Recommender
from easyrec_lite.training.optimizers import build_dense_optimizer, embedding_schedule


class StepsResult(NamedTuple):
    """What a call of `Stepper.run` did.

    Attributes:
        steps: number of steps done; fewer than asked for where the data ended.
        rows: rows trained.
        losses: mean over the steps, by name.
        position: of the last batch trained, JSON; '' if none was.
    """

    steps: int
    rows: int
    losses: dict[str, float]
    position: str


class Stepper:
    """Runs training steps of a recommender.

    Args:
        recommender: built with `training=True`.

    Attributes:
        step: number of steps done (int64 variable).
        optimizer: of the dense variables.
    """

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        config = recommender.config.train_config
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._embedding_rate = embedding_schedule(config)
        self._clip_norm = config.gradient_clipping_by_norm
        recommender.build()
        self.optimizer: keras.optimizers.Optimizer = build_dense_optimizer(config)
        self.optimizer.build(recommender.trainable_variables)
        self._loss_names = ["loss", *recommender.loss_names]
        self._runs: dict[tf.data.Iterator, tf.types.experimental.PolymorphicFunction] = {}

    def train(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One step: forward, backward, update. Returns the losses (scalars) by name, with their sum `loss`."""
        recommender, collection = self.recommender, self.recommender.collection
        rows = collection.gather(batch.plan)
        weights = collection.weights(rows)
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
        flat = [gradient for gradient in [*dense, *rows.values()] if gradient is not None]
        norm = tf.linalg.global_norm(flat)
        factor = self._clip_norm / tf.maximum(norm, self._clip_norm)

        def scaled(gradient: tf.Tensor | None) -> tf.Tensor | None:
            return None if gradient is None else gradient * factor

        return [scaled(gradient) for gradient in dense], {key: scaled(gradient) for key, gradient in rows.items()}

    def run(self, iterator: tf.data.Iterator, steps: int) -> StepsResult:
        """Up to `steps` steps over an iterator of `(Batch, position)`, inside the graph."""
        if iterator not in self._runs:
            self._runs = {iterator: self._build_run(iterator)}
        done, rows, sums, position = self._runs[iterator](tf.constant(steps, tf.int64))
        count = int(done)
        means = {name: float(value) / max(count, 1) for name, value in zip(self._loss_names, sums.numpy(), strict=True)}
        return StepsResult(count, int(rows), means, position.numpy().decode())

    def _build_run(self, iterator: tf.data.Iterator) -> tf.types.experimental.PolymorphicFunction:
        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)
        def run(steps: tf.Tensor) -> tuple[tf.Tensor, ...]:
            def body(
                done: tf.Tensor, rows: tf.Tensor, sums: tf.Tensor, position: tf.Tensor, more: tf.Tensor
            ) -> tuple[tf.Tensor, ...]:
                element = iterator.get_next_as_optional()

                def train() -> tuple[tf.Tensor, ...]:
                    batch, reached, size = element.get_value()
                    losses = self.train(batch)
                    values = tf.stack([losses[name] for name in self._loss_names])
                    return done + 1, rows + size, sums + values, reached, tf.constant(True)

                def end() -> tuple[tf.Tensor, ...]:
                    return done, rows, sums, position, tf.constant(False)

                return tf.cond(element.has_value(), train, end)

            zero = tf.constant(0, tf.int64)
            start = (zero, zero, tf.zeros([len(self._loss_names)]), tf.constant(""), tf.constant(True))
            result = tf.while_loop(lambda done, rows, sums, position, more: more & (done < steps), body, start)
            return result[:4]

        return run
