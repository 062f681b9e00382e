"""Tensors as TF Serving's REST interface writes them: rows (`instances`) or columns (`inputs`) of JSON.

The forms are those of https://www.tensorflow.org/tfx/serving/api_rest: nested lists, text or `{"b64": "..."}` for
strings, `NaN`, `Infinity` and `-Infinity` for floats.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from easyrec_lite.serving.failures import invalid
from easyrec_lite.serving.loaded import Signature
from easyrec_lite.serving.server.inputs import Limits, check_names, check_shape, check_values

_MOST_DIGITS = 40
_DEEPEST = 32  # ranks of a tensor that NumPy can handle


def read_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        RequestError: it is none.
    """
    try:
        found = json.loads(body, parse_int=_integer)
    except RecursionError:
        raise invalid("JSON: found lists or objects nested too deeply; expected a few levels.") from None
    except UnicodeDecodeError as error:
        raise invalid(f"JSON: found bytes that are no UTF-8 ({error.reason} at {error.start}).") from None
    except ValueError as error:
        raise invalid(f"JSON: can't be read ({error}).") from None
    if not isinstance(found, dict):
        raise invalid(f'JSON: found {_kind(found)}; expected an object {{"instances": [...]}} or {{"inputs": ...}}.')
    return found


def signature_name(body: Mapping[str, Any]) -> str:
    """The signature that a request names; serving_default if it names none.

    Raises:
        RequestError: it is no text.
    """
    name = body.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(f"signature_name: found {_kind(name)}; expected text.")
    return name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY


def read_inputs(body: Mapping[str, Any], signature: Signature, limits: Limits) -> dict[str, np.ndarray]:
    """Arrays by name from `instances` or `inputs`.

    Raises:
        RequestError: neither or both are there, or what they hold does not fit the signature.
    """
    if ("instances" in body) == ("inputs" in body):
        found = "both" if "inputs" in body else "neither"
        raise invalid(f"JSON: found {found} of 'instances' and 'inputs'; expected one of them.")
    columns = _columns(body["instances"], signature) if "instances" in body else body["inputs"]
    if not isinstance(columns, dict):
        columns = {_only_input(signature, "inputs"): columns}
    check_names(signature, list(columns))
    return {name: to_array(columns[name], spec, limits) for name, spec in signature.inputs.items()}


def _columns(rows: Any, signature: Signature) -> dict[str, Any]:
    """Rows as columns."""
    if not isinstance(rows, list) or not rows:
        raise invalid(f"instances: found {'no rows' if rows == [] else _kind(rows)}; expected a list of rows.")
    if not isinstance(rows[0], dict) or set(rows[0]) == {"b64"}:
        return {_only_input(signature, "instances"): rows}
    names = list(rows[0])
    check_names(signature, names)
    for place, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != rows[0].keys():
            found = f"the inputs {', '.join(row)}" if isinstance(row, dict) else _kind(row)
            raise invalid(f"instances[{place}]: found {found}; expected, as in instances[0], {', '.join(names)}.")
    return {name: [row[name] for row in rows] for name in names}


def _only_input(signature: Signature, where: str) -> str:
    if len(signature.inputs) != 1:
        raise invalid(f"{where}: found values without names; expected them by name: {', '.join(signature.inputs)}.")
    return next(iter(signature.inputs))


def to_array(value: Any, spec: tf.TensorSpec, limits: Limits) -> np.ndarray:
    """An array of the spec's type from nested lists.

    Raises:
        RequestError: lists of different lengths, values of other types or out of range, forbidden shapes.
    """
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        size = len(level[0])
        if len(shape) == _DEEPEST or not all(isinstance(part, list) and len(part) == size for part in level):
            raise invalid(
                f"Input {spec.name!r}: found lists of different lengths or depths at level {len(shape)};"
                " expected the same throughout."
            )
        shape.append(size)
        level = [item for part in level for item in part]
    check_shape(spec, shape, limits)
    convert, accepted = _converter(spec.dtype)
    try:
        values = [convert(item) for item in level]
    except (TypeError, ValueError):
        place, item = next((place, item) for place, item in enumerate(level) if not _converts(convert, item))
        text = f" {str(item)[:30]}" if isinstance(item, int | float | str) else ""
        raise invalid(f"Input {spec.name!r}, value {place}: found {_kind(item)}{text}; expected {accepted}.") from None
    try:
        if spec.dtype == tf.string:
            array = np.empty(len(values), object)
            array[:] = values
        else:
            with np.errstate(over="raise"):
                array = np.array(values, spec.dtype.as_numpy_dtype)
    except (OverflowError, FloatingPointError):
        raise invalid(f"Input {spec.name!r}: found a number out of the range of {spec.dtype.name}.") from None
    array = array.reshape(shape)
    check_values(spec, array, limits)
    return array


def _converter(dtype: tf.DType) -> tuple[Callable[[Any], Any], str]:
    if dtype == tf.string:
        return _text, 'text or {"b64": ...}'
    if dtype == tf.bool:
        return _boolean, "true or false"
    if dtype.is_integer:
        return _whole, f"a whole number ({dtype.name})"
    if dtype.is_floating:
        return _number, f"a number ({dtype.name})"
    raise invalid(f"Inputs of type {dtype.name} can't be sent as JSON; use gRPC.")


def _converts(convert: Callable[[Any], Any], item: Any) -> bool:
    try:
        convert(item)
    except (TypeError, ValueError):
        return False
    return True


def _text(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error as error:
            raise ValueError from error
    raise TypeError


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError
    return float(value) if isinstance(value, int) else value


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    kinds = {bool: "true or false", list: "a list", str: "text", type(None): "null", int: "a number", float: "a number"}
    return kinds.get(type(value), type(value).__name__)


def write_predictions(outputs: Mapping[str, np.ndarray], *, as_rows: bool) -> bytes:
    """The JSON of an answer: `predictions`, a list of rows, or `outputs`, by column; one output goes without its name.

    Raises:
        RequestError: rows are wanted, and the outputs have different numbers of them.
    """
    values = {name: _jsonable(name, array) for name, array in outputs.items()}
    only = next(iter(values.values())) if len(values) == 1 else None
    if not as_rows:
        return json.dumps({"outputs": values if only is None else only}).encode()
    counts = {name: array.shape[0] if array.ndim else None for name, array in outputs.items()}
    if None in counts.values() or len(set(counts.values())) != 1:
        raise invalid(
            f"The outputs have different numbers of rows ({counts}), so there is no row for each instance;"
            " send 'inputs' in place of 'instances'."
        )
    if only is not None:
        return json.dumps({"predictions": only}).encode()
    rows = zip(*values.values(), strict=True)
    return json.dumps({"predictions": [dict(zip(values, row, strict=True)) for row in rows]}).encode()


def _jsonable(name: str, array: np.ndarray) -> Any:
    if array.dtype != object:
        return array.astype(np.float32).tolist() if array.dtype.kind == "V" else array.tolist()
    # As TF Serving does it: text, but for names that end so, base64.
    texts = np.empty(array.size, object)
    texts[:] = [_json_text(value, binary=name.endswith("_bytes")) for value in array.reshape(-1).tolist()]
    return texts.reshape(array.shape).tolist()


def _json_text(value: bytes, *, binary: bool) -> Any:
    if not binary:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    return {"b64": base64.b64encode(value).decode()}
