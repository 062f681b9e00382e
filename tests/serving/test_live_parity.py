"""A running server is compared with the trainer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from exports import SIDES, Exported, columns_of, make, request_rows

from easyrec_lite.checkpoints import save
from easyrec_lite.models import model_tensors
from easyrec_lite.serving.live_parity import LiveModel, LiveServerError, compare_live
from easyrec_lite.serving.parity import ParityError
from easyrec_lite.serving.server import Limits, ModelServer, ServerOptions

NAME = "ranking"
Start = Callable[..., str]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers of directories, and gives their addresses; they end with the test."""
    servers: list[ModelServer] = []

    def begin(directory: Path, **options: Any) -> str:
        free = ServerOptions(name=NAME, grpc_port=0, rest_port=0, poll_seconds=0.02, drain_seconds=5.0)
        servers.append(ModelServer(directory, dataclasses.replace(free, **options)))
        servers[-1].start()
        return f"127.0.0.1:{servers[-1].grpc_port}"

    yield begin
    for server in servers:
        server.stop()


@pytest.mark.parametrize(
    ("model", "edits"),
    [
        ("multi_tower", (*SIDES, "export_config.user_cache={slots: 64}")),
        ("multi_tower", ("export_config.multi_placeholder=false",)),
        ("dssm", ("export_config.table_type=INT8",)),
    ],
)
def test_every_signature_is_asked_and_agrees(model: str, edits: tuple[str, ...], tmp_path: Path, start: Start) -> None:
    export = make(tmp_path, model, *edits, parity_rows=40)
    rows = columns_of(export.recommender, request_rows())
    with LiveModel(start(export.path.parent), NAME, int(export.path.name)) as live:
        live.wait(60)
        report = compare_live(live, export.recommender.config, export.checkpoint, export.path, rows)
    assert report.passed, report
    report.raise_if_failed()
    local = json.loads((export.path / "assets" / "parity.json").read_text())
    assert report.loader == f"the server {live.address}"
    assert (report.rows, report.requests) == (local["rows"], local["requests"])
    asked = {(d.way, d.output): d.values for d in report.differences}
    there = {(d["way"], d["output"]): d["values"] for d in local["differences"]}
    # The server's cache was filled by the warm-up and by the requests before: which are cold differs.
    assert {key: n for key, n in asked.items() if "cached" not in key[0]} == {
        key: n for key, n in there.items() if "cached" not in key[0]
    }
    assert any("warm" in way for way, _ in asked) == any("warm" in way for way, _ in there)


def test_a_server_of_other_weights_fails(tmp_path: Path, start: Start) -> None:
    export = make(tmp_path, "multi_tower", parity_rows=40)
    for variable in export.recommender.dense_variables:
        variable.assign(variable + 0.1)
    checkpoint = export.checkpoint
    other = save(
        tmp_path / "other", 8, model_tensors(export.recommender), state=checkpoint.state, config=checkpoint.config
    )
    rows = columns_of(export.recommender, request_rows())
    with LiveModel(start(export.path.parent), NAME, int(export.path.name)) as live:
        live.wait(60)
        report = compare_live(live, export.recommender.config, other, export.path, rows)
    assert not report.passed
    with pytest.raises(ParityError, match=r"^The server x does not predict .* on 40 rows: .*\. It is served\.$"):
        report.raise_if_failed("The server x", "It is served.")


@pytest.fixture(scope="module")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return make(tmp_path_factory.mktemp("once"), "multi_tower")


def test_versions_that_do_not_come(exported_once: Exported, tmp_path: Path, start: Start) -> None:
    version = int(exported_once.path.name)
    address = start(exported_once.path.parent)
    with LiveModel(address, NAME, version) as live:
        live.wait(60)  # so that the server has looked
    with LiveModel(address, "another", version) as live, pytest.raises(LiveServerError) as refused:
        live.wait(0.1)
    assert f"Server {address}, version {version} of model 'another': found NOT_FOUND (Model 'another'" in str(
        refused.value
    )
    assert "expected the state AVAILABLE within 0.1 s" in str(refused.value)
    with (
        LiveModel(address, NAME, 7) as live,
        pytest.raises(LiveServerError, match="version 7 of model 'ranking': found"),
    ):
        live.wait(0.1)
    with LiveModel("127.0.0.1:1", NAME, version) as live, pytest.raises(LiveServerError, match="found UNAVAILABLE"):
        live.wait(0.1)
    # One that can't be loaded will never come: nobody waits for it.
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / "saved_model.pb").write_bytes(b"none")
    with (
        LiveModel(start(tmp_path), NAME, 5) as live,
        pytest.raises(LiveServerError, match=r"found END \(.*log may say"),
    ):
        live.wait(600)


def test_a_refused_request(exported_once: Exported, start: Start) -> None:
    recommender = exported_once.recommender
    address = start(exported_once.path.parent, limits=Limits(rows=39))
    rows = columns_of(recommender, request_rows())
    with LiveModel(address, NAME, int(exported_once.path.name)) as live:
        live.wait(60)
        with pytest.raises(LiveServerError, match=r"signature 'serving_default': found INVALID_ARGUMENT \(.*40 rows"):
            compare_live(live, recommender.config, exported_once.checkpoint, exported_once.path, rows)
