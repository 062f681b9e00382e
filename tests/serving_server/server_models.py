"""Tiny SavedModels for the server's tests, and a client for it."""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

NAME = "tiny"
Inputs = Mapping[str, Any]


class Tiny(tf.Module):
    """`score = factor * (user + price) + sum(vector)`, and texts with their lengths."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = tf.Variable(factor)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, "user"),
            tf.TensorSpec([None], tf.float32, "price"),
            tf.TensorSpec([None, 2], tf.float32, "vector"),
            tf.TensorSpec([None], tf.string, "text"),
        ],
        autograph=False,
    )
    def predict(self, user: tf.Tensor, price: tf.Tensor, vector: tf.Tensor, text: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.shape(price)[0]
        same = tf.debugging.Assert(
            tf.reduce_all(tf.shape(text)[0] == rows), ["Rows differ; expected as many texts as prices:", rows]
        )
        with tf.control_dependencies([same]):
            score = self.factor * (tf.cast(user, tf.float32) + price) + tf.reduce_sum(vector, 1)
        return {"score": score, "text": tf.strings.join([text, "!"]), "length": tf.strings.length(text)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")], autograph=False)
    def one(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": self.factor * x}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, "path")], autograph=False)
    def wait(self, path: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes until a file is there."""
        absent = lambda count: tf.size(tf.io.matching_files(path)) == 0  # noqa: E731
        count = tf.while_loop(absent, lambda count: (count + 1,), [tf.constant(0, tf.int64)])[0]
        with tf.control_dependencies([count]):
            return {"factor": tf.identity(self.factor)}


def write(path: Path, factor: float, warm_up: Mapping[str, Inputs] | None = None) -> Path:
    """Writes a model as a version folder; `warm_up` has inputs by signature."""
    module = Tiny(factor)
    signatures = {"serving_default": module.predict, "one": module.one, "wait": module.wait}
    tf.saved_model.save(module, str(path), signatures=signatures)
    if warm_up is not None:
        write_warm_up(path, warm_up)
    return path


def write_warm_up(path: Path, requests: Mapping[str, Inputs]) -> None:
    """Adds warm-up requests to a version folder."""
    (path / "assets.extra").mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        for signature, inputs in requests.items():
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(predict_request(inputs, signature=signature))
            writer.write(log.SerializeToString())


def publish(source: Path, model_dir: Path, version: int) -> Path:
    """Copies a version folder to `<model_dir>/<version>`, where it appears complete."""
    temporary, target = model_dir / f".{version}.tmp", model_dir / str(version)
    shutil.copytree(source, temporary)
    return temporary.rename(target)


def inputs(rows: int = 3, seed: int = 0) -> dict[str, Any]:
    """Inputs of the tiny model."""
    rng = np.random.default_rng(seed)
    return {
        "user": rng.integers(0, 100, rows),
        "price": rng.uniform(0, 10, rows).astype(np.float32),
        "vector": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "text": np.array([b"t" * int(length) for length in rng.integers(0, 60, rows)], object),
    }


def expected(given: Inputs, factor: float) -> np.ndarray:
    """The scores, computed by NumPy."""
    return factor * (given["user"].astype(np.float32) + given["price"]) + given["vector"].sum(1)


def predict_request(
    given: Inputs, signature: str = "", version: int | None = None, label: str = "", outputs: tuple[str, ...] = ()
) -> predict_pb2.PredictRequest:
    """A request as clients send it."""
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name, request.model_spec.signature_name = NAME, signature
    if version is not None:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    for name, values in given.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return request


class Client:
    """Speaks to a server by the stubs of tensorflow-serving-api, and by HTTP."""

    def __init__(self, grpc_address: str, rest_address: str) -> None:
        self._rest = rest_address
        self.channel = grpc.insecure_channel(grpc_address)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def close(self) -> None:
        self.channel.close()

    def predict(self, given: Inputs, **arguments: Any) -> tuple[int, dict[str, np.ndarray]]:
        """The version that answered, and the outputs."""
        response = self.predictions.Predict(predict_request(given, **arguments), timeout=60)
        return response.model_spec.version.value, {n: tf.make_ndarray(p) for n, p in response.outputs.items()}

    def states(self) -> dict[int, str]:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = NAME
        response = self.models.GetModelStatus(request, timeout=60)
        state = get_model_status_pb2.ModelVersionStatus.State
        return {entry.version: state.Name(entry.state) for entry in response.model_version_status}

    def metadata(self) -> Mapping[str, Any]:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = NAME
        response = self.predictions.GetModelMetadata(request, timeout=60)
        found = get_model_metadata_pb2.SignatureDefMap()
        assert response.metadata["signature_def"].Unpack(found)
        return found.signature_def

    def reload(self, base_path: Path | str, name: str = NAME, **arguments: Any) -> None:
        request = model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.config.add(
            name=name, base_path=str(base_path), model_platform="tensorflow", **arguments
        )
        response = self.models.HandleReloadConfigRequest(request, timeout=60)
        assert response.status.error_code == 0, response.status.error_message

    def rest(self, path: str, body: Any = None, method: str = "") -> tuple[int, Any]:
        """Status and JSON of an answer."""
        connection = http.client.HTTPConnection(self._rest, timeout=60)
        try:
            content = body if isinstance(body, bytes) or body is None else json.dumps(body)
            connection.request(method or ("GET" if body is None else "POST"), path, content)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        is_json = response.headers["Content-Type"].startswith("application/json")
        return response.status, json.loads(text) if is_json else text.decode()


def refused(call: Any, *arguments: Any, **named: Any) -> tuple[str, str]:
    """Status and message of a refusal by gRPC."""
    try:
        call(*arguments, **named)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    raise AssertionError("expected a refusal")


def wait_for(client: Client, versions: set[int], seconds: float = 60.0) -> None:
    """Waits until exactly these versions are available."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = {version for version, state in client.states().items() if state == "AVAILABLE"}
        except grpc.RpcError:
            found = set()
        if found == versions:
            return
        assert time.monotonic() < deadline, f"found {found}; expected {versions}"
        time.sleep(0.02)
