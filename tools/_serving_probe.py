"""A client for a server of unknown health: sends bytes as they are, and tells what came back."""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
from types import TracebackType
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.message import Message
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"

_SECONDS = 60.0
_ROWS = 3


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a request got.

    Attributes:
        status: the name of a gRPC status, or "OK" or the number of one of HTTP's; "no answer" where there was none.
        message: of a refusal.
        content: of an answer.
    """

    status: str
    message: str = ""
    content: str = ""


class Probe:
    """Knows a server, and a request that is right for its model.

    Args:
        host: of the server.
        grpc_port: of its gRPC side.
        rest_port: of its REST side.
        model: name of the model.

    Attributes:
        signature: the SignatureDef of serving_default.
    """

    def __init__(self, host: str, grpc_port: int, rest_port: int, model: str) -> None:
        self.host, self.rest_port, self.model = host, rest_port, model
        self.path = f"/v1/models/{model}"
        address = f"{host}:{grpc_port}"
        self._channel = grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)])
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = model
        answer = self._channel.unary_unary(METADATA)(request.SerializeToString(), timeout=_SECONDS, wait_for_ready=True)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response = get_model_metadata_pb2.GetModelMetadataResponse.FromString(answer)
        response.metadata["signature_def"].Unpack(signatures)
        self.signature = signatures.signature_def["serving_default"]
        self._request = self.request(np.random.default_rng(0)).SerializeToString(deterministic=True)

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def generator(self, seed: int, number: int) -> np.random.Generator:
        """The random numbers of one request."""
        return np.random.default_rng([seed, number])

    def arrays(self, rng: np.random.Generator, rows: int = _ROWS) -> dict[str, np.ndarray]:
        """Inputs that are right."""
        result = {}
        for name, info in sorted(self.signature.inputs.items()):
            shape = [dim.size if dim.size >= 0 else rows for dim in info.tensor_shape.dim]
            dtype = tf.as_dtype(info.dtype)
            numbers = rng.integers(0, 10, shape)
            if dtype == tf.string:
                result[name] = np.array([b"%d" % number for number in numbers.reshape(-1)], object).reshape(shape)
            else:
                result[name] = numbers.astype(dtype.as_numpy_dtype)
        return result

    def request(self, rng: np.random.Generator) -> predict_pb2.PredictRequest:
        """A request that is right."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model
        for name, array in self.arrays(rng).items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        return request

    def body(self, rng: np.random.Generator) -> dict[str, Any]:
        """The same for REST, by columns."""
        return {"inputs": {name: to_json(array) for name, array in self.arrays(rng).items()}}

    def answer(self) -> Outcome:
        """What a request that is right gets; the same each time as long as the version is."""
        outcome = self.call(self._request)
        if outcome.status != "OK":
            return outcome
        response = predict_pb2.PredictResponse.FromString(bytes.fromhex(outcome.content))
        values = {name: tf.make_ndarray(proto).tolist() for name, proto in sorted(response.outputs.items())}
        return Outcome("OK", content=repr((response.model_spec.version.value, values)))

    def call(self, request: bytes | Message, method: str = PREDICT, timeout: float = _SECONDS) -> Outcome:
        """Sends a message's bytes by gRPC."""
        content = request if isinstance(request, bytes) else request.SerializeToString()
        try:
            answer = self._channel.unary_unary(method)(content, timeout=timeout)
        except grpc.RpcError as error:
            return Outcome(error.code().name, error.details() or "")
        return Outcome("OK", content=answer.hex())

    def post(self, body: bytes | Any, path: str | None = None, method: str = "POST") -> Outcome:
        """Sends a request by HTTP; what is no bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection(self.host, self.rest_port, timeout=_SECONDS)
        try:
            connection.request(method, f"{self.path}:predict" if path is None else path, content)
            response = connection.getresponse()
            return _http_outcome(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            return Outcome("no answer", repr(error))
        finally:
            connection.close()

    def raw(self, content: bytes) -> Outcome:
        """Sends bytes to the REST side as they are, says that no more come, and reads what is answered."""
        with socket.create_connection((self.host, self.rest_port), _SECONDS) as connection:
            try:
                connection.sendall(content)
                connection.shutdown(socket.SHUT_WR)
                response = http.client.HTTPResponse(connection)
                response.begin()
                return _http_outcome(response.status, response.read())
            except (OSError, http.client.HTTPException) as error:
                return Outcome("no answer", repr(error))


def to_json(array: np.ndarray) -> Any:
    """Nested lists; of bytes, text."""
    if array.dtype != object:
        return array.tolist()
    texts = np.empty(array.size, object)
    texts[:] = [value.decode() for value in array.reshape(-1)]
    return texts.reshape(array.shape).tolist()


def _http_outcome(status: int, body: bytes) -> Outcome:
    if status == 200:
        return Outcome("OK", content=body.decode())
    try:
        return Outcome(str(status), str(json.loads(body)["error"]))
    except (ValueError, KeyError, TypeError):
        return Outcome(str(status))
