"""The numbers of a server for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from easyrec_lite.serving.failures import RequestError, Status

if TYPE_CHECKING:
    from easyrec_lite.serving.server.model_versions import ModelVersions
    from easyrec_lite.serving.server.service import Admission

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class ServerMetrics:
    """Counts requests, and asks the versions for the rest when somebody looks.

    Args:
        versions: of the model.
        admission: knows how many requests run or wait.
    """

    def __init__(self, versions: ModelVersions, admission: Admission) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "easyrec_serving_requests",
            "Requests for predictions, answered or refused.",
            ["protocol", "signature", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "easyrec_serving_request_seconds",
            "From the arrival of a request to its answer, waiting included.",
            ["protocol", "signature"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._registry.register(_Versions(versions, admission))

    def observe(self, protocol: str, signature: str, status: Status, seconds: float) -> None:
        """Counts one request; the signature is empty where it was refused before it was known."""
        self._requests.labels(protocol, signature, status.name).inc()
        self._seconds.labels(protocol, signature).observe(seconds)

    def text(self) -> bytes:
        """All numbers, as Prometheus reads them."""
        return generate_latest(self._registry)


class _Versions(Collector):
    def __init__(self, versions: ModelVersions, admission: Admission) -> None:
        self._versions, self._admission = versions, admission

    def describe(self) -> list[Metric]:
        """Nothing: registering asks for no numbers."""
        return []

    def collect(self) -> Iterator[Metric]:
        """States of the versions, and what happened to them."""
        counts, serving = self._versions.counts(), self._versions.serving()
        running = self._admission.admitted
        yield GaugeMetricFamily("easyrec_serving_requests_admitted", "Requests that run or wait now.", value=running)
        states = GaugeMetricFamily(
            "easyrec_serving_version_state",
            "1 for the state that a version is in.",
            labels=["version", "state", "status"],
        )
        try:
            statuses = self._versions.statuses()
        except RequestError:  # there was none yet
            statuses = []
        for found in statuses:
            states.add_metric([str(found.version), found.state, found.status.name], 1)
        yield states
        if serving:
            text = "The version that answers by default."
            yield GaugeMetricFamily("easyrec_serving_version", text, value=serving[-1])
        for name, text, value in (
            ("loads", "Versions that were loaded.", counts.loads),
            ("load_failures", "Attempts to load a version that failed.", counts.load_failures),
            ("swaps", "Times that another version became the one that answers by default.", counts.swaps),
            ("poll_failures", "Times that the directory of the versions could not be read.", counts.poll_failures),
        ):
            yield CounterMetricFamily(f"easyrec_serving_{name}", text, value=value)
        text = "How long the last version took to load, warm-up included."
        yield GaugeMetricFamily("easyrec_serving_load_seconds", text, value=counts.load_seconds)
