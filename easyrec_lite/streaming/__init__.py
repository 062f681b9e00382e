"""Training on a stream, watched: prequential evaluation and the run's numbers, as callbacks of the loop."""

from easyrec_lite.streaming.building import StreamCallbacks, check, stream_callbacks
from easyrec_lite.streaming.monitor import StreamMonitor, StreamNumbers, StreamSource
from easyrec_lite.streaming.prequential import Prequential, Recorder
from easyrec_lite.streaming.prometheus import PrometheusExporter
from easyrec_lite.streaming.scores import LogOddsAUC

__all__ = [
    "LogOddsAUC",
    "Prequential",
    "PrometheusExporter",
    "Recorder",
    "StreamCallbacks",
    "StreamMonitor",
    "StreamNumbers",
    "StreamSource",
    "check",
    "stream_callbacks",
]
