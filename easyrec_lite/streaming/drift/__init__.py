"""Drift detection: NumPy only, no model and no training in it.

detector = Detector(config.stream_config.drift, reference)
detector.update(batch)                       # each batch
measurements = detector.end_window(facts)    # each window
"""

from easyrec_lite.streaming.drift.checks import CHECKS, Check, Setting, check, load_reference, settings
from easyrec_lite.streaming.drift.detector import Detector
from easyrec_lite.streaming.drift.types import Contribution, Measurement, WatchedBatch, WindowFacts

__all__ = [
    "CHECKS",
    "Check",
    "Contribution",
    "Detector",
    "Measurement",
    "Setting",
    "WatchedBatch",
    "WindowFacts",
    "check",
    "load_reference",
    "settings",
]
