"""The numbers of a run for Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from easyrec_lite.errors import UserError
from easyrec_lite.streaming.drift_monitor import DriftMonitor
from easyrec_lite.streaming.monitor import StreamMonitor
from easyrec_lite.streaming.prequential import Prequential
from easyrec_lite.training import Callback

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from easyrec_lite.training import Trainer


class RunCollector(Collector):
    """Makes Prometheus' metrics of a run's numbers, each time they are asked for.

    Args:
        monitor: has the numbers.
        prequential: has the metrics of the last window, if the run is evaluated.
        drift: has the alarms, if the run is watched.
    """

    def __init__(
        self, monitor: StreamMonitor, prequential: Prequential | None = None, drift: DriftMonitor | None = None
    ) -> None:
        self._monitor, self._prequential, self._drift = monitor, prequential, drift

    def describe(self) -> list[Metric]:
        """Nothing: registering asks for no numbers."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics; those that are not known yet are left out."""
        now = self._monitor.snapshot()
        yield _counter("easyrec_rows", "Rows trained by this process.", now.rows)
        yield _gauge("easyrec_rows_per_second", "Rows trained a second, over the last ten.", now.rows_per_second)
        lag = [((str(partition),), behind) for partition, behind in sorted(now.lag.items())]
        yield _labelled("easyrec_lag_messages", "Messages of a partition not read yet.", ["partition"], lag)
        yield _counter("easyrec_bad_rows", "Rows read by this process that can't be used.", now.bad_rows)
        lost = "Messages that were gone before this process could read them."
        yield _counter("easyrec_lost_messages", lost, now.lost_messages)
        since = "Seconds since the newest checkpoint was written; since the start if there is none."
        yield _gauge("easyrec_seconds_since_checkpoint", since, now.seconds_since_checkpoint)
        if now.event_time is not None:
            yield _gauge("easyrec_event_time_seconds", "Newest event time trained, seconds since 1970.", now.event_time)
        losses = [((name,), value) for name, value in now.losses.items()]
        yield _labelled("easyrec_loss", "Training losses, means over the last steps.", ["name"], losses)
        if self._prequential is not None:
            kinds = {"window": self._prequential.window, "running": self._prequential.running}
            values = [((name, kind), value) for kind, found in kinds.items() for name, value in found.items()]
            text = "Metrics of rows scored before they were trained on: of the last window, and running ones."
            yield _labelled("easyrec_prequential", text, ["metric", "kind"], values)
        if self._drift is not None:
            alarms = CounterMetricFamily(
                "easyrec_drift_alarms", "Alarms given by this process.", labels=["check", "action"]
            )
            for key, count in self._drift.alarms.items():
                alarms.add_metric(key, count)
            yield alarms
            text = "1 while an alarm holds and nothing is published, else 0."
            yield _gauge("easyrec_drift_holding", text, self._drift.holding)
            text = "Checks that the last window breached, each feature, label and partition by itself."
            yield _gauge("easyrec_drift_breaches", text, self._drift.breached)


class PrometheusExporter(Callback):
    """Serves the numbers of a run at `http://host:port/metrics`, from its start to its end.

    Args:
        monitor: has the numbers.
        prequential: has the metrics of the last window, if the run is evaluated.
        port: 0 takes a free one.
        address: of the interface; all by default.
        drift: has the alarms, if the run is watched.

    Attributes:
        port: where it serves.
    """

    def __init__(
        self,
        monitor: StreamMonitor,
        prequential: Prequential | None = None,
        port: int = 0,
        address: str = "0.0.0.0",
        drift: DriftMonitor | None = None,
    ) -> None:
        self.port = port
        self._address = address
        self._registry = CollectorRegistry()
        self._registry.register(RunCollector(monitor, prequential, drift))
        self._serving: tuple[WSGIServer, threading.Thread] | None = None

    def on_start(self, trainer: Trainer) -> None:
        """Begins to serve.

        Raises:
            UserError: the port can't be had.
        """
        try:
            self._serving = start_http_server(self.port, self._address, self._registry)
        except OSError as error:
            raise UserError(
                f"stream_config.prometheus_port: found {self.port}, which can't be served at ({error.strerror}),"
                " expected a free port. Stop what uses it, name another, or 0 to serve nothing."
            ) from error
        self.port = self._serving[0].server_port

    def close(self) -> None:
        """Stops serving and ends the thread."""
        if self._serving is not None:
            server, thread = self._serving
            self._serving = None
            server.shutdown()
            server.server_close()
            thread.join()


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _labelled(name: str, text: str, labels: list[str], values: Iterable[tuple[Sequence[str], float]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family
