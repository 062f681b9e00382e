"""Metrics by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from easyrec_lite.metrics.auc import AUC, GAUC
from easyrec_lite.metrics.histograms import MaxF1, StreamingAUC
from easyrec_lite.metrics.means import (
    Accuracy,
    Calibration,
    LogLoss,
    MeanAbsoluteError,
    MeanSquaredError,
    RootMeanSquaredError,
)
from easyrec_lite.metrics.metric import Metric
from easyrec_lite.metrics.recall import RecallAtK


def _session_auc(name: str = "session_auc", **params: Any) -> GAUC:
    return GAUC(name=name, **params)


_METRICS: dict[str, Callable[..., Metric]] = {
    "accuracy": Accuracy,
    "auc": AUC,
    "calibration": Calibration,
    "gauc": GAUC,
    "logloss": LogLoss,
    "max_f1": MaxF1,
    "mean_absolute_error": MeanAbsoluteError,
    "mean_squared_error": MeanSquaredError,
    "recall_at_k": RecallAtK,
    "root_mean_squared_error": RootMeanSquaredError,
    "session_auc": _session_auc,
    "streaming_auc": StreamingAUC,
}


def metric_names() -> tuple[str, ...]:
    """All names that `build_metric` takes."""
    return tuple(sorted(_METRICS))


def build_metric(metric: str, /, **params: Any) -> Metric:
    """A new metric of a kind; `name=...` sets what it is logged as.

    Raises:
        ValueError: there is no such metric, or it does not take these parameters.

    Example:
        >>> metric = build_metric("gauc", reduction="mean_by_sample_num", name="gauc_ctr")
        >>> metric.update([0, 1, 1], [0.2, 0.9, 0.4], groups=["u1", "u1", "u2"])
        >>> metric.result()
        1.0
    """
    if metric not in _METRICS:
        raise ValueError(f"No metric is called {metric!r}; there are {', '.join(metric_names())}.")
    try:
        return _METRICS[metric](**params)
    except TypeError as error:
        raise ValueError(f"Metric {metric!r} does not take these parameters: {error}") from None
