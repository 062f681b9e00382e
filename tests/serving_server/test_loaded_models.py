"""Models in a C++ session: tensors there and back, refusals, memory of strings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from server_models import expected, inputs, write_warm_up

from easyrec_lite.serving.failures import LoadError, RequestError, Status, from_tensorflow, useful
from easyrec_lite.serving.loaded import LoadedModel
from easyrec_lite.serving.server.warmup import warm_up
from easyrec_lite.serving.tensors import STRING, api, to_array, to_tensor


def round_trip(array: np.ndarray, dtype: int) -> np.ndarray:
    tensor = to_tensor(array, dtype)
    try:
        return to_array(tensor)
    finally:
        api.TF_DeleteTensor(tensor)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int32", "int64", "uint16", "bool", "bfloat16"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3)])
def test_numbers_there_and_back(dtype: str, shape: tuple[int, ...]) -> None:
    kind = tf.as_dtype(dtype)
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind.as_numpy_dtype)
    found = round_trip(array, kind.as_datatype_enum)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=30), st.integers(20, 26).map(lambda n: b"x" * n), st.just(b"\x00" * 23))))
def test_strings_there_and_back(values: list[bytes]) -> None:
    array = np.empty(len(values), object)
    array[:] = values
    assert round_trip(array, STRING).tolist() == values


def test_strings_of_any_shape_and_length() -> None:
    array = np.array([[b"", b"\x00\x00"], [b"a" * 22, b"b" * 23], [b"c" * 100_000, "ä".encode()]], object)
    np.testing.assert_array_equal(round_trip(array, STRING), array)
    assert round_trip(np.array(b"d" * 50, object), STRING)[()] == b"d" * 50


class Memory(tf.Module):
    """Keeps the texts of a request."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = tf.Variable(tf.constant([], tf.string), shape=[None])
        self.table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.string, "")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "x")])
    def keep(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        self.kept.assign(x)
        self.table.insert(tf.range(tf.size(x, tf.int64)), x)
        return {"count": tf.size(x)}

    @tf.function(input_signature=[])
    def kept_now(self) -> dict[str, tf.Tensor]:
        return {"variable": self.kept.read_value(), "table": self.table.export()[1]}


def test_a_model_may_keep_the_strings_of_a_request(tmp_path: Path) -> None:
    module = Memory()
    tf.saved_model.save(module, str(tmp_path), signatures={"keep": module.keep, "kept": module.kept_now})
    model = LoadedModel(tmp_path)
    values = [b"short", b"long" * 100, b"", b"x" * 23]
    model.run(model.signature("keep"), {"x": np.array(values, object)})
    for filler in range(200):  # what a freed buffer would be overwritten by
        tensor = to_tensor(np.array([b"%d" % filler * 100] * 4, object), STRING)
        api.TF_DeleteTensor(tensor)
    found = model.run(model.signature("kept"), {})
    assert found["variable"].tolist() == values
    assert sorted(found["table"].tolist()) == sorted(values)
    model.close()


@pytest.fixture(scope="module")
def model(one: Path) -> LoadedModel:
    return LoadedModel(one)


def test_a_signature_computes_what_the_model_says(model: LoadedModel) -> None:
    sent = inputs(5)
    signature = model.signature("serving_default")
    assert {name: spec.dtype.name for name, spec in signature.inputs.items()} == {
        "price": "float32",
        "text": "string",
        "user": "int64",
        "vector": "float32",
    }
    found = model.run(signature, sent)
    assert sorted(found) == ["length", "score", "text"]
    np.testing.assert_allclose(found["score"], expected(sent, 1.0), rtol=1e-6)
    assert list(model.run(signature, sent, ["text"])) == ["text"]


def test_choices_of_outputs_are_bounded(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    signature = model.signature("serving_default")
    for names in (["score"], ["text"], ["score", "text"]):
        signature.fetches(names)
    monkeypatch.setattr("easyrec_lite.serving.loaded._CHOICES", len(signature._choices))
    assert signature.fetches(["length"])[0] == ("length", "score", "text")  # all of them
    assert list(model.run(signature, inputs(), ["length"])) == ["length"]
    assert signature.fetches(["text"])[0] == ("text",)


def test_refusals_of_the_model(model: LoadedModel) -> None:
    with pytest.raises(RequestError, match="'nope': found no such signature; expected one of one, serving_"):
        model.signature("nope")
    sent = inputs(3) | {"text": np.array([b"one"], object)}
    with pytest.raises(RequestError) as caught:
        model.run(model.signature("serving_default"), sent)
    assert caught.value.status == Status.INVALID_ARGUMENT
    assert str(caught.value) == "Rows differ; expected as many texts as prices: 3"


def test_a_deadline_ends_a_run(model: LoadedModel, tmp_path: Path) -> None:
    path = np.array(str(tmp_path / "never").encode(), object)
    with pytest.raises(RequestError) as caught:
        model.run(model.signature("wait"), {"path": path}, timeout=0.05)
    assert caught.value.status == Status.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "(?i)could not find SavedModel"),
        (b"", "(?i)could not find meta ?graph"),
        (b"\xff\xff", "(?i)parse|read"),
    ],
)
def test_folders_that_hold_no_model(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(LoadError, match=message):
        LoadedModel(tmp_path)


def test_variables_that_are_missing(one: Path, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes((one / "saved_model.pb").read_bytes())
    with pytest.raises(LoadError, match=r"found no variables/variables\.index"):
        LoadedModel(tmp_path)


def test_warm_up(one: Path, two: Path) -> None:
    for path, count in ((one, 2), (two, 0)):
        model = LoadedModel(path)
        assert warm_up(model) == count
        model.close()


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ({"one": {"x": [1.0]}, "nope": {}}, "record 1: Signature 'nope': found no such"),
        ({"one": {"y": [1.0]}}, "record 0: Inputs of signature 'one': found missing 'x'; unknown 'y'"),
    ],
)
def test_warm_up_requests_that_the_model_refuses(
    two: Path, tmp_path: Path, requests: dict[str, dict[str, list[float]]], message: str
) -> None:
    model = LoadedModel(two)
    model.path = tmp_path
    write_warm_up(tmp_path, requests)
    with pytest.raises(LoadError, match=message):
        warm_up(model)
    (tmp_path / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"no records at all, that is for sure")
    with pytest.raises(LoadError, match=r"tf_serving_warmup_requests, record 0: "):
        warm_up(model)
    model.close()


def test_what_is_useful_of_a_message() -> None:
    long = (
        "2 root error(s) found.\n  (0) INVALID_ARGUMENT: assertion failed: [Rows differ:] [3]\n\t"
        " [[{{function_node x}}{{node Assert/Assert}}]]\n\t [[StatefulPartitionedCall/_3]]\n"
        "  (1) INVALID_ARGUMENT: assertion failed: [Rows differ:] [3]\n"
    )
    assert useful(long).startswith("Rows differ: 3")
    assert useful("indices[0] = 9 is not in [0, 5)\n\t [[{{node a/b}}]]") == "indices[0] = 9 is not in [0, 5)"
    assert useful("") == "TensorFlow refused the request."
    assert from_tensorflow(3, "x").status == Status.INVALID_ARGUMENT
    assert from_tensorflow(11, "x").status == Status.INVALID_ARGUMENT
    assert from_tensorflow(8, "OOM").status == Status.RESOURCE_EXHAUSTED
    assert from_tensorflow(2, "x").status == Status.INTERNAL
    assert len(str(from_tensorflow(3, "x" * 9999))) < 1010
