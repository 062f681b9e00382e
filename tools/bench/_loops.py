"""Pieces of a training step, run alone: several times in one call of the graph, on tensors that are ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any, NamedTuple

import tensorflow as tf

from easyrec_lite.models import Batch, Recommender
from easyrec_lite.models.base import Targets
from easyrec_lite.models.groups import GroupInput
from easyrec_lite.training import Stepper
from tools.bench._common import Spread

Groups = dict[str, GroupInput]


class Cost(NamedTuple):
    """Of one call: wall seconds, and CPU seconds of the whole process."""

    wall: Spread
    cpu: Spread


class Loop:
    """Calls a function on one element of a dataset after the other, inside the graph.

    Args:
        function: whatever it returns is computed, and dropped.
        dataset: endless.
    """

    def __init__(self, function: Callable[[Any], Any], dataset: tf.data.Dataset) -> None:
        iterator = iter(dataset)

        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)
        def run(count: tf.Tensor) -> tf.Tensor:
            def body(done: tf.Tensor, used: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                results = tf.nest.flatten(function(next(iterator)), expand_composites=True)
                return done + 1, tf.add_n([used, *(_use(result) for result in results if result is not None)])

            start = (tf.constant(0, tf.int64), tf.constant(0.0))
            return tf.while_loop(lambda done, used: done < count, body, start)[1]

        self._run = run

    def __call__(self, count: int) -> None:
        """Runs it `count` times."""
        self._run(tf.constant(count, tf.int64)).numpy()

    def cost(self, count: int = 16, repeats: int = 3) -> Cost:
        """Of one call of the function; the first calls, which trace and warm up, don't count."""
        self(2)
        walls, cpus = [], []
        for _ in range(repeats):
            wall, cpu = time.perf_counter(), time.process_time()
            self(count)
            walls.append((time.perf_counter() - wall) / count)
            cpus.append((time.process_time() - cpu) / count)
        return Cost(Spread.of(walls), Spread.of(cpus))


def _use(tensor: tf.Tensor) -> tf.Tensor:
    """A number that needs the tensor: TensorFlow removes ops whose values nobody reads."""
    first = tf.reshape(tensor, [-1])[:1]
    return tf.reduce_sum(tf.cast(tf.strings.length(first) if tensor.dtype == tf.string else first, tf.float32))


def ready(elements: Sequence[Any]) -> tf.data.Dataset:
    """The elements, nests of tensors in memory, again and again; handing one out copies nothing."""
    return reduce(tf.data.Dataset.concatenate, map(tf.data.Dataset.from_tensors, elements)).repeat()


class DenseFloor(Loop):
    """The dense part of a model and nothing else: forward, backward and update from ready group tensors.

    Layers, losses and optimizer are those of a training step of the same config, with variables of their own. No
    gradient of a group tensor is taken: that already serves the tables.

    Args:
        config: checked and complete.
        elements: group tensors (for histories: true positions) and targets.

    Raises:
        ValueError: the config has layers between tables and group tensors.
    """

    def __init__(self, config: Any, elements: Sequence[tuple[Groups, Targets]]) -> None:
        self.recommender = Recommender(config, tables=False)
        self.stepper = Stepper(self.recommender)
        if self.recommender.groups.trainable_variables:
            raise ValueError("The dense floor starts at the group tensors: none of them may need a trained layer.")
        super().__init__(self.step, ready(elements))

    def step(self, element: tuple[Groups, Targets]) -> tf.Tensor:
        """One step; returns the loss."""
        return dense_step(self.stepper, element, watch_groups=False)[0]


def dense_step(
    stepper: Stepper, element: tuple[Groups, Targets], watch_groups: bool
) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
    """The loss, and the gradients of the float tensors of the groups if they are watched."""
    groups, targets = element
    recommender = stepper.recommender
    variables = [variable.value for variable in recommender.trainable_variables]
    inputs = _floats(groups) if watch_groups else []
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([variables, inputs])
        predictions = recommender.model(groups, training=True)
        losses = recommender.losses(predictions, targets, tf.zeros([]))
        total = tf.add_n(list(losses.values()))
    gradients, of_inputs = tape.gradient(total, (variables, inputs))
    stepper.optimizer.apply(gradients, recommender.trainable_variables)
    return total, of_inputs


def group_tensors(recommender: Recommender, batch: Batch) -> tuple[Groups, Targets]:
    """What the model gets of a batch."""
    collection = recommender.collection
    return _groups(recommender, collection.weights(collection.gather(batch.plan)), batch), batch.targets


def stage_loops(stepper: Stepper, columns: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Loop]]:
    """The stages of a step in their order, each to be run alone on ready batches. They train the stepper's model.

    Args:
        stepper: of a recommender with tables.
        columns: a few raw batches.
    """
    recommender, collection = stepper.recommender, stepper.recommender.collection
    yield "encode: columns to ids", Loop(recommender.encode_features, ready(columns))

    encoded = [(recommender.encode_features(raw), raw) for raw in columns]
    yield "plan: distinct rows, labels", Loop(lambda pair: recommender.assemble(*pair), ready(encoded))

    batches = [recommender.assemble(*pair) for pair in encoded]
    yield "gather: packed rows", Loop(lambda batch: collection.gather(batch.plan), ready(batches))

    packed = [collection.gather(batch.plan) for batch in batches]
    weighted = [(collection.weights(rows), batch) for rows, batch in zip(packed, batches, strict=True)]
    yield "outputs: rows to group tensors", Loop(lambda pair: _groups(recommender, *pair), ready(weighted))

    dense = [(_groups(recommender, *pair), pair[1].targets) for pair in weighted]
    yield "dense floor", DenseFloor(recommender.config, dense)
    yield (
        "dense floor with gradients of the groups",
        Loop(lambda element: dense_step(stepper, element, watch_groups=True), ready(dense)),
    )

    upstream = [tuple(tf.ones_like(tensor) for tensor in _floats(groups)) for groups, _ in dense]
    backward = [(*pair, gradient) for pair, gradient in zip(weighted, upstream, strict=True)]
    yield "sums: gradients of the rows", Loop(lambda element: _row_gradients(recommender, *element), ready(backward))

    updates = [
        (batch, rows, weights) for rows, (weights, batch) in zip(packed, weighted, strict=True)
    ]  # the weights stand for their gradients

    def update(element: Any) -> None:
        batch, rows, gradients = element
        collection.update(batch.plan, rows, gradients, tf.constant(1e-6), tf.constant(1, tf.int64))

    yield "update: rows written back", Loop(update, ready(updates))
    yield "the whole step on ready batches", Loop(stepper.train, ready(batches))


def _groups(recommender: Recommender, weights: Any, batch: Batch) -> Groups:
    outputs = recommender.collection.outputs(weights, batch.plan)
    return recommender.groups(outputs, batch.numbers, training=True)


def _row_gradients(recommender: Recommender, weights: Any, batch: Batch, upstream: tuple[tf.Tensor, ...]) -> Any:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        tensors = _floats(_groups(recommender, weights, batch))
    return tape.gradient(tensors, weights, output_gradients=list(upstream))


def _floats(groups: Groups) -> list[tf.Tensor]:
    return [tensor for tensor in tf.nest.flatten(groups) if tensor.dtype.is_floating]
