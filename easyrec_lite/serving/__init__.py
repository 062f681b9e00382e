"""Serving: exports and what loads them."""

from easyrec_lite.serving.export import (
    CONFIG,
    DESCRIPTION,
    ServingModule,
    export_model,
    exported_step,
    next_version,
    versions,
)
from easyrec_lite.serving.predictor import PredictionError, Predictor
from easyrec_lite.serving.restore import restored_recommender

__all__ = [
    "CONFIG",
    "DESCRIPTION",
    "PredictionError",
    "Predictor",
    "ServingModule",
    "export_model",
    "exported_step",
    "next_version",
    "restored_recommender",
    "versions",
]
