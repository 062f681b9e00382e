"""Warm-up requests: TensorFlow Serving runs them before it serves a version, so that no user waits for the first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

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
) -> int:
    """Writes the requests of real rows below the version folder `path`; returns their number."""
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2  # of tensorflow-serving-api

    target = path / WARMUP
    target.parent.mkdir(exist_ok=True)
    written = 0
    with tf.io.TFRecordWriter(str(target)) as writer:
        for signature, inputs in _requests(session, columns, rows, separator):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "model"  # not looked at: the folder says which model is warmed up
            request.model_spec.signature_name = signature
            for name, info in session.signatures[signature].inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(inputs[name], dtype=info.dtype))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
            written += 1
    return written


def _requests(
    session: LoadedModel, columns: Sequence[ServedColumn], rows: Columns, separator: str | None
) -> Iterator[tuple[str, requests.Inputs]]:
    """By signature: each alone, and one user with more and more items."""
    inputs = requests.as_inputs(rows, columns)
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
