"""The server: a model's versions, answered by gRPC and by REST."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import tensorflow as tf

from easyrec_lite.errors import UserError
from easyrec_lite.serving.loaded import LoadedModel
from easyrec_lite.serving.server.grpc_front import GrpcFront
from easyrec_lite.serving.server.inputs import Limits
from easyrec_lite.serving.server.metrics import ServerMetrics
from easyrec_lite.serving.server.model_versions import ModelVersions, Policy
from easyrec_lite.serving.server.rest_front import RestFront
from easyrec_lite.serving.server.service import Admission, PredictService
from easyrec_lite.serving.server.warmup import warm_up


@dataclass(frozen=True)
class ServerOptions:
    """How a model is served.

    Attributes:
        name: of the model in requests; the directory's if empty.
        host: address of the interface to listen at.
        grpc_port: 0 takes a free one.
        rest_port: 0 takes a free one.
        poll_seconds: between two looks for new versions.
        policy: which versions serve.
        labels: versions by label.
        limits: of a request.
        running: requests at a time; 0 for twice the cores.
        waiting: further requests that wait for those; more are refused.
        connections: of REST at a time.
        drain_seconds: that a stop gives the requests it finds.
        intra_op_threads: of TensorFlow, for one operation; 0 for as many as cores.
        inter_op_threads: of TensorFlow, for operations side by side; 0 for as many as cores.
    """

    name: str = ""
    host: str = "127.0.0.1"
    grpc_port: int = 8500
    rest_port: int = 8501
    poll_seconds: float = 1.0
    policy: Policy = field(default_factory=Policy)
    labels: Mapping[str, int] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    running: int = 0
    waiting: int = 64
    connections: int = 256
    drain_seconds: float = 30.0
    intra_op_threads: int = 0
    inter_op_threads: int = 0


class ModelServer:
    """Serves the versions of one model.

        with ModelServer("exports/multi_tower", ServerOptions(grpc_port=0, rest_port=0)) as server:
            print(server.grpc_port, server.rest_port)

    Args:
        model_dir: parent of the version folders; it may have none yet.
        options: how.
        report: is told, in a sentence, what happens.

    Attributes:
        versions: which serve.
        grpc_port: where it listens.
        rest_port: where it listens.

    Raises:
        UserError: no such directory, or a port can't be had.
    """

    def __init__(
        self,
        model_dir: str | Path,
        options: ServerOptions = ServerOptions(),
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        base_path = Path(model_dir)
        _check(base_path)
        self._options = options
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=options.intra_op_threads, inter_op_parallelism_threads=options.inter_op_threads
        )

        def load(path: Path) -> LoadedModel:
            model = LoadedModel(path, config)
            try:
                count = warm_up(model)
            except BaseException:
                model.close()
                raise
            report(f"version {path.name}: {f'warmed up by {count} requests' if count else 'has no warm-up requests'}")
            return model

        self.versions = ModelVersions(
            options.name or base_path.resolve().name or "default",
            base_path,
            load,
            policy=options.policy,
            labels=options.labels,
            poll_seconds=options.poll_seconds,
            report=report,
        )
        running = options.running or 2 * (os.cpu_count() or 1)
        admission = Admission(running, options.waiting)
        metrics = ServerMetrics(self.versions, admission)
        service = PredictService(self.versions, admission, options.limits, metrics, report)
        self._grpc = GrpcFront(service, options.host, options.grpc_port, running + options.waiting)
        try:
            self._rest = RestFront(service, options.host, options.rest_port, options.connections)
        except BaseException:
            self._grpc.stop(0).wait()
            raise
        self.grpc_port, self.rest_port = self._grpc.port, self._rest.port

    def start(self) -> None:
        """Begins to serve; returns at once, before a version is loaded."""
        self.versions.start()
        self._grpc.start()
        self._rest.start()

    def stop(self) -> None:
        """Takes no more requests, answers those it has, frees the model."""
        end = time.monotonic() + self._options.drain_seconds
        answered = self._grpc.stop(self._options.drain_seconds)
        self._rest.stop(self._options.drain_seconds)
        answered.wait()
        self.versions.close(max(0.0, end - time.monotonic()))

    def __enter__(self) -> ModelServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _check(base_path: Path) -> None:
    if not base_path.is_dir():
        raise UserError(
            f"{base_path}: found no directory; expected the parent of version folders, which `python -m"
            " easyrec_lite.export --export_dir` writes. It may be empty."
        )
    if (base_path / "saved_model.pb").exists():
        raise UserError(
            f"{base_path}: found a model itself; expected the parent of version folders, such as {base_path.parent}."
        )
