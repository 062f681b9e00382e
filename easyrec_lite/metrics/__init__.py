"""Metrics on the host, in NumPy: `build_metric` by name, one `Metric` protocol."""

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
from easyrec_lite.metrics.metric import Metric, State
from easyrec_lite.metrics.recall import RecallAtK, ranks_of_positives
from easyrec_lite.metrics.registry import build_metric, metric_names

__all__ = [
    "AUC",
    "GAUC",
    "Accuracy",
    "Calibration",
    "LogLoss",
    "MaxF1",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "RecallAtK",
    "RootMeanSquaredError",
    "State",
    "StreamingAUC",
    "build_metric",
    "metric_names",
    "ranks_of_positives",
]
