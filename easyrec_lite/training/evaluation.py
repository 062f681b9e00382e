"""Evaluation: one pass over a source with the metrics of the config."""

from __future__ import annotations

import tensorflow as tf

from easyrec_lite.errors import UserError
from easyrec_lite.models import Batch, MeanLoss, Recommender, bind_metrics


class Evaluator:
    """Evaluates a recommender as it stands; it changes no variable.

    Args:
        recommender: built.
        dataset: of (columns, position); iterating over it anew is a fresh pass over the evaluation rows.
        max_rows: stop after the batch in which this many rows are reached; 0 = all.
    """

    def __init__(self, recommender: Recommender, dataset: tf.data.Dataset, max_rows: int = 0) -> None:
        self._recommender = recommender
        self._max_rows = max_rows
        # Traced once, not at each evaluation.
        self._batches = dataset.map(
            tf.autograph.experimental.do_not_convert(lambda columns, _: recommender.encode(columns))
        ).prefetch(2)
        signature = [self._batches.element_spec]
        self._predict = tf.function(self._step, input_signature=signature, autograph=False)

    def __call__(self) -> dict[str, float]:
        """Metrics by name, with the mean `loss` (weighted, without regularisation) and the number of `rows`.

        Raises:
            UserError: a metric can't be taken of these labels.
        """
        recommender = self._recommender
        metrics = bind_metrics(recommender.config, recommender.model.tasks)
        rows, loss = 0, MeanLoss()
        for batch in self._batches:
            tensors, losses = self._predict(batch)
            predictions = {name: value.numpy() for name, value in tensors.items()}
            labels = {name: value.numpy() for name, value in batch.targets.labels.items()}
            weight = None if batch.targets.weight is None else batch.targets.weight.numpy()
            columns = {name: value.numpy() for name, value in batch.targets.columns.items()}
            for metric in metrics:
                try:
                    metric.update(predictions, labels, metric.row_weight(weight), columns)
                except ValueError as error:
                    raise UserError(f"Metric {metric.name} of the label {metric.label!r}: {error}") from error
            rows += len(next(iter(predictions.values())))
            loss.update(losses)
            if self._max_rows and rows >= self._max_rows:
                break
        results = {metric.name: float(metric.metric.result()) for metric in metrics}
        return {**results, "loss": loss.result(), "rows": rows}

    def _step(self, batch: Batch) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Predictions that some metric reads, and `Model.mean_losses`."""
        model = self._recommender.model
        predictions = model.evaluation_predictions(self._recommender.predict(batch), batch.targets)
        losses = model.mean_losses(predictions, batch.targets)
        read = {metric.score for metric in bind_metrics(self._recommender.config, model.tasks)}
        return {name: value for name, value in predictions.items() if name in read}, losses
