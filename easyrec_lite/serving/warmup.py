"""Warm-up requests: TensorFlow Serving runs them before it serves a version, so that no user waits for the first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from easyrec_lite.features import Columns
from easyrec_lite.serving import requests
from easyrec_lite.serving.columns import ServedColumn
from easyrec_lite.serving.loaded import LoadedModel
from easyrec_lite.serving.module import CACHED, DEFAULT, SCORE, USER

WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"
_ITEMS = (1, 10, 100, 500)


def write_warmup(
    path: Path,
    session: LoadedModel,
    columns: Sequence[ServedColumn],
    rows: Columns,
    separator: str | None = None,
    private: Collection[str] = (),
) -> int:
    """Writes the requests of real rows below the version folder `path`; returns their number.

    Args:
        path: the version folder.
        session: the export.
        columns: its inputs.
        rows: raw columns as training reads them.
        separator: of the single-string form of `serving_default`, if it has that.
        private: columns whose values must not leave the data: their default is written instead.
    """
    from tensorflow_serving.apis import prediction_log_pb2  # of tensorflow-serving-api

    target = path / WARMUP
    target.parent.mkdir(exist_ok=True)
    written = 0
    with tf.io.TFRecordWriter(str(target)) as writer:
        for signature, inputs in _requests(session, columns, rows, separator, private):
            # The name is not looked at: the folder says which model is warmed up.
            request = predict_request("model", signature, session.signatures[signature].inputs, inputs)
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
            written += 1
    return written


def predict_request(model: str, signature: str, specs: Mapping[str, tf.TensorSpec], values: Mapping[str, Any]) -> Any:
    """A PredictRequest of TensorFlow Serving's.

    Args:
        model: its name.
        signature: its name.
        specs: the signature's inputs.
        values: by the inputs' names; others are left out.
    """
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, spec in specs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values[name], dtype=spec.dtype))
    return request


def _requests(
    session: LoadedModel,
    columns: Sequence[ServedColumn],
    rows: Columns,
    separator: str | None,
    private: Collection[str],
) -> Iterator[tuple[str, requests.Inputs]]:
    """By signature: each alone, and one user with more and more items."""
    inputs = requests.as_inputs(rows, columns)
    for column in columns:
        if column.name in private:
            default = column.default.encode() if isinstance(column.default, str) else column.default
            inputs[column.name] = np.full_like(inputs[column.name], default)
    total = requests.count(rows)
    for size in _ITEMS:
        batch = {name: values[np.arange(size) % total] for name, values in inputs.items()}
        for signature in sorted(set(session.signatures) - {USER, SCORE, CACHED}):
            text = signature == DEFAULT and separator is not None
            yield signature, requests.as_text(batch, columns, separator or ",") if text else batch
        if SCORE not in session.signatures:
            continue
        one = requests.UserRequest(size % total, np.arange(size) % total).inputs(inputs, columns)
        if separator is None:
            yield DEFAULT, one
        yield USER, one
        yield SCORE, {**session(USER, one), **one}
        if CACHED in session.signatures:
            yield CACHED, one
