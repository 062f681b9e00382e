"""The metrics that a config asks for, bound to the predictions and labels they compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from easyrec_lite.metrics import Metric, RecallAtK, build_metric
from easyrec_lite.models.base import Task
from easyrec_lite.protos import eval_pb2, loss_pb2, pipeline_pb2

_PLAIN = {
    "max_f1": "max_f1",
    "accuracy": "accuracy",
    "mean_absolute_error": "mean_absolute_error",
    "mean_squared_error": "mean_squared_error",
    "root_mean_squared_error": "root_mean_squared_error",
    "logloss": "logloss",
}


@dataclass
class BoundMetric:
    """A metric with the names of what it reads.

    Attributes:
        name: as reported, with the task's suffix: `auc_ctr`.
        score: the prediction.
        label: the label field; '' where the metric needs none.
        group: the raw column by which rows are grouped, or ''.
        weighted: whether the sample weights count, as they do in the task's loss.
    """

    name: str
    metric: Metric
    score: str
    label: str
    group: str = ""
    weighted: bool = True

    def row_weight(self, weight: np.ndarray | None) -> np.ndarray | None:
        """What `update` takes where these are the sample weights."""
        return weight if self.weighted else None

    def update(
        self,
        predictions: Mapping[str, np.ndarray],
        labels: Mapping[str, np.ndarray],
        weight: np.ndarray | None,
        columns: Mapping[str, np.ndarray],
    ) -> None:
        """Takes in one batch, arrays `[B]` by name; `weight` as `row_weight` gives it."""
        scores = predictions[self.score]
        truth = labels[self.label] if self.label else np.ones(len(scores), np.float32)
        if isinstance(self.metric, RecallAtK):
            # Only rows with a click have an item to be found.
            clicked = (truth > 0).astype(np.float32)
            self.metric.update_ranks(scores, clicked if weight is None else clicked * weight)
        else:
            self.metric.update(truth, scores, weights=weight, groups=columns[self.group] if self.group else None)


class MeanLoss:
    """The sum of a model's losses over several batches, each loss the mean over the rows of all of them."""

    def __init__(self) -> None:
        self._total: Any = 0.0
        self._weight: Any = 0.0

    def update(self, losses: npt.ArrayLike) -> None:
        """Takes in one batch: `Model.mean_losses` of it."""
        means, weights = np.asarray(losses, np.float64)
        self._total, self._weight = self._total + means * weights, self._weight + weights

    def result(self) -> float:
        """The loss so far; 0 where nothing has weight."""
        return float(np.sum(self._total / np.where(self._weight > 0, self._weight, 1.0)))


def metric_columns(config: pipeline_pb2.EasyRecConfig, tasks: Iterable[Task]) -> list[str]:
    """Raw columns that the metrics group rows by."""
    asked = [metric for task in tasks for metric in task.metrics]
    return list(dict.fromkeys(_group(metric) for metric in [*config.eval_config.metrics_set, *asked] if _group(metric)))


def metric_name(config: eval_pb2.EvalMetrics) -> str:
    """What a metric is reported as, before the task's suffix."""
    kind = config.WhichOneof("metric")
    assert kind is not None
    return f"recall@{config.recall_at_topk.topk}" if kind == "recall_at_topk" else kind


def bind_metrics(config: pipeline_pb2.EasyRecConfig, tasks: Sequence[Task]) -> list[BoundMetric]:
    """Fresh metrics of a config: those of each task; a task that names none has those of `eval_config`, else AUC."""
    bound = []
    for task in tasks:
        metrics = list(task.metrics) or list(config.eval_config.metrics_set) or [_default(task)]
        bound += [replace(_bind(metric, task), weighted=task.use_sample_weight) for metric in metrics]
    return bound


def _default(task: Task) -> eval_pb2.EvalMetrics:
    if task.loss_type in (loss_pb2.L2_LOSS, loss_pb2.SIGMOID_L2_LOSS):
        return eval_pb2.EvalMetrics(mean_squared_error=eval_pb2.MeanSquaredError())
    return eval_pb2.EvalMetrics(auc=eval_pb2.AUC())


def _bind(config: eval_pb2.EvalMetrics, task: Task) -> BoundMetric:
    kind = config.WhichOneof("metric")
    if kind == "auc":
        # Exact unless the config asks for a number of thresholds: EasyRec's 200 are coarse where clicks are rare.
        exact = not config.auc.HasField("num_thresholds")
        metric = (
            build_metric("auc") if exact else build_metric("streaming_auc", num_thresholds=config.auc.num_thresholds)
        )
        return BoundMetric(task.key("auc"), metric, task.score, task.label)
    if kind in ("gauc", "session_auc"):
        metric = build_metric(kind, reduction=getattr(config, kind).reduction)
        return BoundMetric(task.key(kind), metric, task.score, task.label, _group(config))
    if kind == "recall_at_topk":
        k = config.recall_at_topk.topk
        return BoundMetric(task.key(f"recall@{k}"), build_metric("recall_at_k", k=k), "rank", task.label)
    assert kind is not None
    return BoundMetric(task.key(kind), build_metric(_PLAIN[kind]), task.score, task.label)


def _group(config: eval_pb2.EvalMetrics) -> str:
    kind = config.WhichOneof("metric")
    if kind == "gauc":
        return config.gauc.uid_field
    return config.session_auc.session_id_field if kind == "session_auc" else ""
