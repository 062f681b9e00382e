"""The inputs of a request, checked against the signature before anything is allocated for them or run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from easyrec_lite.serving.failures import invalid
from easyrec_lite.serving.loaded import Signature

# Where a TensorProto has its values, by type, if not as bytes in tensor_content.
_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int64: "int64_val",
    tf.string: "string_val",
    tf.bool: "bool_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    **dict.fromkeys((tf.int32, tf.int16, tf.int8, tf.uint16, tf.uint8), "int_val"),
    **dict.fromkeys((tf.float16, tf.bfloat16), "half_val"),
}
_SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
        rows: of an input whose number of rows is free.
        bytes: of a request as it is sent, and of each of its tensors.
        nan: whether float inputs may hold NaN. A ranking by NaN is none, so it is refused unless the model is known to
            make sense of it.
    """

    rows: int = 10_000
    bytes: int = 32 * 2**20
    nan: bool = False


def check_names(signature: Signature, given: Sequence[str]) -> None:
    """Refuses a request that does not have exactly the inputs of the signature.

    Raises:
        RequestError: names what is missing and what is too many.
    """
    missing = [name for name in signature.inputs if name not in given]
    extra = [name for name in given if name not in signature.inputs]
    if missing or extra:
        found = [f"{text} {_names(names)}" for text, names in (("missing", missing), ("unknown", extra)) if names]
        expected = _names(list(signature.inputs), shown=50)
        raise invalid(f"Inputs of signature {signature.name!r}: found {'; '.join(found)}; expected exactly {expected}.")


def check_outputs(signature: Signature, names: Sequence[str]) -> list[str] | None:
    """The outputs that a filter asks for, each once; None for all of them.

    Raises:
        RequestError: the signature lacks some.
    """
    if unknown := [name for name in names if name not in signature.outputs]:
        expected = _names(signature.outputs, shown=50)
        raise invalid(
            f"output_filter: found {_names(unknown)}; expected outputs of signature {signature.name!r}: {expected}."
        )
    return list(dict.fromkeys(names)) or None


def from_protos(signature: Signature, protos: Mapping[str, Any], limits: Limits) -> dict[str, np.ndarray]:
    """Arrays by name from TensorProtos by name.

    Raises:
        RequestError: names, types, shapes or numbers of values are wrong.
    """
    check_names(signature, list(protos))
    return {name: _from_proto(spec, protos[name], limits) for name, spec in signature.inputs.items()}


def _from_proto(spec: tf.TensorSpec, proto: Any, limits: Limits) -> np.ndarray:
    where = f"Input {spec.name!r}"
    if proto.dtype != spec.dtype.as_datatype_enum:
        raise invalid(f"{where}: found type {_type_name(proto.dtype)}; expected {spec.dtype.name}.")
    if proto.tensor_shape.unknown_rank:
        raise invalid(f"{where}: found a shape of unknown rank; expected the sizes of the values, {_shape(spec)}.")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    check_shape(spec, shape, limits)
    if spec.dtype == tf.string and proto.tensor_content:
        raise invalid(f"{where}: found strings in tensor_content; expected them in string_val.")
    field = _FIELDS.get(spec.dtype)
    if wrong := [found.name for found, _ in proto.ListFields() if found.name.endswith("_val") and found.name != field]:
        raise invalid(f"{where}: found values in {wrong[0]}; expected those of {spec.dtype.name} in {field}.")
    try:
        # TF's own rules: the last value is repeated for those left out. `check_shape` bounds how often.
        array = tf.make_ndarray(proto)
    except (ValueError, TypeError):
        elements = math.prod(shape)
        raise invalid(f"{where}: its values don't fit its shape {list(shape)}; expected {elements:,} values.") from None
    if spec.dtype == tf.string and array.dtype != object:
        array = np.full(shape, b"", object)  # what make_ndarray calls a tensor of strings without any
    check_values(spec, array, limits)
    return array


def check_shape(spec: tf.TensorSpec, shape: Sequence[int], limits: Limits) -> None:
    """Refuses shapes that the signature or the limits forbid.

    Raises:
        RequestError: names the input and what it expects.
    """
    where, found = f"Input {spec.name!r}", "[" + ", ".join(f"{size:,}" for size in shape) + "]"
    if any(size < 0 for size in shape):
        raise invalid(f"{where}: found shape {found}; expected sizes of at least 0, {_shape(spec)}.")
    if spec.shape.rank is not None:
        fits = len(shape) == spec.shape.rank and all(
            wanted in (None, size) for wanted, size in zip(spec.shape.as_list(), shape, strict=True)
        )
        if not fits:
            raise invalid(f"{where}: found shape {found}; expected {_shape(spec)}.")
    if shape and shape[0] > limits.rows:
        raise invalid(
            f"{where}: found {shape[0]:,} rows; expected at most {limits.rows:,}. Send them in several requests."
        )
    most = limits.bytes // (1 if spec.dtype == tf.string else spec.dtype.size)
    if math.prod(shape) > most:
        raise invalid(f"{where}: found shape {found}, {math.prod(shape):,} values; expected at most {most:,}.")


def check_values(spec: tf.TensorSpec, array: np.ndarray, limits: Limits) -> None:
    """Refuses NaN, unless it is allowed, and too much text.

    Raises:
        RequestError: names the input and the place.
    """
    if spec.dtype.is_floating and not limits.nan and array.size:
        wrong = np.isnan(array.astype(np.float32) if spec.dtype == tf.bfloat16 else array)
        if wrong.any():
            place = [int(index) for index in np.argwhere(wrong)[0]]
            raise invalid(f"Input {spec.name!r}: found NaN at {place}; expected a number.")
    if spec.dtype == tf.string:
        # A tensor repeats its last value, so it may hold more than was sent.
        size = sum(map(len, array.reshape(-1).tolist()))
        if size > limits.bytes:
            raise invalid(f"Input {spec.name!r}: found {size:,} bytes of text; expected at most {limits.bytes:,}.")


def _shape(spec: tf.TensorSpec) -> str:
    if spec.shape.rank is None:
        return "any shape"
    return "[" + ", ".join("N" if size is None else str(size) for size in spec.shape.as_list()) + "]"


def _type_name(number: int) -> str:
    if number == 0:
        return "none (dtype is not set)"
    try:
        return str(tf.as_dtype(number).name)
    except TypeError:
        return f"number {number}"


def _names(names: Sequence[str], shown: int = _SHOWN) -> str:
    text = ", ".join(repr(name[:60]) for name in names[:shown])
    return text if len(names) <= shown else f"{text} and {len(names) - shown} more"
