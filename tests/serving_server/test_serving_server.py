"""Many requests at a time: swaps, a full server, deadlines, a stop; and the numbers that tell of it."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from server_models import NAME, Client, expected, inputs, predict_request, publish, refused, wait_for, write_warm_up

from easyrec_lite.errors import UserError
from easyrec_lite.serving.server import ModelServer, ServerOptions

Start = Callable[..., ModelServer]
Connect = Callable[[ModelServer], Client]
PATH = f"/v1/models/{NAME}"


def waiting(client: Client, path: Path, **arguments: Any) -> Future[Any]:
    """A request that runs until a file is there."""
    request = predict_request({"path": np.array(str(path).encode(), object)}, signature="wait", **arguments)
    future: Future[Any] = client.predictions.Predict.future(request, timeout=60)
    return future


def metric(client: Client, name: str) -> float:
    """The value of a metric, its labels included in the name."""
    text = client.rest("/monitoring/prometheus/metrics")[1]
    values = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(values[0]) if values else 0.0


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(3000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen within 30 s")


def test_requests_in_flight_end_on_the_version_they_began_with(
    start: Start, connect: Connect, tmp_path: Path, one: Path, two: Path
) -> None:
    (tmp_path / "models").mkdir()
    publish(one, tmp_path / "models", 1)
    client = connect(start(tmp_path / "models"))
    wait_for(client, {1})
    old = waiting(client, tmp_path / "go")
    until(lambda: metric(client, "easyrec_serving_requests_admitted") == 1)
    publish(two, tmp_path / "models", 2)
    until(lambda: client.states() == {2: "AVAILABLE", 1: "UNLOADING"})
    assert client.predict({"x": np.float32([1])}, signature="one")[1]["y"].tolist() == [2]
    assert not old.done()
    (tmp_path / "go").touch()
    response = old.result()
    assert (response.model_spec.version.value, response.outputs["factor"].float_val[0]) == (1, 1.0)
    until(lambda: client.states() == {2: "AVAILABLE", 1: "END"})


def test_no_request_is_lost_or_mixed_while_versions_change(
    start: Start, connect: Connect, tmp_path: Path, one: Path, two: Path
) -> None:
    publish(two, tmp_path, 2)
    server = start(tmp_path)
    client = connect(server)
    wait_for(client, {2})
    ended = threading.Event()

    def ask(seed: int) -> set[int]:
        seen = set()
        given = inputs(5, seed)
        while not ended.is_set():
            version, outputs = client.predict(given)
            np.testing.assert_allclose(outputs["score"], expected(given, 1.0 if version % 2 else 2.0), rtol=1e-6)
            seen.add(version)
        return seen

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, seed) for seed in range(4)]
        try:
            for version in range(3, 8):
                publish(one if version % 2 else two, tmp_path, version)
                until(lambda version=version: server.versions.serving() == [version])
            (tmp_path / "7").rename(tmp_path / ".7.gone")
            until(lambda: server.versions.serving() == [6])
        finally:
            ended.set()
        seen = set().union(*(future.result() for future in asking))
    assert {2, 6, 7} <= seen
    assert metric(client, "easyrec_serving_swaps_total") == 7


def test_a_version_that_does_not_work_is_no_version(
    start: Start, connect: Connect, tmp_path: Path, one: Path, two: Path
) -> None:
    publish(one, tmp_path, 1)
    said: list[str] = []
    client = connect(start(tmp_path, said.append))
    wait_for(client, {1})
    refuses = publish(two, tmp_path, 2).rename(tmp_path / "changed")
    write_warm_up(refuses, {"serving_default": {"x": [1.0]}})
    refuses.rename(tmp_path / "2")
    (tmp_path / "3").mkdir()
    until(lambda: client.states() == {3: "END", 2: "END", 1: "AVAILABLE"})
    assert client.predict(inputs())[0] == 1
    found = client.rest(PATH)[1]["model_version_status"]
    assert [entry["status"]["error_code"] for entry in found] == ["INVALID_ARGUMENT", "INVALID_ARGUMENT", "OK"]
    assert "Could not find SavedModel" in found[0]["status"]["error_message"]
    assert "record 0: Inputs of signature 'serving_default': found missing" in found[1]["status"]["error_message"]
    assert metric(client, "easyrec_serving_load_failures_total") == 2
    assert sum("can't be loaded" in text for text in said) == 2


def test_a_directory_without_versions(start: Start, connect: Connect, tmp_path: Path, one: Path) -> None:
    said: list[str] = []
    client = connect(start(tmp_path, said.append))
    until(lambda: said == [f"{tmp_path}: no version folder; waiting for one"])
    assert refused(client.predict, inputs())[0] == "UNAVAILABLE"
    assert refused(client.states)[0] == "NOT_FOUND"
    assert client.rest(PATH)[0] == 404
    assert client.rest(f"{PATH}:predict", {"inputs": {}})[0] == 503
    publish(one, tmp_path, 4)
    wait_for(client, {4})
    assert client.predict(inputs())[0] == 4


def test_a_full_server_refuses_at_once_and_still_tells_its_state(
    start: Start, connect: Connect, tmp_path: Path, one: Path
) -> None:
    (tmp_path / "models").mkdir()
    publish(one, tmp_path / "models", 1)
    client = connect(start(tmp_path / "models", running=1, waiting=1))
    wait_for(client, {1})
    first = waiting(client, tmp_path / "go")
    until(lambda: metric(client, "easyrec_serving_requests_admitted") == 1)
    second = waiting(client, tmp_path / "go")
    until(lambda: metric(client, "easyrec_serving_requests_admitted") == 2)
    status = "The server is full: 1 requests run and 1 wait. Try again later."
    assert refused(client.predict, inputs()) == ("RESOURCE_EXHAUSTED", status)
    assert client.rest(f"{PATH}:predict", {"inputs": {}}) == (503, {"error": status})
    assert client.states() == {1: "AVAILABLE"}
    (tmp_path / "go").touch()
    assert [future.result().outputs["factor"].float_val[0] for future in (first, second)] == [1.0, 1.0]
    assert client.predict(inputs())[0] == 1
    refusals = 'easyrec_serving_requests_total{protocol="grpc",signature="",status="RESOURCE_EXHAUSTED"}'
    assert metric(client, refusals) == 1


def test_deadlines(start: Start, connect: Connect, tmp_path: Path, one: Path) -> None:
    (tmp_path / "models").mkdir()
    publish(one, tmp_path / "models", 1)
    client = connect(start(tmp_path / "models", running=1))
    wait_for(client, {1})
    request = predict_request({"path": np.array(str(tmp_path / "never").encode(), object)}, signature="wait")
    for future in [client.predictions.Predict.future(request, timeout=0.3) for _ in range(2)]:
        assert future.exception().code() == grpc.StatusCode.DEADLINE_EXCEEDED
    # The model stops computing for clients that are gone, so the one place is free again.
    assert client.predict(inputs())[0] == 1
    until(lambda: metric(client, "easyrec_serving_requests_admitted") == 0)


def test_a_stop_answers_what_was_taken(start: Start, connect: Connect, tmp_path: Path, one: Path) -> None:
    (tmp_path / "models").mkdir()
    publish(one, tmp_path / "models", 1)
    server = start(tmp_path / "models", drain_seconds=60.0)
    client = connect(server)
    wait_for(client, {1})
    idle = http.client.HTTPConnection(f"127.0.0.1:{server.rest_port}", timeout=60)
    idle.request("GET", PATH)
    assert idle.getresponse().read()
    body = {"signature_name": "wait", "inputs": str(tmp_path / "go")}
    with ThreadPoolExecutor(2) as pool:
        rest = pool.submit(client.rest, f"{PATH}:predict", body)
        call = waiting(client, tmp_path / "go")
        until(lambda: metric(client, "easyrec_serving_requests_admitted") == 2)
        stop = pool.submit(server.stop)
        until(lambda: refused(client.states)[0] == "UNAVAILABLE")
        assert not stop.done()
        (tmp_path / "go").touch()
        assert call.result().outputs["factor"].float_val[0] == 1.0
        assert rest.result() == (200, {"outputs": 1.0})
        stop.result()
    assert server.versions.serving() == []
    idle.close()


def test_a_stop_does_not_wait_for_ever(start: Start, connect: Connect, tmp_path: Path, one: Path) -> None:
    (tmp_path / "models").mkdir()
    publish(one, tmp_path / "models", 1)
    server = start(tmp_path / "models", drain_seconds=0.2)
    client = connect(server)
    wait_for(client, {1})
    call = waiting(client, tmp_path / "never")
    until(lambda: metric(client, "easyrec_serving_requests_admitted") == 1)
    server.stop()
    assert call.exception().code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    assert server.versions.statuses()[0].state == "END"


def test_connections_of_rest_are_bounded(start: Start, connect: Connect, tmp_path: Path, one: Path) -> None:
    publish(one, tmp_path, 1)
    server = start(tmp_path, connections=1)
    client = connect(server)
    wait_for(client, {1})
    held = http.client.HTTPConnection(f"127.0.0.1:{server.rest_port}", timeout=60)
    held.request("GET", PATH)
    assert held.getresponse().read()
    status, found = client.rest(PATH)
    assert (status, found["error"]) == (503, "The server has 1 connections open and takes no more. Try again later.")
    held.close()
    until(lambda: client.rest(PATH)[0] == 200)


def test_metrics(start: Start, connect: Connect, tmp_path: Path, one: Path) -> None:
    publish(one, tmp_path, 7)
    client = connect(start(tmp_path))
    wait_for(client, {7})
    for _ in range(3):
        client.predict(inputs())
    client.rest(f"{PATH}:predict", {"signature_name": "one", "inputs": [1]})
    client.rest(f"{PATH}:predict", {"signature_name": "anything", "inputs": [1]})
    answered = 'easyrec_serving_requests_total{protocol="%s",signature="%s",status="%s"}'
    assert metric(client, answered % ("grpc", "serving_default", "OK")) == 3
    assert metric(client, answered % ("rest", "one", "OK")) == 1
    assert metric(client, answered % ("rest", "", "INVALID_ARGUMENT")) == 1
    count = 'easyrec_serving_request_seconds_count{protocol="grpc",signature="serving_default"}'
    assert metric(client, count) == 3
    assert metric(client, "easyrec_serving_version") == 7
    assert metric(client, 'easyrec_serving_version_state{state="AVAILABLE",status="OK",version="7"}') == 1
    assert metric(client, "easyrec_serving_loads_total") == 1
    assert metric(client, "easyrec_serving_load_seconds") > 0


def test_faults_of_the_server_are_told_in_short(
    start: Start, connect: Connect, tmp_path: Path, one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(one, tmp_path, 1)
    said: list[str] = []
    server = start(tmp_path, said.append)
    client = connect(server)
    wait_for(client, {1})

    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("easyrec_lite.serving.server.service.check_outputs", fail)
    message = "A fault of the server (ZeroDivisionError); its log has more."
    assert refused(client.predict, inputs()) == ("INTERNAL", message)
    assert client.rest(f"{PATH}:predict", {"signature_name": "one", "inputs": [1]}) == (500, {"error": message})
    assert sum("Traceback" in text and "secret" in text for text in said) == 2


def test_what_can_not_be_served(tmp_path: Path, one: Path) -> None:
    options = ServerOptions(grpc_port=0, rest_port=0)
    with pytest.raises(UserError, match="found no directory; expected the parent of version folders"):
        ModelServer(tmp_path / "nowhere", options)
    with pytest.raises(UserError, match="found a model itself; expected the parent of version folders, such as"):
        ModelServer(one, options)
    with ModelServer(tmp_path, options) as server:
        assert server.versions.name == tmp_path.name
        with pytest.raises(UserError, match=f"--grpc_port: found {server.grpc_port}, which can't be had"):
            ModelServer(tmp_path, ServerOptions(grpc_port=server.grpc_port, rest_port=0))
        with pytest.raises(UserError, match=f"--rest_port: found {server.rest_port}, which can't be had"):
            ModelServer(tmp_path, ServerOptions(grpc_port=0, rest_port=server.rest_port))
