"""Evaluation: one pass over a source with the metrics of the config."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from easyrec_lite.models import Batch, Recommender, bind_metrics

# A pass over rows: every call gives a fresh dataset of (columns, position).
Dataset = Callable[[], tf.data.Dataset]


class Evaluator:
    """Evaluates a recommender as it stands; it changes no variable.

    Args:
        recommender: built.
        dataset: gives a fresh pass over the evaluation rows.
        max_rows: stop after the batch in which this many rows are reached; 0 = all.
    """

    def __init__(self, recommender: Recommender, dataset: Dataset, max_rows: int = 0) -> None:
        self._recommender = recommender
        self._dataset = dataset
        self._max_rows = max_rows
        self._predict: Callable[[Batch], dict[str, tf.Tensor]] | None = None

    def __call__(self) -> dict[str, float]:
        """Metrics by name, with `rows` and the mean `loss` of the tasks that have one per row."""
        recommender = self._recommender
        metrics = bind_metrics(recommender.config, recommender.model.tasks)
        dataset = self._dataset().map(lambda columns, _: recommender.encode(columns))
        if self._predict is None:
            self._predict = tf.function(
                lambda batch: recommender.model.evaluation_predictions(recommender.predict(batch)),
                input_signature=[dataset.element_spec],
                autograph=False,
            )
        rows = 0
        for batch in dataset.prefetch(2):
            predictions = {name: value.numpy() for name, value in self._predict(batch).items()}
            labels = {name: value.numpy() for name, value in batch.targets.labels.items()}
            weight = None if batch.targets.weight is None else batch.targets.weight.numpy()
            columns = {name: value.numpy() for name, value in batch.targets.columns.items()}
            for metric in metrics:
                metric.update(predictions, labels, weight, columns)
            rows += len(next(iter(predictions.values())))
            if self._max_rows and rows >= self._max_rows:
                break
        return {**{metric.name: float(metric.metric.result()) for metric in metrics}, "rows": float(np.int64(rows))}
