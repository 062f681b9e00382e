"""Training on a stream, watched: prequential evaluation, drift alarms, publishing, the run's numbers; all callbacks."""

from easyrec_lite.streaming.alarms import ALARMS_FILE, AlarmLog, Stop
from easyrec_lite.streaming.building import StreamCallbacks, Surroundings, check, stream_callbacks
from easyrec_lite.streaming.drift_monitor import DriftMonitor
from easyrec_lite.streaming.monitor import StreamMonitor, StreamNumbers, StreamSource
from easyrec_lite.streaming.notices import Notifier
from easyrec_lite.streaming.prequential import Prequential, Recorder
from easyrec_lite.streaming.prometheus import PrometheusExporter
from easyrec_lite.streaming.publishing import (
    PUBLISHED_DIR,
    PUBLISHED_FILE,
    Gate,
    ModelWriter,
    Publisher,
    RolledBack,
    published_dir,
    roll_back,
)
from easyrec_lite.streaming.scores import LogOddsAUC
from easyrec_lite.streaming.verdicts import Judge, Window

__all__ = [
    "ALARMS_FILE",
    "PUBLISHED_DIR",
    "PUBLISHED_FILE",
    "AlarmLog",
    "DriftMonitor",
    "Gate",
    "Judge",
    "LogOddsAUC",
    "ModelWriter",
    "Notifier",
    "Prequential",
    "PrometheusExporter",
    "Publisher",
    "Recorder",
    "RolledBack",
    "Stop",
    "StreamCallbacks",
    "StreamMonitor",
    "StreamNumbers",
    "StreamSource",
    "Surroundings",
    "Window",
    "check",
    "published_dir",
    "roll_back",
    "stream_callbacks",
]
