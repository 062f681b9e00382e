"""Servers to test: ours, and TensorFlow Serving's where there is one.

`EASYREC_LITE_TF_SERVING` names its binary, or `HOST:GRPC_PORT:REST_PORT` of one that runs and sees our files; else
`tensorflow_model_server` is taken if it is on PATH. Without any, its half of the tests does not exist.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server_models import NAME, Client, inputs, publish, wait_for, write

from easyrec_lite.serving.server import ModelServer, ServerOptions

TF_SERVING = os.environ.get("EASYREC_LITE_TF_SERVING") or shutil.which("tensorflow_model_server")
KINDS = ["easyrec_lite", *(["tensorflow_serving"] if TF_SERVING else [])]

Start = Callable[..., ModelServer]


@pytest.fixture(scope="session")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the factor 1, and warm-up requests."""
    return write(tmp_path_factory.mktemp("one") / "1", 1.0, {"serving_default": inputs(), "one": {"x": [1.0]}})


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the factor 2."""
    return write(tmp_path_factory.mktemp("two") / "1", 2.0)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers that end with the test."""
    servers: list[ModelServer] = []

    def begin(model_dir: Path, report: Any = lambda text: None, **options: Any) -> ModelServer:
        named = {"name": NAME, "grpc_port": 0, "rest_port": 0, "poll_seconds": 0.02, "drain_seconds": 5.0} | options
        servers.append(ModelServer(model_dir, ServerOptions(**named), report))
        servers[-1].start()
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


@pytest.fixture
def connect() -> Iterator[Callable[[ModelServer], Client]]:
    """Clients that are closed with the test."""
    clients: list[Client] = []

    def begin(server: ModelServer) -> Client:
        clients.append(Client(f"127.0.0.1:{server.grpc_port}", f"127.0.0.1:{server.rest_port}"))
        return clients[-1]

    yield begin
    for client in clients:
        client.close()


@pytest.fixture(scope="module", params=KINDS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, one: Path
) -> Iterator[tuple[str, Client, Path]]:
    """A server of version 1 of the tiny model: its kind, a client and the directory that it watches."""
    model_dir = tmp_path_factory.mktemp("served")
    publish(one, model_dir, 1)
    if request.param == "easyrec_lite":
        server = ModelServer(model_dir, ServerOptions(name=NAME, grpc_port=0, rest_port=0, poll_seconds=0.05))
        with server:
            client = Client(f"127.0.0.1:{server.grpc_port}", f"127.0.0.1:{server.rest_port}")
            wait_for(client, {1})
            yield request.param, client, model_dir
            client.close()
        return
    yield from _tensorflow_serving(request.param, model_dir)


def _tensorflow_serving(kind: str, model_dir: Path) -> Iterator[tuple[str, Client, Path]]:
    assert TF_SERVING is not None
    if TF_SERVING.count(":") == 2:
        host, grpc_port, rest_port = TF_SERVING.split(":")
        client = Client(f"{host}:{grpc_port}", f"{host}:{rest_port}")
        client.reload(model_dir)
        wait_for(client, {1})
        yield kind, client, model_dir
        client.close()
        return
    grpc_port, rest_port = _free_port(), _free_port()
    process = subprocess.Popen(
        [
            TF_SERVING, f"--port={grpc_port}", f"--rest_api_port={rest_port}", f"--model_name={NAME}",
            f"--model_base_path={model_dir}", "--file_system_poll_wait_seconds=1",
        ]
    )  # fmt: skip
    try:
        client = Client(f"127.0.0.1:{grpc_port}", f"127.0.0.1:{rest_port}")
        wait_for(client, {1})
        yield kind, client, model_dir
        client.close()
    finally:
        process.terminate()
        process.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
