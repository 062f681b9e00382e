"""Requests that are wrong: the status, the message, and a server that lives on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from server_models import NAME, Client, inputs, predict_request, publish, refused, wait_for

from easyrec_lite.errors import UserError
from easyrec_lite.serving.server import Limits, ModelServer, ServerOptions
from tools import fuzz_server
from tools._hostile_kinds import Kind
from tools._serving_probe import Outcome, Probe

PATH = f"/v1/models/{NAME}:predict"
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, one: Path) -> Iterator[ModelServer]:
    model_dir = tmp_path_factory.mktemp("hostile")
    publish(one, model_dir, 1)
    limits = Limits(rows=1000, bytes=4 * MEGABYTE)
    with ModelServer(model_dir, ServerOptions(name=NAME, grpc_port=0, rest_port=0, limits=limits)) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: ModelServer) -> Iterator[Client]:
    found = Client(f"127.0.0.1:{server.grpc_port}", f"127.0.0.1:{server.rest_port}")
    wait_for(found, {1})
    yield found
    found.close()


@pytest.fixture
def probe(server: ModelServer, client: Client) -> Iterator[Probe]:
    with Probe("127.0.0.1", server.grpc_port, server.rest_port, NAME) as found:
        yield found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": np.float64([1, 2, 3])}, "Input 'user': found type float64; expected int64."),
        ({"price": np.float32([[1], [2]])}, "Input 'price': found shape [2, 1]; expected [N]."),
        ({"vector": np.zeros((3, 5), np.float32)}, "Input 'vector': found shape [3, 5]; expected [N, 2]."),
        (
            {"user": np.zeros(1001, np.int64)},
            "Input 'user': found 1,001 rows; expected at most 1,000. Send them in several requests.",
        ),
        ({"price": np.float32([1, np.nan, 3])}, "Input 'price': found NaN at [1]; expected a number."),
        ({"text": np.array([b"x"], object)}, "Rows differ; expected as many texts as prices: 3"),
    ],
)
def test_messages_of_values(client: Client, change: dict[str, Any], message: str) -> None:
    assert refused(client.predict, inputs() | change) == ("INVALID_ARGUMENT", message)


def test_messages_of_names(client: Client) -> None:
    given = {name: values for name, values in inputs().items() if name != "user"} | {"usr": np.int64([1])}
    assert refused(client.predict, given) == (
        "INVALID_ARGUMENT",
        "Inputs of signature 'serving_default': found missing 'user'; unknown 'usr'; expected exactly"
        " 'price', 'text', 'user', 'vector'.",
    )
    assert refused(client.predict, inputs(), outputs=("scores",)) == (
        "INVALID_ARGUMENT",
        "output_filter: found 'scores'; expected outputs of signature 'serving_default': 'length', 'score', 'text'.",
    )
    assert refused(client.predict, inputs(), signature="rank")[1] == (
        "Signature 'rank': found no such signature; expected one of one, serving_default, wait."
    )
    assert refused(client.predict, inputs(), version=9) == (
        "NOT_FOUND",
        "Model 'tiny': version 9 does not serve; versions that serve: 1.",
    )
    assert refused(client.predict, inputs(), label="new") == (
        "NOT_FOUND",
        "Model 'tiny': found no label 'new'; the labels are: none.",
    )
    request = predict_request(inputs())
    request.model_spec.name = "other"
    assert refused(client.predictions.Predict, request) == (
        "NOT_FOUND",
        "Model 'other': found no such model; this server has 'tiny'.",
    )


def test_tensors_that_contradict_themselves(client: Client) -> None:
    def change(edit: Callable[[Any], None], name: str = "price") -> tuple[str, str]:
        request = predict_request(inputs())
        edit(request.inputs[name])
        return refused(client.predictions.Predict, request)

    def set_size(size: int) -> Callable[[Any], None]:
        return lambda proto: setattr(proto.tensor_shape.dim[0], "size", size)

    status = "INVALID_ARGUMENT"
    price = "Input 'price': "
    assert change(set_size(4)) == (status, price + "its values don't fit its shape [4]; expected 4 values.")
    assert change(set_size(-1)) == (status, price + "found shape [-1]; expected sizes of at least 0, [N].")
    assert change(lambda proto: setattr(proto.tensor_shape, "unknown_rank", True)) == (
        status,
        price + "found a shape of unknown rank; expected the sizes of the values, [N].",
    )
    assert change(lambda proto: setattr(proto, "dtype", 0))[1] == price + (
        "found type none (dtype is not set); expected float32."
    )
    assert change(lambda proto: setattr(proto, "dtype", 99))[1] == price + "found type number 99; expected float32."
    wrong = change(lambda proto: proto.int_val.append(3))
    assert wrong[1] == price + "found values in int_val; expected those of float32 in float_val."
    text = change(lambda proto: setattr(proto, "tensor_content", b"abc"), "text")
    assert text[1] == "Input 'text': found strings in tensor_content; expected them in string_val."


def test_a_value_that_is_repeated_into_a_huge_tensor(client: Client) -> None:
    request = predict_request(inputs(1000))
    request.inputs["text"].CopyFrom(tf.make_tensor_proto(np.array([b"x" * 10_000], object)))
    request.inputs["text"].tensor_shape.dim[0].size = 1000
    assert refused(client.predictions.Predict, request)[1] == (
        "Input 'text': found 10,000,000 bytes of text; expected at most 4,194,304."
    )


def test_a_message_that_is_too_large(client: Client) -> None:
    given = inputs() | {"text": np.array([b"x" * 2 * MEGABYTE] * 3, object)}
    assert refused(client.predict, given)[0] == "RESOURCE_EXHAUSTED"
    assert client.rest(PATH, b" " * 5 * MEGABYTE) == (
        413,
        {"error": "The body has 5,242,880 bytes; expected at most 4,194,304."},
    )


def test_bytes_that_are_no_message(client: Client) -> None:
    call = client.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    assert refused(call, b"\x0a\xff\xff") == (
        "INVALID_ARGUMENT",
        "The message can't be read: found 3 bytes that are no tensorflow.serving.PredictRequest.",
    )
    assert refused(call, b"") == ("INVALID_ARGUMENT", "model_spec.name: found none; expected 'tiny'.")
    other = client.channel.unary_unary("/tensorflow.serving.PredictionService/Classify")
    assert refused(other, b"")[0] == "UNIMPLEMENTED"


def test_reloads_that_this_server_can_not_do(client: Client, server: ModelServer) -> None:
    path = server.versions.base_path
    assert "found models 'other'; expected this server's one, 'tiny'" in refused(client.reload, path, "other")[1]
    assert refused(client.reload, "/elsewhere")[1].startswith("base_path: found '/elsewhere'; expected '")
    assert refused(client.reload, path, version_labels={"a": 7}) == (
        "FAILED_PRECONDITION",
        "Model 'tiny': labels name versions that don't serve: 7; versions that serve: 1.",
    )
    specific = {"specific": {}}
    assert "found no versions" in refused(client.reload, path, model_version_policy=specific)[1]


COLUMNS = {"user": [1], "price": [1.5], "vector": [[1, 2]], "text": ["a"]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"inputs": [1', "JSON: can't be read (Expecting ',' delimiter: line 1 column 14 (char 13))."),
        (b"\xff", "JSON: found bytes that are no UTF-8 (invalid start byte at 0)."),
        (b"[" * 100_000, "JSON: found lists or objects nested too deeply; expected a few levels."),
        (b"1" * 5000, "JSON: can't be read (a number of 5000 digits)."),
        (b"3", 'JSON: found a number; expected an object {"instances": [...]} or {"inputs": ...}.'),
        ({}, "JSON: found neither of 'instances' and 'inputs'; expected one of them."),
        ({"instances": []}, "instances: found no rows; expected a list of rows."),
        ({"instances": "a"}, "instances: found text; expected a list of rows."),
        ({"instances": [1]}, "instances: found values without names; expected them by name: price, text, user, vec"),
        ({"inputs": {}, "signature_name": 3}, "signature_name: found a number; expected text."),
        (
            {"inputs": COLUMNS | {"user": [1.5]}},
            "Input 'user', value 0: found a number 1.5; expected a whole number (int64).",
        ),
        ({"inputs": COLUMNS | {"user": [True]}}, "Input 'user', value 0: found true or false True; expected a whole"),
        ({"inputs": COLUMNS | {"price": [None]}}, "Input 'price', value 0: found null; expected a number (float32)."),
        ({"inputs": COLUMNS | {"price": [1e39]}}, "Input 'price': found a number out of the range of float32."),
        ({"inputs": COLUMNS | {"user": [2**64]}}, "Input 'user': found a number out of the range of int64."),
        ({"inputs": COLUMNS | {"text": [{"b64": "?"}]}}, "Input 'text', value 0: found an object; expected text or"),
        (
            {"inputs": COLUMNS | {"vector": [[1, 2], [3]]}},
            "Input 'vector': found lists of different lengths or depths at level 1; expected the same throughout.",
        ),
        ({"inputs": COLUMNS | {"price": [float("nan")]}}, "Input 'price': found NaN at [0]; expected a number."),
        ({"inputs": COLUMNS | {"price": 1.5}}, "Input 'price': found shape []; expected [N]."),
    ],
)
def test_messages_of_rest(client: Client, body: Any, message: str) -> None:
    status, found = client.rest(PATH, body)
    assert status == 400
    assert found["error"].startswith(message)


def test_rows_with_other_inputs(client: Client) -> None:
    row = {"user": 1, "price": 1.5, "vector": [1, 2], "text": "a"}
    other = {name: value for name, value in row.items() if name != "text"}
    for wrong, found in ((other, "the inputs user, price, vector"), (7, "a number")):
        status, answer = client.rest(PATH, {"instances": [row, wrong]})
        assert (status, answer["error"]) == (
            400,
            f"instances[1]: found {found}; expected, as in instances[0], user, price, vector, text.",
        )


def test_paths_and_methods(client: Client) -> None:
    assert client.rest("/v1/models/other:predict", {})[0] == 404
    assert client.rest("/")[0] == 404
    assert client.rest(f"/v1/models/{NAME}/versions/99999999999999999999:predict", {})[0] == 404
    assert client.rest(f"/v1/models/{NAME}/versions/9999999999999999999:predict", {"inputs": COLUMNS})[0] == 400
    assert client.rest(f"/v1/models/{NAME}:classify", {})[0] == 501
    assert client.rest(f"/v1/models/{NAME}", {})[0] == 405
    assert client.rest(PATH)[0] == 405
    assert client.rest(PATH, method="DELETE") == (405, {"error": "Method DELETE: expected GET or POST."})


def test_nan_may_be_allowed(start: Callable[..., ModelServer], connect: Any, tmp_path: Path, one: Path) -> None:
    publish(one, tmp_path, 1)
    client = connect(start(tmp_path, limits=Limits(nan=True)))
    wait_for(client, {1})
    assert np.isnan(client.predict({"x": np.float32([np.nan, 1])}, signature="one")[1]["y"]).tolist() == [True, False]
    status, found = client.rest(PATH, b'{"signature_name": "one", "inputs": [NaN]}')
    assert status == 200
    assert np.isnan(found["outputs"][0])


def test_the_fuzzer_finds_nothing(probe: Probe) -> None:
    report = fuzz_server.fuzz(probe, 8 * len(fuzz_server.KINDS), seed=1)
    assert report.findings == []
    assert sum(report.counts.values()) == 8 * len(fuzz_server.KINDS)


@pytest.mark.slow
def test_ten_thousand_hostile_requests(probe: Probe) -> None:
    assert fuzz_server.fuzz(probe, 10_000, seed=2).findings == []


def test_the_fuzzer_finds_what_is_wrong(probe: Probe) -> None:
    kinds = [
        Kind("crash", lambda probe, rng: Outcome("INTERNAL", "a fault"), frozenset({"INVALID_ARGUMENT"})),
        Kind("silence", lambda probe, rng: Outcome("400"), frozenset({"400"})),
        Kind("right", lambda probe, rng: Outcome("400", "why"), frozenset({"400"})),
    ]
    found = fuzz_server.fuzz(probe, 3, 1, kinds).findings
    assert [finding.kind for finding in found] == ["crash", "silence"]
    probe.model = "other"
    probe._request = json.dumps({}).encode()
    with pytest.raises(UserError, match="A request that is right got INVALID_ARGUMENT"):
        fuzz_server.fuzz(probe, 1, 1)
