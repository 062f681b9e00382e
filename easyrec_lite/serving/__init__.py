"""Serving: exports and what loads them."""

from easyrec_lite.serving.export import CONFIG, PARITY, export_model
from easyrec_lite.serving.failures import LoadError, RequestError
from easyrec_lite.serving.item_index import ItemIndex, ItemIndexError
from easyrec_lite.serving.loaded import LoadedModel
from easyrec_lite.serving.module import ServingModule
from easyrec_lite.serving.parity import TOLERANCE, ParityError, ParityReport
from easyrec_lite.serving.predictor import PredictionError, Predictor
from easyrec_lite.serving.restore import restored_recommender
from easyrec_lite.serving.versions import (
    DESCRIPTION,
    description,
    exported_step,
    keep_newest,
    next_version,
    remove_leftovers,
    versions,
)

__all__ = [
    "CONFIG",
    "DESCRIPTION",
    "PARITY",
    "TOLERANCE",
    "ItemIndex",
    "ItemIndexError",
    "LoadError",
    "LoadedModel",
    "ParityError",
    "ParityReport",
    "PredictionError",
    "Predictor",
    "RequestError",
    "ServingModule",
    "description",
    "export_model",
    "exported_step",
    "keep_newest",
    "next_version",
    "remove_leftovers",
    "restored_recommender",
    "versions",
]
