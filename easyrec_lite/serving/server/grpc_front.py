"""TF Serving's gRPC services: PredictionService and ModelService.

Messages are parsed here and not by gRPC, which tells a client no more than "Exception deserializing request!".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError, Message
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
)

from easyrec_lite.errors import UserError
from easyrec_lite.serving.failures import RequestError, Status, invalid
from easyrec_lite.serving.server.inputs import from_protos
from easyrec_lite.serving.server.model_versions import Policy, VersionStatus
from easyrec_lite.serving.server.service import PredictService

M = TypeVar("M", bound=Message)

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_DEFAULT_SIGNATURE = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
_DAY = 86_400.0
_SPARE_THREADS = 8  # for requests that ask no predictions: a full server still tells its status


class GrpcFront:
    """The gRPC side of a server.

    Args:
        service: answers.
        host: address of the interface.
        port: 0 takes a free one.
        threads: requests for predictions at a time, those that wait included.

    Attributes:
        port: where it listens.

    Raises:
        UserError: the port can't be had.
    """

    def __init__(self, service: PredictService, host: str, port: int, threads: int) -> None:
        self._service = service
        options = [
            ("grpc.max_receive_message_length", service.limits.bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # two servers on one port would take turns
        ]
        pool = ThreadPoolExecutor(threads + _SPARE_THREADS, thread_name_prefix="grpc")
        self._server = grpc.server(pool, options=options)
        self._server.add_generic_rpc_handlers(
            (
                _handlers(
                    "tensorflow.serving.PredictionService",
                    {
                        "Predict": self._predict,
                        "GetModelMetadata": self._metadata,
                        "Classify": self._unimplemented,
                        "Regress": self._unimplemented,
                        "MultiInference": self._unimplemented,
                    },
                ),
                _handlers(
                    "tensorflow.serving.ModelService",
                    {"GetModelStatus": self._status, "HandleReloadConfigRequest": self._reload},
                ),
            )
        )
        try:
            self.port = self._server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError:
            raise UserError(
                f"--grpc_port: found {port}, which can't be had at {host}; expected a free port. Stop what uses it, or"
                " name another."
            ) from None

    def start(self) -> None:
        """Begins to serve; returns at once."""
        self._server.start()

    def stop(self, seconds: float) -> threading.Event:
        """Takes no more requests; the event comes when those it has are answered, or `seconds` later."""
        return self._server.stop(seconds)

    # ---- methods

    def _predict(self, body: bytes, context: grpc.ServicerContext) -> Message:
        with self._service.call("grpc", _timeout(context)) as call:
            request = _parse(predict_pb2.PredictRequest, body)
            if request.HasField("predict_streamed_options"):
                raise RequestError(Status.UNIMPLEMENTED, "predict_streamed_options: found some; streams aren't served.")
            spec = request.model_spec
            call.open(spec.name, spec.signature_name or _DEFAULT_SIGNATURE, _version(spec), spec.version_label)
            inputs = from_protos(call.signature, request.inputs, self._service.limits)
            outputs = call.run(inputs, request.output_filter)
            response = predict_pb2.PredictResponse()
            _answer_spec(response.model_spec, self._service, call.version, call.signature.name)
            for name, array in outputs.items():
                write_tensor(response.outputs[name], array)
            return response

    def _metadata(self, body: bytes, context: grpc.ServicerContext) -> Message:
        request = _parse(get_model_metadata_pb2.GetModelMetadataRequest, body)
        fields = list(request.metadata_field)
        if not fields or any(field != "signature_def" for field in fields):
            raise invalid(f"metadata_field: found {fields or 'none'}; expected 'signature_def'.")
        spec = request.model_spec
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        self._service.check_model(spec.name)
        with self._service.versions.held(_version(spec), spec.version_label) as served:
            signatures = signature_map(served.model.signatures.values())
            _answer_spec(response.model_spec, self._service, served.version, "")
        response.metadata["signature_def"].Pack(signatures)
        return response

    def _status(self, body: bytes, context: grpc.ServicerContext) -> Message:
        spec = _parse(get_model_status_pb2.GetModelStatusRequest, body).model_spec
        self._service.check_model(spec.name)
        return status_response(self._service.versions.statuses(_version(spec), spec.version_label))

    def _reload(self, body: bytes, context: grpc.ServicerContext) -> Message:
        request = _parse(model_management_pb2.ReloadConfigRequest, body)
        configs = list(request.config.model_config_list.config)
        versions = self._service.versions
        if len(configs) != 1 or configs[0].name != versions.name:
            names = ", ".join(repr(config.name) for config in configs) or "none"
            raise invalid(f"model_config_list: found models {names}; expected this server's one, {versions.name!r}.")
        config = configs[0]
        own = versions.base_path.absolute()
        if config.base_path and Path(config.base_path).absolute() != own:
            raise invalid(
                f"base_path: found {config.base_path!r}; expected {str(own)!r}. Start a server for another directory."
            )
        versions.configure(_policy(config.model_version_policy), config.version_labels)
        return model_management_pb2.ReloadConfigResponse()

    def _unimplemented(self, body: bytes, context: grpc.ServicerContext) -> Message:
        raise RequestError(
            Status.UNIMPLEMENTED, "This server answers Predict. Classify, Regress and MultiInference take tf.Examples."
        )

    # ---- errors

    def guarded(self, method: Callable[[bytes, grpc.ServicerContext], Message]) -> Callable[..., Any]:
        """A method whose exceptions become statuses."""

        def answer(body: bytes, context: grpc.ServicerContext) -> Message | None:
            try:
                return method(body, context)
            except Exception as error:
                refusal = self._service.refusal(error)
                context.abort(_CODES[refusal.status], str(refusal))
                return None

        return answer


def _handlers(service: str, methods: dict[str, Any]) -> grpc.GenericRpcHandler:
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            method.__self__.guarded(method), response_serializer=lambda message: message.SerializeToString()
        )
        for name, method in methods.items()
    }
    return grpc.method_handlers_generic_handler(service, handlers)


def _parse(kind: type[M], body: bytes) -> M:
    try:
        return kind.FromString(body)
    except DecodeError:
        name = kind.DESCRIPTOR.full_name
        raise invalid(f"The message can't be read: found {len(body):,} bytes that are no {name}.") from None


def _timeout(context: grpc.ServicerContext) -> float | None:
    """Seconds that the client waits; without a deadline gRPC says centuries."""
    left = context.time_remaining()
    return left if left is not None and left < _DAY else None


def _version(spec: model_pb2.ModelSpec) -> int | None:
    return spec.version.value if spec.HasField("version") else None


def _answer_spec(spec: model_pb2.ModelSpec, service: PredictService, version: int, signature: str) -> None:
    spec.name, spec.signature_name = service.versions.name, signature
    spec.version.value = version


def _policy(message: Any) -> Policy:
    kind = message.WhichOneof("policy_choice")
    if kind == "all":
        return Policy(newest=None)
    if kind == "specific":
        if not message.specific.versions:
            raise invalid("model_version_policy.specific: found no versions; expected at least one.")
        return Policy(newest=None, only=frozenset(message.specific.versions))
    return Policy(newest=max(1, message.latest.num_versions))


def signature_map(signatures: Any) -> get_model_metadata_pb2.SignatureDefMap:
    """The definitions of signatures, by name."""
    result = get_model_metadata_pb2.SignatureDefMap()
    for signature in signatures:
        result.signature_def[signature.name].CopyFrom(signature.definition)
    return result


def status_response(statuses: Sequence[VersionStatus]) -> get_model_status_pb2.GetModelStatusResponse:
    """The answer of GetModelStatus."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for found in statuses:
        entry = response.model_version_status.add()
        entry.version = found.version
        entry.state = get_model_status_pb2.ModelVersionStatus.State.Value(found.state)
        entry.status.error_code, entry.status.error_message = int(found.status), found.message
    return response


_FIELDS = {"f4": "float_val", "f8": "double_val", "i8": "int64_val", "b1": "bool_val"}
_FIELDS |= dict.fromkeys(("i4", "i2", "i1", "u2", "u1"), "int_val")


def write_tensor(proto: tensor_pb2.TensorProto, array: np.ndarray) -> None:
    """Writes an array value by value, as TF Serving does: clients read `float_val` and the like."""
    if array.dtype == object:
        proto.dtype = tf.string.as_datatype_enum
        proto.string_val.extend(array.reshape(-1).tolist())
    elif field := _FIELDS.get(array.dtype.str[1:]):
        proto.dtype = tf.as_dtype(array.dtype).as_datatype_enum
        getattr(proto, field).extend(array.reshape(-1).tolist())
    else:
        proto.CopyFrom(tf.make_tensor_proto(array))
        return
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
