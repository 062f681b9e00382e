"""What clients may rely on, checked on our server and, where there is one, on TensorFlow Serving."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server_models import NAME, Client, expected, inputs, predict_request, publish, refused, wait_for

Served = tuple[str, Client, Path]
PATH = f"/v1/models/{NAME}"


def columns(given: dict[str, Any]) -> dict[str, Any]:
    """Inputs as JSON."""
    return {
        name: [text.decode() for text in values] if name == "text" else values.tolist()
        for name, values in given.items()
    }


def test_predict(served: Served) -> None:
    _, client, _ = served
    given = inputs(7)
    version, outputs = client.predict(given)
    assert version == 1
    np.testing.assert_allclose(outputs["score"], expected(given, 1.0), rtol=1e-6)
    assert outputs["text"].tolist() == [text + b"!" for text in given["text"]]
    assert outputs["length"].tolist() == [len(text) for text in given["text"]]
    assert (outputs["score"].dtype, outputs["length"].dtype) == (np.float32, np.int32)


def test_answers_have_the_fields_that_clients_read(served: Served) -> None:
    _, client, _ = served
    response = client.predictions.Predict(predict_request(inputs(2)))
    assert len(response.outputs["score"].float_val) == 2
    assert len(response.outputs["length"].int_val) == 2
    assert [dim.size for dim in response.outputs["score"].tensor_shape.dim] == [2]
    assert response.model_spec.name == NAME
    assert response.model_spec.signature_name == "serving_default"


def test_values_in_fields_of_their_type(served: Served) -> None:
    _, client, _ = served
    request = predict_request(inputs(3), signature="serving_default")
    proto = request.inputs["price"]
    proto.ClearField("tensor_content")
    proto.float_val.extend([1.5, 2.5])  # the last one stands for those left out
    values = client.predictions.Predict(request).outputs["score"].float_val
    given = inputs(3) | {"price": np.array([1.5, 2.5, 2.5], np.float32)}
    np.testing.assert_allclose(values, expected(given, 1.0), rtol=1e-6)


def test_a_filter_of_outputs(served: Served) -> None:
    _, client, _ = served
    assert set(client.predict(inputs(), outputs=("score", "text"))[1]) == {"score", "text"}
    assert set(client.predict(inputs(), outputs=("length",))[1]) == {"length"}
    assert refused(client.predict, inputs(), outputs=("scores",))[0] in ("INVALID_ARGUMENT", "FAILED_PRECONDITION")


def test_another_signature_and_no_rows(served: Served) -> None:
    _, client, _ = served
    assert client.predict({"x": np.float32([1, 2])}, signature="one")[1]["y"].tolist() == [1, 2]
    assert client.predict({"x": np.zeros(0, np.float32)}, signature="one")[1]["y"].shape == (0,)


def test_a_version_by_its_number(served: Served) -> None:
    _, client, _ = served
    assert client.predict(inputs(), version=1)[0] == 1
    assert refused(client.predict, inputs(), version=7)[0] == "NOT_FOUND"


@pytest.mark.parametrize(
    "change",
    [
        {"user": np.array([1.0, 2.0, 3.0])},
        {"price": np.array([[1.0], [2.0], [3.0]], np.float32)},
        {"vector": np.zeros((3, 5), np.float32)},
        {"user": None},
        {"more": np.zeros(3, np.float32)},
        {"text": np.array([b"one"], object)},
    ],
    ids=["type", "rank", "size", "missing", "unknown", "rows"],
)
def test_inputs_that_do_not_fit(served: Served, change: dict[str, Any]) -> None:
    _, client, _ = served
    given = {name: values for name, values in (inputs() | change).items() if values is not None}
    status, message = refused(client.predict, given)
    assert status == "INVALID_ARGUMENT"
    assert message


def test_metadata(served: Served) -> None:
    _, client, _ = served
    assert {"serving_default", "one", "wait"} <= set(client.metadata())
    assert set(client.metadata()["serving_default"].inputs) == {"user", "price", "vector", "text"}
    status, found = client.rest(f"{PATH}/metadata")
    assert status == 200
    assert found["model_spec"]["name"] == NAME
    assert found["model_spec"]["version"] == "1"
    inputs_of = found["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    assert inputs_of["user"]["dtype"] == "DT_INT64"


def test_status(served: Served) -> None:
    _, client, _ = served
    assert client.states() == {1: "AVAILABLE"}
    status, found = client.rest(PATH)
    assert status == 200
    assert found["model_version_status"] == [
        {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
    assert client.rest(f"{PATH}/versions/1") == (200, found)
    assert client.rest(f"{PATH}/versions/7")[0] == 404
    assert client.rest("/v1/models/other")[0] == 404


def test_rest_by_columns(served: Served) -> None:
    _, client, _ = served
    given = inputs(3)
    status, found = client.rest(f"{PATH}:predict", {"inputs": columns(given), "signature_name": "serving_default"})
    assert status == 200
    np.testing.assert_allclose(found["outputs"]["score"], expected(given, 1.0), rtol=1e-5)
    assert found["outputs"]["text"] == [text.decode() + "!" for text in given["text"]]
    assert client.rest(f"{PATH}/versions/1:predict", {"inputs": columns(given)}) == (200, found)


def test_rest_by_rows(served: Served) -> None:
    _, client, _ = served
    given = inputs(3)
    lists = columns(given)
    rows = [{name: values[place] for name, values in lists.items()} for place in range(3)]
    status, found = client.rest(f"{PATH}:predict", {"instances": rows})
    assert status == 200
    assert [row["length"] for row in found["predictions"]] == [len(text) for text in given["text"]]
    np.testing.assert_allclose([row["score"] for row in found["predictions"]], expected(given, 1.0), rtol=1e-5)


def test_rest_of_one_input_and_one_output(served: Served) -> None:
    _, client, _ = served
    body = {"signature_name": "one", "instances": [1.5, 2]}
    assert client.rest(f"{PATH}:predict", body) == (200, {"predictions": [1.5, 2.0]})
    assert client.rest(f"{PATH}:predict", {"signature_name": "one", "inputs": [3]}) == (200, {"outputs": [3.0]})
    named = {"signature_name": "one", "instances": [{"x": 4.5}]}
    assert client.rest(f"{PATH}:predict", named) == (200, {"predictions": [4.5]})


def test_rest_with_bytes(served: Served) -> None:
    _, client, _ = served
    lists = columns(inputs(1)) | {"text": [{"b64": base64.b64encode(b"\x00abc").decode()}]}
    assert client.rest(f"{PATH}:predict", {"inputs": lists})[1]["outputs"]["length"] == [4]


def test_rest_with_infinity(served: Served) -> None:
    _, client, _ = served
    body = b'{"signature_name": "one", "inputs": [Infinity, -Infinity, 1e-3]}'
    found = client.rest(f"{PATH}:predict", body)[1]["outputs"]
    assert found[:2] == [float("inf"), float("-inf")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"inputs": ',
        b"[]",
        b"{}",
        b'{"instances": 3}',
        b'{"instances": [{"user": 1}]}',
        b'{"inputs": {"user": "a"}}',
        json.dumps({"inputs": columns(inputs()) | {"user": [1.5, 2, 3]}}).encode(),
        json.dumps({"inputs": columns(inputs()) | {"vector": [[1, 2], [3], [4, 5]]}}).encode(),
        json.dumps({"inputs": columns(inputs()), "instances": [1]}).encode(),
    ],
)
def test_rest_bodies_that_do_not_fit(served: Served, body: bytes) -> None:
    _, client, _ = served
    status, found = client.rest(f"{PATH}:predict", body)
    assert status == 400
    assert found["error"]


def test_versions_come_and_go(served: Served, two: Path) -> None:
    _, client, model_dir = served
    given = inputs()
    path = publish(two, model_dir, 2)
    wait_for(client, {2})
    version, outputs = client.predict(given)
    assert version == 2
    np.testing.assert_allclose(outputs["score"], expected(given, 2.0), rtol=1e-6)
    assert refused(client.predict, given, version=1)[0] == "NOT_FOUND"
    gone = path.rename(model_dir / ".2.gone")
    wait_for(client, {1})
    version, outputs = client.predict(given)
    assert version == 1
    np.testing.assert_allclose(outputs["score"], expected(given, 1.0), rtol=1e-6)
    shutil.rmtree(gone)


def test_another_configuration(served: Served, two: Path) -> None:
    _, client, model_dir = served
    path = publish(two, model_dir, 3)
    wait_for(client, {3})
    client.reload(model_dir, model_version_policy={"all": {}})
    wait_for(client, {1, 3})
    assert [client.predict(inputs(), version=version)[0] for version in (1, 3)] == [1, 3]
    client.reload(model_dir, model_version_policy={"all": {}}, version_labels={"stable": 1, "canary": 3})
    assert client.predict(inputs(), label="stable")[0] == 1
    assert client.predict(inputs(), label="canary")[0] == 3
    assert client.rest(f"{PATH}/labels/stable:predict", {"signature_name": "one", "inputs": [1]})[1] == {
        "outputs": [1.0]
    }
    assert client.rest(f"{PATH}/labels/canary:predict", {"signature_name": "one", "inputs": [1]})[1] == {
        "outputs": [2.0]
    }
    client.reload(model_dir, model_version_policy={"specific": {"versions": [1]}}, version_labels={"stable": 1})
    wait_for(client, {1})
    path.rename(model_dir / ".3.gone")
    client.reload(model_dir)
    assert client.predict(inputs())[0] == 1
