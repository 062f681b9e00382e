"""Parity of a live server: what it answers for a version is what the trainer predicts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from easyrec_lite.checkpoints import Checkpoint
from easyrec_lite.embeddings import store_rows
from easyrec_lite.errors import UserError
from easyrec_lite.features import Columns
from easyrec_lite.models import Recommender
from easyrec_lite.protos import pipeline_pb2
from easyrec_lite.serving.columns import ServedColumn
from easyrec_lite.serving.export import table_type
from easyrec_lite.serving.parity import TOLERANCE, ParityReport, compare
from easyrec_lite.serving.restore import restored_recommender
from easyrec_lite.serving.versions import description
from easyrec_lite.serving.warmup import predict_request

_POLL_SECONDS = 0.2
_STATUS_SECONDS = 10.0  # not what is left of the time to wait: the last answer is to be the server's own
_ANSWER_SECONDS = 60.0  # that a request may take
_UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_State = get_model_status_pb2.ModelVersionStatus.State


class LiveServerError(UserError):
    """A server does not serve the version, or refuses a request."""


class LiveModel:
    """One version of a model on a server that speaks TensorFlow Serving's gRPC; asked like a `LoadedModel`.

        with LiveModel("127.0.0.1:8500", "multi_tower", 1790000000) as model:
            model.wait(60)
            model("serving_default", inputs)["probs"]

    Args:
        address: `host:port`.
        name: of the model.
        version: no other one is asked.

    Attributes:
        signatures: the inputs' specs by name, by the signature's name; none before `wait`.
    """

    def __init__(self, address: str, name: str, version: int) -> None:
        self.address, self.name, self.version = address, name, version
        self.signatures: dict[str, dict[str, tf.TensorSpec]] = {}
        self._channel = grpc.insecure_channel(address, _UNBOUNDED)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def wait(self, seconds: float) -> None:
        """Returns when the server serves the version.

        Raises:
            LiveServerError: it does not in that time, or says that it never will.
        """
        end = time.monotonic() + seconds
        found = ""
        while not found or (time.monotonic() < end and not found.startswith("END")):
            if found:
                time.sleep(_POLL_SECONDS)
            found = self._state()
            if found == "AVAILABLE":
                self.signatures = self._read_signatures()
                return
        hint = "Does it watch the directory of the export, and is that the model's name there (--model_name)?"
        if found.startswith("END"):
            hint = "Its log may say more."
        raise LiveServerError(
            f"{self._version()}: found {found}; expected the state AVAILABLE within {seconds:g} s. {hint}"
        )

    def __call__(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """All outputs for values by name; those that the signature does not take are left out.

        Raises:
            LiveServerError: the server's refusal.
        """
        request = predict_request(self.name, signature, self.signatures[signature], inputs)
        request.model_spec.version.value = self.version
        try:
            response = self._predictions.Predict(request, timeout=_ANSWER_SECONDS)
        except grpc.RpcError as error:
            raise LiveServerError(
                f"{self._version()}, signature {signature!r}: found {_told(error)}; expected an answer."
            ) from None
        return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def _version(self) -> str:
        return f"Server {self.address}, version {self.version} of model {self.name!r}"

    def _state(self) -> str:
        """The state of the version, or why it is not known."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name, request.model_spec.version.value = self.name, self.version
        try:
            response = self._models.GetModelStatus(request, timeout=_STATUS_SECONDS)
        except grpc.RpcError as error:
            return _told(error)
        for entry in response.model_version_status:
            if entry.version == self.version:
                message = f" ({entry.status.error_message})" if entry.status.error_message else ""
                return f"{_State.Name(entry.state)}{message}"
        return "no word of that version"

    def _read_signatures(self) -> dict[str, dict[str, tf.TensorSpec]]:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name, request.model_spec.version.value = self.name, self.version
        try:
            response = self._predictions.GetModelMetadata(request, timeout=_ANSWER_SECONDS)
        except grpc.RpcError as error:
            raise LiveServerError(f"{self._version()}: found {_told(error)}; expected its signatures.") from None
        found = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(found)
        return {
            name: {
                key: tf.TensorSpec(tf.TensorShape(info.tensor_shape), tf.as_dtype(info.dtype), key)
                for key, info in definition.inputs.items()
            }
            for name, definition in found.signature_def.items()
        }


def compare_live(
    model: LiveModel,
    config: pipeline_pb2.EasyRecConfig,
    checkpoint: Checkpoint,
    path: Path,
    rows: Columns,
    *,
    tolerance: float = TOLERANCE,
) -> ParityReport:
    """Replays rows through the trainer's graph and through every signature of a server; see `parity.compare`.

    Args:
        model: served by now: `LiveModel.wait` has returned.
        config: checked and complete.
        checkpoint: that was exported.
        path: the version folder.
        rows: raw columns as training reads them.
        tolerance: absolute and relative.

    Raises:
        LiveServerError: the server refuses a request.
    """
    about = description(path)
    columns = [ServedColumn.from_json(column) for column in about["columns"]]
    return compare(
        _as_exported(config, checkpoint),
        model,
        columns,
        rows,
        separator=about["single_input_separator"],
        tolerance=tolerance,
        loader=f"the server {model.address}",
    )


def _as_exported(config: pipeline_pb2.EasyRecConfig, checkpoint: Checkpoint) -> Recommender:
    """The trainer's model over tables that are rounded as the export's are."""
    recommender = restored_recommender(config, checkpoint)
    if (kind := table_type(config)) != "float32":
        for table in recommender.collection.variables_by_bucket.values():
            store_rows(table, kind)
    return recommender


def _told(error: grpc.RpcError) -> str:
    return f"{error.code().name} ({error.details()})"
