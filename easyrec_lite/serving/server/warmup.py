"""The requests that an export brings along, to be run before a version serves."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from easyrec_lite.serving.failures import LoadError, RequestError
from easyrec_lite.serving.loaded import LoadedModel
from easyrec_lite.serving.server.inputs import Limits, check_outputs, from_protos

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MOST = 1000  # records of a file; TF Serving's limit too

_UNLIMITED = Limits(rows=2**31, bytes=2**31, nan=True)


def warm_up(model: LoadedModel) -> int:
    """Runs the requests of `assets.extra/tf_serving_warmup_requests`, if there are any; returns how many.

    Raises:
        LoadError: one can't be read, or the model refuses it: then it would refuse those of users, too.
    """
    path = model.path / FILE
    if not path.exists():
        return 0
    count = 0
    try:
        for record in tf.data.TFRecordDataset(str(path)).take(MOST + 1).as_numpy_iterator():
            if count == MOST:
                raise LoadError(f"{path}: found more than {MOST} records; expected at most so many.")
            _run(model, prediction_log_pb2.PredictionLog.FromString(record))
            count += 1
    except (DecodeError, tf.errors.OpError, RequestError) as error:
        raise LoadError(f"{path}, record {count}: {str(error).splitlines()[0]}") from None
    return count


def _run(model: LoadedModel, log: prediction_log_pb2.PredictionLog) -> None:
    if not log.HasField("predict_log"):
        raise LoadError(f"{model.path / FILE}: found a {log.WhichOneof('log_type')}; expected requests of Predict.")
    request = log.predict_log.request
    name = request.model_spec.signature_name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    signature = model.signature(name)
    model.run(
        signature, from_protos(signature, request.inputs, _UNLIMITED), check_outputs(signature, request.output_filter)
    )
