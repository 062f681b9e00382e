"""The callbacks that `stream_config` asks for, and what can be wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from easyrec_lite.checkpoints import Files
from easyrec_lite.config import ConfigError, Problem, resolve_secret
from easyrec_lite.models import Recommender
from easyrec_lite.protos import pipeline_pb2
from easyrec_lite.streaming.alarms import AlarmLog
from easyrec_lite.streaming.conditions import check as check_publishing
from easyrec_lite.streaming.drift import Detector, load_reference, settings
from easyrec_lite.streaming.drift import check as check_drift
from easyrec_lite.streaming.drift_monitor import DriftMonitor
from easyrec_lite.streaming.monitor import StreamMonitor, StreamSource
from easyrec_lite.streaming.notices import Notifier
from easyrec_lite.streaming.prequential import Prequential, Recorder
from easyrec_lite.streaming.prometheus import PrometheusExporter
from easyrec_lite.streaming.publishing import PUBLISHED_FILE, ModelWriter, Publisher, published_dir
from easyrec_lite.streaming.verdicts import Judge
from easyrec_lite.terminal import warn
from easyrec_lite.training import Callback, TrainedBatches


@dataclass(frozen=True)
class StreamCallbacks:
    """What watches a run.

    Attributes:
        monitor: the run's numbers.
        prequential: if the config asks for it.
        drift: if the config asks for it.
        publisher: if the config asks for it.
        exporter: if the config asks for it.
    """

    monitor: StreamMonitor
    prequential: Prequential | None = None
    drift: DriftMonitor | None = None
    publisher: Publisher | None = None
    exporter: PrometheusExporter | None = None

    def __iter__(self) -> Iterator[Callback]:
        """All of them, in the order in which they are to be told."""
        callbacks = (self.prequential, self.drift, self.publisher, self.monitor, self.exporter)
        yield from (callback for callback in callbacks if callback is not None)


@dataclass(frozen=True)
class Surroundings:
    """What the watchers of a run work with.

    Attributes:
        model_dir: where the run's files are.
        batches: tells of the batches that are trained.
        alarms: the run's log of alarms.
        write: exports versions into `published_dir`; needed to publish.
        source: the stream that is trained on; None for files.
        recorders: keep the numbers: metrics.jsonl, TensorBoard, the terminal.
        journal: keeps the windows of the drift monitor.
        tell: shows a line to the user.
        imports: modules of the user's, for commands that are shown.
        files: file operations; tests hand in their own.
    """

    model_dir: Path
    batches: TrainedBatches
    alarms: AlarmLog
    write: ModelWriter | None = None
    source: StreamSource | None = None
    recorders: Sequence[Recorder] = ()
    journal: Recorder | None = None
    tell: Callable[[str], None] = warn
    imports: Sequence[str] = ()
    files: Files | None = None


def stream_callbacks(
    config: pipeline_pb2.EasyRecConfig, recommender: Recommender, around: Surroundings
) -> StreamCallbacks:
    """The callbacks that a config asks for; they go behind `around.batches` and before the recorders.

    Args:
        config: checked.
        recommender: built with `training=True`.
        around: what they work with.

    Raises:
        ConfigError: a secret is not where the config says.
        UserError: the reference of the drift monitor can't be read.
    """
    stream = config.stream_config
    monitor = StreamMonitor(around.source)
    drift = _drift_monitor(config, recommender, around) if stream.HasField("drift") else None
    publisher = None
    if stream.HasField("publish") and around.write is not None:
        directory, log = published_dir(stream.publish, around.model_dir), around.model_dir / PUBLISHED_FILE
        publisher = Publisher(
            stream.publish,
            directory,
            around.write,
            log,
            drift,
            around.recorders,
            files=around.files,
            tell=around.tell,
        )
    prequential = None
    if stream.HasField("prequential"):
        listening = [recorder for recorder in (drift, publisher) if recorder is not None]
        prequential = Prequential(stream.prequential, recommender, [*listening, *around.recorders])
    exporter = None
    if stream.prometheus_port:
        exporter = PrometheusExporter(monitor, prequential, stream.prometheus_port, drift=drift)
    return StreamCallbacks(monitor, prequential, drift, publisher, exporter)


def _drift_monitor(config: pipeline_pb2.EasyRecConfig, recommender: Recommender, around: Surroundings) -> DriftMonitor:
    drift = config.stream_config.drift
    reference = load_reference(drift.reference_statistics) if drift.HasField("reference_statistics") else None
    url = resolve_secret(drift.alarm_url, "stream_config.drift.alarm_url") if drift.alarm_url else ""
    if url and not url.startswith(("http://", "https://")):
        found, expected = "something else", "a reference to a URL that begins with http:// or https://"
        raise ConfigError([Problem("stream_config.drift.alarm_url", found, expected)])
    hidden = {field.input_name for field in config.data_config.input_fields if field.private}
    private = {name for name, feature in recommender.features.items() if hidden & set(feature.inputs)}
    return DriftMonitor(
        drift,
        Detector(drift, reference),
        Judge(settings(drift), drift.release_windows, private | hidden),
        around.batches,
        around.alarms,
        around.model_dir,
        source=around.source,
        recorders=[around.journal] if around.journal is not None else [],
        notifier=Notifier(drift.alarm_command, url, tell=around.tell),
        tell=around.tell,
        imports=around.imports,
    )


def check(config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
    """What is wrong with `stream_config`: a check for `load_config`."""
    stream, path = config.stream_config, "stream_config.prequential"
    if stream.prometheus_port > 65535:
        yield Problem("stream_config.prometheus_port", str(stream.prometheus_port), "a port up to 65535, or 0 for none")
    for name in ("every_n_batches", "window_rows", "half_life_rows"):
        if not getattr(stream.prequential, name):
            hint = "leave prequential out for no prequential evaluation" if name == "every_n_batches" else ""
            yield Problem(f"{path}.{name}", "0", "at least 1", hint)
    if stream.prequential.HasField("window_event_minutes"):
        yield from _check_event_window(config, f"{path}.window_event_minutes")
    yield from check_drift(config)
    yield from check_publishing(config)


def _check_event_window(config: pipeline_pb2.EasyRecConfig, path: str) -> Iterator[Problem]:
    prequential = config.stream_config.prequential
    minutes = prequential.window_event_minutes
    if not (math.isfinite(minutes) and minutes >= 0.001):
        yield Problem(path, f"{minutes:g}", "minutes above 0", "leave it out for windows of window_rows")
    if prequential.HasField("window_rows"):
        found = f"{minutes:g}, with window_rows {prequential.window_rows}"
        yield Problem(path, found, "one of the two: a window is of rows or of event time")
    if not config.data_config.event_time_field and not config.HasField("kafka_train_input"):
        yield Problem(
            path,
            f"{minutes:g}, and rows without an event time",
            "data_config.event_time_field",
            "name the column of the time, or use window_rows",
        )
