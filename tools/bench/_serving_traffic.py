"""The clients of the load test, in a process of their own: requests at a fixed rate, each answer checked."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from tools.bench._common import BenchError

WARM_UP = Path("assets.extra") / "tf_serving_warmup_requests"
TOLERANCE = 1e-5
_TOLD_APART = 1e-4  # the least that two exports' outputs for a request must differ by
_SECONDS = 20.0  # that a client waits

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Traffic:
    """What to send.

    Attributes:
        exports: two version folders; those with even numbers serve the first, with odd ones the second.
        model: its name.
        grpc_port: of the server.
        rest_port: of the server.
        start: when to begin, seconds since 1970.
        seconds: how long.
        rate: requests a second.
        connections: clients side by side.
        rest: how many of them speak REST.
        requests: different ones, each a user with items of his own.
        items: from and to, of a request.
    """

    exports: tuple[Path, Path]
    model: str
    grpc_port: int
    rest_port: int
    start: float
    seconds: float
    rate: float
    connections: int
    rest: int
    requests: int
    items: tuple[int, int]


@dataclass(frozen=True)
class Answer:
    """What came of a request.

    Attributes:
        at: when it was due, seconds since 1970.
        seconds: from then to its answer: a client that is late has users who wait.
        protocol: "grpc" or "rest".
        version: that the answer names; 0 for REST, which names none.
        problem: what is wrong; empty for a right answer.
    """

    at: float
    seconds: float
    protocol: str
    version: int
    problem: str = ""


@dataclass(frozen=True)
class _Case:
    """A request in both forms, and what the exports say to it."""

    message: bytes
    body: bytes
    expected: tuple[Arrays, Arrays]


def send(traffic: Traffic, ready: Any) -> list[Answer]:
    """Sends the traffic; sets the event `ready` when all is prepared, then waits for the start.

    Raises:
        BenchError: the exports bring no rows along, or can't be told apart by their answers.
    """
    cases = _cases(traffic)
    ready.set()
    with ThreadPoolExecutor(traffic.connections) as pool:
        parts = pool.map(lambda place: _client(traffic, cases, place), range(traffic.connections))
        return sorted((answer for part in parts for answer in part), key=lambda answer: answer.at)


def _client(traffic: Traffic, cases: list[_Case], place: int) -> list[Answer]:
    asks = _Rest(traffic) if place < traffic.rest else _Grpc(traffic)
    answers = []
    total = int(traffic.seconds * traffic.rate)
    for number in range(place, total, traffic.connections):
        due = traffic.start + number / traffic.rate
        time.sleep(max(0.0, due - time.time()))
        case = cases[number % len(cases)]
        version, problem = 0, ""
        try:
            version, problem = asks(case)
        except (grpc.RpcError, OSError, http.client.HTTPException, ValueError) as error:
            problem = f"failed: {error!r}"[:500]
        answers.append(Answer(due, time.time() - due, asks.name, version, problem))
    return answers


class _Grpc:
    name = "grpc"

    def __init__(self, traffic: Traffic) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
        self._channel = grpc.insecure_channel(f"127.0.0.1:{traffic.grpc_port}", options)
        self._predict = self._channel.unary_unary("/tensorflow.serving.PredictionService/Predict")

    def __call__(self, case: _Case) -> tuple[int, str]:
        response = predict_pb2.PredictResponse.FromString(self._predict(case.message, timeout=_SECONDS))
        version = response.model_spec.version.value
        found = {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}
        return version, _difference(found, case.expected[version % 2])


class _Rest:
    name = "rest"

    def __init__(self, traffic: Traffic) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", traffic.rest_port, timeout=_SECONDS)
        self._path = f"/v1/models/{traffic.model}:predict"

    def __call__(self, case: _Case) -> tuple[int, str]:
        self._connection.request("POST", self._path, case.body)
        response = self._connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise ValueError(f"{response.status}: {content[:300]!r}")
        outputs = json.loads(content)["outputs"]
        found = {name: np.array(outputs[name]) for name in case.expected[0]}
        # Which version answered is not told: it must be one of the two, whole.
        problems = [_difference(found, expected) for expected in case.expected]
        return 0, min(problems, key=len)


def _difference(found: Arrays, expected: Arrays) -> str:
    if found.keys() != expected.keys():
        return f"wrong: outputs {sorted(found)}"
    for name, values in expected.items():
        if not np.allclose(found[name], values, TOLERANCE, TOLERANCE):
            return f"wrong: {name} differs by {np.abs(found[name] - values).max():.2g}"
    return ""


def _cases(traffic: Traffic) -> list[_Case]:
    users = [column["name"] for column in _description(traffic.exports[0])["columns"] if column["side"] == "user"]
    rows = _rows(traffic.exports[0])
    # Not the server's way of running them.
    signatures = [tf.saved_model.load(str(path)).signatures["serving_default"] for path in traffic.exports]
    rng = np.random.default_rng(1)
    result = []
    for _ in range(traffic.requests):
        count = len(next(iter(rows.values())))
        user, items = rng.integers(0, count, 1), rng.integers(0, count, rng.integers(*traffic.items, endpoint=True))
        inputs = {name: values[user if name in users else items] for name, values in rows.items()}
        tensors = {name: tf.constant(values) for name, values in inputs.items()}
        first, second = ({n: x.numpy() for n, x in predict(**tensors).items()} for predict in signatures)
        if all(np.abs(first[name] - second[name]).max() < _TOLD_APART for name in first):
            raise BenchError("The two exports give the same answers: a wrong version would not be seen.")
        request = predict_pb2.PredictRequest()
        request.model_spec.name = traffic.model
        for name, values in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
        lists = {name: _texts(values) if values.dtype == object else values.tolist() for name, values in inputs.items()}
        result.append(_Case(request.SerializeToString(), json.dumps({"inputs": lists}).encode(), (first, second)))
    return result


def _texts(values: np.ndarray) -> list[str]:
    return [value.decode() for value in values]


def _description(export: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((export / "assets" / "description.json").read_text(encoding="utf-8"))
    return found


def _rows(export: Path) -> dict[str, np.ndarray]:
    """The rows of the largest warm-up request that has all columns with as many rows."""
    largest: dict[str, np.ndarray] = {}
    for record in tf.data.TFRecordDataset(str(export / WARM_UP)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        if request.model_spec.signature_name == "serving_tiled":
            rows = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
            largest = max(largest, rows, key=lambda found: len(next(iter(found.values()), ())))
    if not largest:
        raise BenchError(f"{export / WARM_UP}: found no request of serving_tiled; expected the rows to send.")
    return largest
