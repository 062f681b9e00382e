"""Rows scored by a model and kept, so that one pass serves metrics, curves and the bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from easyrec_lite.errors import UserError
from easyrec_lite.features import Column, Encoded, Ids, Numbers
from easyrec_lite.inputs import Source, as_dataset, input_errors
from easyrec_lite.models import MeanLoss, Recommender, bind_metrics
from easyrec_lite.models.base import Task
from easyrec_lite.models.metrics import BoundMetric

# Metrics that are better when smaller; the others are better when bigger.
_SMALLER = ("loss", "logloss", "mean_absolute_error", "mean_squared_error", "root_mean_squared_error")


@dataclass(frozen=True)
class ScoredRows:
    """Rows with what a model says of them; arrays `[N]`.

    Attributes:
        tasks: of the model.
        predictions: what metrics read, by name.
        labels: by label field.
        weight: sample weights, or None.
        columns: raw columns: those that metrics group by, and those that were asked for.
        loss: mean over the rows, without regularisation.
        bound: fresh metrics of the model's config, at each call.
    """

    tasks: Sequence[Task]
    predictions: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    weight: np.ndarray | None
    columns: Mapping[str, np.ndarray]
    loss: float
    bound: Callable[[], list[BoundMetric]] = field(repr=False)

    def __len__(self) -> int:
        return len(next(iter(self.predictions.values())))

    def metrics(self) -> dict[str, float]:
        """The metrics of the config by name, with `loss` and `rows`, as an evaluation reports them.

        Raises:
            UserError: a metric can't be taken of these labels.
        """
        result = {}
        for metric in self.bound():
            try:
                metric.update(self.predictions, self.labels, metric.row_weight(self.weight), self.columns)
            except ValueError as error:
                raise UserError(f"Metric {metric.name} of the label {metric.label!r}: {error}") from error
            result[metric.name] = float(metric.metric.result())
        return {**result, "loss": self.loss, "rows": len(self)}

    def task(self, name: str | None = None) -> Task:
        """The task of a name, or of a label; the first by default.

        Raises:
            UserError: the model has no such task.
        """
        if name is None:
            return self.tasks[0]
        for task in self.tasks:
            if name in (task.name, task.label):
                return task
        raise UserError(f"task: found {name!r}; expected one of {[task.name or task.label for task in self.tasks]}.")


class Scorer:
    """Scores rows that it holds in memory, as they are or with some columns or features changed.

    Args:
        recommender: restored, built for inference.
        columns: raw columns of all rows by name, as `read_rows` gives them.
        batch_size: rows a call of the model.
    """

    def __init__(self, recommender: Recommender, columns: Mapping[str, Column], batch_size: int = 4096) -> None:
        self.recommender = recommender
        self.columns = dict(columns)
        self.rows = count_rows(columns)
        self._batch_size = batch_size
        self._targets = [*recommender.labels.columns, *recommender.target_columns]
        self._encoded = {name: feature.encode(self.columns) for name, feature in recommender.features.items()}
        self._step: Callable[..., Any] | None = None

    def __call__(
        self, columns: Mapping[str, Column] | None = None, encoded: Mapping[str, Encoded] | None = None
    ) -> ScoredRows:
        """Scores all rows.

        Args:
            columns: raw columns to take in place of those of the same name.
            encoded: features to take, after that, in place of those of the same name.
        """
        changed = dict(columns or {})
        whole = {**self.columns, **changed}
        given = {
            name: feature.encode(whole) if changed.keys() & set(feature.inputs) else self._encoded[name]
            for name, feature in self.recommender.features.items()
        }
        given.update(encoded or {})
        targets = {name: self.columns[name] for name in dict.fromkeys(self._targets)}
        structure = (given, targets)
        leaves = tf.nest.flatten(structure)
        present = [leaf for leaf in leaves if leaf is not None]  # ids may be without weights
        if self._step is None:

            def step(*tensors: Column) -> tuple[Any, ...]:
                values = iter(tensors)
                whole = [None if leaf is None else next(values) for leaf in leaves]
                return self._score(*tf.nest.pack_sequence_as(structure, whole))

            self._step = tf.function(step, autograph=False).get_concrete_function(*(_spec(leaf) for leaf in present))
        parts: list[Any] = []
        mean = MeanLoss()
        for start in range(0, self.rows, self._batch_size):
            stop = min(start + self._batch_size, self.rows)
            *arrays, losses = self._step(*(leaf[start:stop] for leaf in present))
            parts.append(tf.nest.map_structure(lambda value: value.numpy(), arrays))
            mean.update(losses)
        predictions, labels, weight = tf.nest.map_structure(lambda *pieces: np.concatenate(pieces), *parts)
        recommender = self.recommender
        return ScoredRows(
            recommender.model.tasks,
            predictions,
            labels,
            weight[0] if weight else None,
            {name: column.numpy() for name, column in self.columns.items() if isinstance(column, tf.Tensor)},
            mean.result(),
            lambda: bind_metrics(recommender.config, recommender.model.tasks),
        )

    def encoded(self, name: str) -> Encoded:
        """A feature of all rows."""
        return self._encoded[name]

    def _score(self, encoded: Mapping[str, Encoded], columns: Mapping[str, Column]) -> tuple[Any, ...]:
        recommender = self.recommender
        batch = recommender.assemble(encoded, columns)
        model, targets = recommender.model, batch.targets
        predictions = model.evaluation_predictions(recommender.predict(batch), targets)
        losses = model.mean_losses(predictions, targets)
        read = {metric.score for metric in bind_metrics(recommender.config, model.tasks)}
        read |= {task.score for task in model.tasks}
        shown = {name: value for name, value in predictions.items() if name in read}
        return shown, targets.labels, [] if targets.weight is None else [targets.weight], losses


def read_rows(source: Source, max_rows: int | None = None) -> dict[str, Column]:
    """The first rows of a source as one batch, raw columns by name.

    Args:
        source: read from its start.
        max_rows: stop there; None reads to the end.

    Raises:
        InputError: the rows can't be read.
        UserError: there are none.
    """
    batches: list[Mapping[str, Column]] = []
    rows = 0
    try:
        with input_errors(source):
            for columns, _ in as_dataset(source):
                batches.append(columns)
                rows += count_rows(columns)
                if max_rows is not None and rows >= max_rows:
                    break
    finally:
        source.close()
    if not rows:
        raise UserError("The data has no usable rows.")
    joined = {name: tf.concat([batch[name] for batch in batches], axis=0) for name in batches[0]}
    return {name: column[:max_rows] for name, column in joined.items()}


def count_rows(columns: Mapping[str, Column]) -> int:
    """Rows of a batch."""
    column = next(iter(columns.values()))
    return int(column.nrows() if isinstance(column, tf.RaggedTensor) else column.shape[0])


def take_rows(value: Any, places: np.ndarray) -> Any:
    """Rows of a column or of an encoded feature, in the order of `places` `[N]`."""
    if isinstance(value, Ids):
        return Ids(take_rows(value.ids, places), None if value.weights is None else take_rows(value.weights, places))
    if isinstance(value, Numbers):
        return Numbers(take_rows(value.values, places))
    return tf.gather(value, places)


def better_when_smaller(metric: str, tasks: Iterable[Task]) -> bool:
    """Whether a metric, as it is reported (`logloss_ctr`), measures errors."""
    bases = [metric, *(metric.removesuffix(f"_{task.name}") for task in tasks if task.name)]
    return any(base in _SMALLER for base in bases)


def _spec(value: Any) -> Any:
    """The type of a batch of any number of rows."""
    if isinstance(value, tf.RaggedTensor):
        shape = [None] * (1 + value.ragged_rank) + value.flat_values.shape[1:].as_list()
        return tf.RaggedTensorSpec(shape, value.dtype, value.ragged_rank, value.row_splits.dtype)
    return tf.TensorSpec([None, *value.shape[1:].as_list()], value.dtype)
