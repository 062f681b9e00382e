"""`export --server`: a running server is compared with the trainer, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_runs import Run, Workspace, refused

from easyrec_lite.serving import versions
from easyrec_lite.serving.live_parity import LiveModel
from easyrec_lite.serving.server import ModelServer, ServerOptions

Trained = tuple[Workspace, Run]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ModelServer]:
    """Serves what will be exported to `tmp_path/ctr`."""
    directory = tmp_path / "ctr"
    directory.mkdir()
    with ModelServer(directory, ServerOptions(grpc_port=0, rest_port=0, poll_seconds=0.05)) as server:
        yield server


def export(work: Workspace, server: ModelServer, *more: object) -> Run:
    """Exports to the directory that the server watches."""
    directory = server.versions.base_path
    address = f"127.0.0.1:{server.grpc_port}"
    return work.run("export", "--export_dir", directory, "--parity_rows", "50", "--server", address, *more)


def test_its_answers_are_the_trainers(easyrec: Trained, server: ModelServer) -> None:
    run = export(easyrec[0], server)
    assert run.code == 0, run.err
    lines = [line for line in run.out.splitlines() if "serving_default, text" in line and "probs" in line]
    own, live = lines
    assert own.startswith("serving_default, text")
    assert live.startswith("live server: serving_default, text")
    assert own.split("probs")[1].split()[0] == live.split("probs")[1].split()[0] == "50"


def test_other_answers_fail(easyrec: Trained, server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = LiveModel.__call__

    def wrong(self: LiveModel, signature: str, inputs: Any) -> dict[str, np.ndarray]:
        return {name: values + 0.5 for name, values in ask(self, signature, inputs).items()}

    monkeypatch.setattr(LiveModel, "__call__", wrong)
    run = export(easyrec[0], server)
    message = refused(run)
    (version,) = versions(server.versions.base_path)
    address = f"127.0.0.1:{server.grpc_port}"
    assert f"The server {address} does not predict what the trainer predicts on 50 rows: serving_default" in message
    assert "differs by 0.5" in message
    assert f"{version} is written, and the server serves it" in message
    assert "live server: serving_default" in run.out


def test_a_server_that_does_not_serve_it(easyrec: Trained, server: ModelServer) -> None:
    run = export(easyrec[0], server, "--model_name", "other", "--server_timeout", "1")
    message = refused(run)
    (version,) = versions(server.versions.base_path)
    assert f"version {version.name} of model 'other': found NOT_FOUND" in message
    assert "(--model_name)" in message
    assert str(version) in run.out
    assert "Differences from the trainer on 50 rows" in run.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--server", "8500"], "found '8500'; expected HOST:PORT"),
        (["--server", "here:0"], "found 'here:0'; expected HOST:PORT"),
        (["--server", "here:8500", "--parity_rows", "0"], "--server: found --parity_rows 0"),
        (["--server", "here:8500", "--server_timeout", "0"], "expected a whole number of at least 1"),
        (
            ["--server", "here:8500", "--edit", "eval_input_path=", "--edit", "train_input_path="],
            "no rows to compare on",
        ),
    ],
)
def test_flags_that_are_wrong(easyrec: Trained, tmp_path: Path, flags: list[str], message: str) -> None:
    run = easyrec[0].run("export", "--export_dir", tmp_path / "ctr", *flags)
    assert message in refused(run)
    assert not (tmp_path / "ctr").exists()
