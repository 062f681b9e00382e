"""Requests by gRPC that a server must survive, with the statuses that are right for each."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_management_pb2, predict_pb2

from tools._hostile_kinds import MILLION, Kind, Kinds, input_name, word
from tools._serving_probe import METADATA, Outcome, Probe

STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"

_kinds = Kinds()


@_kinds.add("grpc: nothing wrong", "OK")
def _right(probe: Probe, rng: np.random.Generator) -> Outcome:
    return probe.call(probe.request(rng))


@_kinds.add("grpc: random bytes", "INVALID_ARGUMENT")
def _random_bytes(probe: Probe, rng: np.random.Generator) -> Outcome:
    # The first field's number is 0, which no message has.
    return probe.call(b"\x00" + rng.bytes(int(rng.integers(0, 2000))))


@_kinds.add("grpc: cut message", "INVALID_ARGUMENT", "NOT_FOUND", "OK")
def _cut(probe: Probe, rng: np.random.Generator) -> Outcome:
    content = probe.request(rng).SerializeToString()
    return probe.call(content[: int(rng.integers(0, len(content)))])


@_kinds.add("grpc: changed bytes", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "OK")
def _changed(probe: Probe, rng: np.random.Generator) -> Outcome:
    content = bytearray(probe.request(rng).SerializeToString())
    for place in rng.integers(0, len(content), int(rng.integers(1, 6))):
        content[place] = int(rng.integers(0, 256))
    return probe.call(bytes(content))


@_kinds.add("grpc: wrong type", "INVALID_ARGUMENT")
def _wrong_type(probe: Probe, rng: np.random.Generator) -> Outcome:
    request, name = _with_input(probe, rng)
    proto = request.inputs[name]
    others = [number for number in range(24) if number != proto.dtype]
    proto.dtype = int(rng.choice(others))
    return probe.call(request)


@_kinds.add("grpc: values of another type's field", "INVALID_ARGUMENT")
def _wrong_field(probe: Probe, rng: np.random.Generator) -> Outcome:
    request, name = _with_input(probe, rng)
    proto = request.inputs[name]
    proto.ClearField("tensor_content")
    proto.ClearField("string_val")
    proto.uint32_val.extend([1, 2, 3])
    return probe.call(request)


@_kinds.add("grpc: wrong shape", "INVALID_ARGUMENT")
def _wrong_shape(probe: Probe, rng: np.random.Generator) -> Outcome:
    request, name = _with_input(probe, rng)
    shape = request.inputs[name].tensor_shape
    choice = int(rng.integers(0, 5))
    if choice == 0:
        shape.dim.add(size=int(rng.integers(1, 4)))
    elif choice == 1:
        shape.dim[0].size = -int(rng.integers(1, 2**62))
    elif choice == 2:
        shape.dim[0].size = int(rng.integers(2**31, 2**62))
    elif choice == 3:
        shape.unknown_rank = True
    else:
        for _ in range(300):
            shape.dim.add(size=2)
    return probe.call(request)


@_kinds.add("grpc: too many or too few values", "INVALID_ARGUMENT", "OK")
def _wrong_count(probe: Probe, rng: np.random.Generator) -> Outcome:
    request, name = _with_input(probe, rng)
    proto = request.inputs[name]
    if proto.tensor_content:
        proto.tensor_content = rng.bytes(int(rng.integers(1, 100)))
    else:
        del proto.string_val[:]
        proto.string_val.extend([b"1"] * int(rng.integers(0, 10)))
    return probe.call(request)


@_kinds.add("grpc: rows that differ", "INVALID_ARGUMENT", "OK")
def _rows_differ(probe: Probe, rng: np.random.Generator) -> Outcome:
    request, name = _with_input(probe, rng)
    request.inputs[name].CopyFrom(tf.make_tensor_proto(probe.arrays(rng, int(rng.integers(0, 9)))[name]))
    return probe.call(request)


@_kinds.add("grpc: missing input", "INVALID_ARGUMENT")
def _missing(probe: Probe, rng: np.random.Generator) -> Outcome:
    request, name = _with_input(probe, rng)
    del request.inputs[name]
    return probe.call(request)


@_kinds.add("grpc: unknown input", "INVALID_ARGUMENT")
def _extra(probe: Probe, rng: np.random.Generator) -> Outcome:
    request = probe.request(rng)
    request.inputs[word(rng, 1 if rng.random() < 0.9 else 100_000)].CopyFrom(tf.make_tensor_proto([1.0]))
    return probe.call(request)


@_kinds.add("grpc: a million items", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
def _million(probe: Probe, rng: np.random.Generator) -> Outcome:
    request = probe.request(rng)
    for proto in request.inputs.values():
        proto.tensor_shape.dim[0].size = MILLION
        if rng.random() < 0.1:
            if proto.string_val:
                proto.string_val.extend([b""] * (MILLION - len(proto.string_val)))
            else:
                proto.tensor_content = bytes(MILLION * tf.as_dtype(proto.dtype).size)
        else:  # one value, which a tensor repeats
            proto.ClearField("tensor_content")
            del proto.string_val[1:]
    return probe.call(request)


@_kinds.add("grpc: huge text", "INVALID_ARGUMENT", "OK")
def _huge_text(probe: Probe, rng: np.random.Generator) -> Outcome:
    request, name = _with_input(probe, rng)
    text = (rng.bytes(1000) if rng.random() < 0.5 else b"1|") * int(rng.integers(1, 1000))
    request.inputs[name].CopyFrom(tf.make_tensor_proto(np.array([text] * 3, object)))
    return probe.call(request)


@_kinds.add("grpc: NaN", "INVALID_ARGUMENT")
def _nan(probe: Probe, rng: np.random.Generator) -> Outcome:
    request, arrays = probe.request(rng), probe.arrays(rng)
    name = str(rng.choice([name for name, array in arrays.items() if array.dtype.kind == "f"]))
    array = arrays[name]
    array.reshape(-1)[int(rng.integers(0, array.size))] = math.nan
    request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return probe.call(request)


@_kinds.add("grpc: numbers at their ends", "INVALID_ARGUMENT", "OK")
def _extreme(probe: Probe, rng: np.random.Generator) -> Outcome:
    request = probe.request(rng)
    for name, array in probe.arrays(rng).items():
        if array.dtype.kind == "i":
            ends = np.iinfo(array.dtype)
            array[...] = rng.choice([ends.min, ends.max, -1, 0], array.shape)
        elif array.dtype.kind == "f":
            array[...] = rng.choice([math.inf, -math.inf, 3e38, 1e-45, -0.0], array.shape)
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return probe.call(request)


@_kinds.add("grpc: unknown model", "NOT_FOUND")
def _unknown_model(probe: Probe, rng: np.random.Generator) -> Outcome:
    request = probe.request(rng)
    request.model_spec.name = word(rng)
    return probe.call(request)


@_kinds.add("grpc: no model", "INVALID_ARGUMENT")
def _no_model(probe: Probe, rng: np.random.Generator) -> Outcome:
    request = probe.request(rng)
    request.ClearField("model_spec")
    return probe.call(request)


@_kinds.add("grpc: unknown version or label", "NOT_FOUND")
def _unknown_version(probe: Probe, rng: np.random.Generator) -> Outcome:
    request = probe.request(rng)
    if rng.random() < 0.5:
        request.model_spec.version.value = int(rng.integers(-(2**63), 2**63 - 1))
    else:
        request.model_spec.version_label = word(rng)
    return probe.call(request)


@_kinds.add("grpc: unknown signature or output", "INVALID_ARGUMENT")
def _unknown_signature(probe: Probe, rng: np.random.Generator) -> Outcome:
    request = probe.request(rng)
    if rng.random() < 0.5:
        request.model_spec.signature_name = word(rng)
    else:
        request.output_filter.append(word(rng))
    return probe.call(request)


@_kinds.add("grpc: hardly any time", "DEADLINE_EXCEEDED", "OK")
def _deadline(probe: Probe, rng: np.random.Generator) -> Outcome:
    return probe.call(probe.request(rng), timeout=float(rng.uniform(0.0001, 0.003)))


@_kinds.add("grpc: another method", "UNIMPLEMENTED")
def _method(probe: Probe, rng: np.random.Generator) -> Outcome:
    name = str(rng.choice(["Classify", "Regress", "MultiInference", word(rng)]))
    return probe.call(rng.bytes(20), f"/tensorflow.serving.PredictionService/{name}")


@_kinds.add("grpc: wrong metadata, status or reload request", "INVALID_ARGUMENT", "NOT_FOUND")
def _others(probe: Probe, rng: np.random.Generator) -> Outcome:
    choice = int(rng.integers(0, 4))
    if choice == 0:
        metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=[word(rng)])
        metadata.model_spec.name = probe.model
        return probe.call(metadata, METADATA)
    if choice == 1:
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = probe.model
        status.model_spec.version.value = int(rng.integers(2**62, 2**63 - 1))
        return probe.call(status, STATUS)
    if choice == 2:
        reload = model_management_pb2.ReloadConfigRequest()
        reload.config.model_config_list.config.add(name=word(rng), base_path="/")
        return probe.call(reload, RELOAD)
    return probe.call(b"\x00" + rng.bytes(50), STATUS)


def _with_input(probe: Probe, rng: np.random.Generator) -> tuple[predict_pb2.PredictRequest, str]:
    return probe.request(rng), input_name(probe, rng)


GRPC_KINDS: tuple[Kind, ...] = tuple(_kinds)
