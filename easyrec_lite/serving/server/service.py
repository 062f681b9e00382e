"""What gRPC and REST have in common: admission, the version, the checks, the run, the numbers."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from easyrec_lite.serving.failures import RequestError, Status, invalid, not_found
from easyrec_lite.serving.loaded import Signature
from easyrec_lite.serving.server.inputs import Limits, check_outputs
from easyrec_lite.serving.server.metrics import ServerMetrics
from easyrec_lite.serving.server.model_versions import ModelVersions, Served


class Admission:
    """How many requests run, and how many may wait for that.

    Args:
        running: requests at a time.
        waiting: further ones that are kept; those beyond are refused at once, so that a server with too much to do
            answers some in time and not all too late.
    """

    def __init__(self, running: int, waiting: int) -> None:
        self.running, self.waiting = running, waiting
        self._free = threading.Semaphore(running)
        self._lock = threading.Lock()
        self._admitted = 0

    @property
    def admitted(self) -> int:
        """Requests that run or wait now."""
        return self._admitted

    @contextlib.contextmanager
    def admit(self, deadline: float | None) -> Iterator[None]:
        """Waits for a place among those that run.

        Args:
            deadline: on the monotonic clock; None waits on.

        Raises:
            RequestError: too many wait already, or the deadline passed.
        """
        with self._lock:
            if self._admitted >= self.running + self.waiting:
                raise RequestError(
                    Status.RESOURCE_EXHAUSTED,
                    f"The server is full: {self.running} requests run and {self.waiting} wait. Try again later.",
                )
            self._admitted += 1
        try:
            if not self._free.acquire(timeout=None if deadline is None else max(0.0, deadline - time.monotonic())):
                raise RequestError(Status.DEADLINE_EXCEEDED, "The deadline passed before the request could run.")
            try:
                yield
            finally:
                self._free.release()
        finally:
            with self._lock:
                self._admitted -= 1


class Call:
    """One request for predictions, from its admission to its answer; made by `PredictService.call`."""

    def __init__(self, service: PredictService, deadline: float | None) -> None:
        self._service, self._deadline = service, deadline
        self._stack = contextlib.ExitStack()
        self._served: Served | None = None
        self._signature: Signature | None = None

    @property
    def version(self) -> int:
        """Of the model that answers; held until the request ends."""
        assert self._served is not None, "open() comes first"
        return self._served.version

    @property
    def signature(self) -> Signature:
        """The one that the request names."""
        assert self._signature is not None, "open() comes first"
        return self._signature

    @property
    def signature_label(self) -> str:
        """For metrics: clients must not be able to make new labels."""
        return self._signature.name if self._signature else ""

    def open(self, model: str, signature: str, version: int | None = None, label: str = "") -> None:
        """Finds the version and the signature.

        Raises:
            RequestError: one of them is not there.
        """
        self._service.check_model(model)
        self._served = self._stack.enter_context(self._service.versions.held(version, label))
        self._signature = self._served.model.signature(signature)

    def run(self, inputs: Mapping[str, np.ndarray], output_filter: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """The outputs by name, all if the filter is empty.

        Raises:
            RequestError: the filter names others, the model refuses the values, or the deadline passed.
        """
        outputs = check_outputs(self.signature, output_filter)
        left = None if self._deadline is None else self._deadline - time.monotonic()
        if left is not None and left <= 0:
            raise RequestError(Status.DEADLINE_EXCEEDED, "The deadline passed before the request could run.")
        assert self._served is not None
        return self._served.model.run(self.signature, inputs, outputs, left)

    def close(self) -> None:
        """Lets go of the version."""
        self._stack.close()


class PredictService:
    """Answers requests for one model.

    Args:
        versions: of the model.
        admission: bounds what runs at a time.
        limits: of a request.
        metrics: counts.
        report: is told of faults.
    """

    def __init__(
        self,
        versions: ModelVersions,
        admission: Admission,
        limits: Limits,
        metrics: ServerMetrics,
        report: Callable[[str], None],
    ) -> None:
        self.versions, self.limits, self.metrics = versions, limits, metrics
        self._admission, self._report = admission, report

    def check_model(self, name: str) -> None:
        """Refuses requests for other models.

        Raises:
            RequestError: the name is missing, or another.
        """
        if not name:
            raise invalid(f"model_spec.name: found none; expected {self.versions.name!r}.")
        if name != self.versions.name:
            raise not_found(f"Model {name[:100]!r}: found no such model; this server has {self.versions.name!r}.")

    @contextlib.contextmanager
    def call(self, protocol: str, timeout: float | None = None) -> Iterator[Call]:
        """A request for predictions, counted and timed.

        Args:
            protocol: "grpc" or "rest".
            timeout: seconds that the client waits; None for ever.

        Raises:
            RequestError: what the body raised, or that the server is full; other exceptions become INTERNAL.
        """
        start = time.monotonic()
        deadline = None if timeout is None else start + timeout
        call, status = Call(self, deadline), Status.OK
        try:
            with self._admission.admit(deadline):
                try:
                    yield call
                finally:
                    call.close()
        except Exception as error:
            refusal = self.refusal(error)
            status = refusal.status
            raise refusal from None
        finally:
            self.metrics.observe(protocol, call.signature_label, status, time.monotonic() - start)

    def refusal(self, error: Exception) -> RequestError:
        """What to answer where `error` was raised; a fault of ours is reported in full, and told in short."""
        if isinstance(error, RequestError):
            return error
        if isinstance(error, MemoryError):
            return RequestError(Status.RESOURCE_EXHAUSTED, "The server has not enough memory for the request.")
        self._report("".join(traceback.format_exception(error)))
        return RequestError(Status.INTERNAL, f"A fault of the server ({type(error).__name__}); its log has more.")
