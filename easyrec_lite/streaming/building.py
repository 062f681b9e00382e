"""The callbacks that `stream_config` asks for, and what can be wrong with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from easyrec_lite.config import Problem
from easyrec_lite.models import Recommender
from easyrec_lite.protos import pipeline_pb2
from easyrec_lite.streaming.monitor import StreamMonitor, StreamSource
from easyrec_lite.streaming.prequential import Prequential, Recorder
from easyrec_lite.streaming.prometheus import PrometheusExporter
from easyrec_lite.training import Callback


@dataclass(frozen=True)
class StreamCallbacks:
    """What watches a run.

    Attributes:
        monitor: the run's numbers.
        prequential: if the config asks for it.
        exporter: if the config asks for it.
    """

    monitor: StreamMonitor
    prequential: Prequential | None = None
    exporter: PrometheusExporter | None = None

    def __iter__(self) -> Iterator[Callback]:
        """All of them, in the order in which they are to be told."""
        yield from (callback for callback in (self.prequential, self.monitor, self.exporter) if callback is not None)


def stream_callbacks(
    config: pipeline_pb2.EasyRecConfig,
    recommender: Recommender,
    source: StreamSource | None = None,
    recorders: Sequence[Recorder] = (),
) -> StreamCallbacks:
    """The callbacks that a config asks for; they go before the recorders in the trainer's list.

    Args:
        config: checked.
        recommender: built with `training=True`.
        source: the stream that is trained on; None for files.
        recorders: keep the metrics of prequential evaluation: metrics.jsonl, TensorBoard, the terminal.
    """
    stream = config.stream_config
    monitor = StreamMonitor(source)
    prequential = None
    if stream.HasField("prequential"):
        prequential = Prequential(stream.prequential, recommender, recorders)
    exporter = None
    if stream.prometheus_port:
        exporter = PrometheusExporter(monitor, prequential, stream.prometheus_port)
    return StreamCallbacks(monitor, prequential, exporter)


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
