"""The model zoo and what it stands on."""

from easyrec_lite.models import match, multitask, rank
from easyrec_lite.models.base import Model, Targets, Task
from easyrec_lite.models.metrics import BoundMetric, MeanLoss, bind_metrics
from easyrec_lite.models.recommender import Batch, Recommender
from easyrec_lite.models.registry import build_model, check, model_names, register
from easyrec_lite.models.sides import repeat_row, repeated
from easyrec_lite.models.state import VariableView, model_tensors

__all__ = [
    "Batch",
    "BoundMetric",
    "MeanLoss",
    "Model",
    "Recommender",
    "Targets",
    "Task",
    "VariableView",
    "bind_metrics",
    "build_model",
    "check",
    "match",
    "model_names",
    "model_tensors",
    "multitask",
    "rank",
    "register",
    "repeat_row",
    "repeated",
]
