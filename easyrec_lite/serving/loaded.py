"""One version of a model, loaded by TensorFlow's C++ loader: the one that TF Serving builds on.

Of the ways that Python has to run a SavedModel this one stops the other requests least: while a graph is loaded or
freed the interpreter's lock is not held. `tf.compat.v1.saved_model.load` builds the graph in Python and leaves it to
the garbage collector; `tf.saved_model.load` needs two to three times as long for a request.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from easyrec_lite.serving.failures import LoadError, from_tensorflow, invalid
from easyrec_lite.serving.tensors import api, to_array, to_tensor

_INIT_OP = "__saved_model_init_op"
# TensorFlow keeps an executor for each choice of outputs; clients must not make it keep any number of them.
_CHOICES = 32


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


class _Buffer(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p))


class Signature:
    """A function of the model: its inputs and outputs by name, resolved in the graph.

    Attributes:
        name: of the signature.
        definition: the SignatureDef.
        inputs: specs by name; a shape of unknown rank is one.
        outputs: names, sorted.
    """

    def __init__(self, name: str, definition: Any, output_of: Any) -> None:
        self.name, self.definition = name, definition
        self.inputs = {
            key: tf.TensorSpec(tf.TensorShape(info.tensor_shape), tf.as_dtype(info.dtype), key)
            for key, info in sorted(definition.inputs.items())
        }
        self.outputs = sorted(definition.outputs)
        self.feeds = (_Output * len(self.inputs))(*(output_of(definition.inputs[key].name) for key in self.inputs))
        self._fetch = {key: output_of(definition.outputs[key].name) for key in self.outputs}
        self._choices: dict[tuple[str, ...], Any] = {}
        self._lock = threading.Lock()
        self.fetches(self.outputs)

    def fetches(self, names: Sequence[str]) -> tuple[tuple[str, ...], Any]:
        """What to fetch so that the outputs of `names` are among it, and its names."""
        chosen = tuple(sorted(names))
        with self._lock:
            if chosen not in self._choices:
                if len(self._choices) == _CHOICES:
                    chosen = tuple(self.outputs)
                else:
                    self._choices[chosen] = (_Output * len(chosen))(*(self._fetch[name] for name in chosen))
            return chosen, self._choices[chosen]


class LoadedModel:
    """The signatures of a SavedModel in a C++ session; safe to run from several threads at a time.

    Args:
        path: a version folder.
        config: threads and the like of the session.

    Attributes:
        signatures: by name.

    Raises:
        LoadError: nothing that can be loaded is there.
    """

    def __init__(self, path: Path, config: tf.compat.v1.ConfigProto | None = None) -> None:
        self.path = path
        self._session = None
        self._graph = api.TF_NewGraph()
        try:
            meta_graph = self._load(path, config or tf.compat.v1.ConfigProto())
            self.signatures = {
                name: Signature(name, definition, functools.partial(self._output, name))
                for name, definition in meta_graph.signature_def.items()
                if name != _INIT_OP
            }
        except BaseException:
            self.close()
            raise

    def _load(self, path: Path, config: Any) -> Any:
        options, buffer, status = api.TF_NewSessionOptions(), api.TF_NewBuffer(), api.TF_NewStatus()
        try:
            content = config.SerializeToString()
            api.TF_SetConfig(options, content, len(content), status)
            tags = (ctypes.c_char_p * 1)(tf.saved_model.SERVING.encode())
            self._session = api.TF_LoadSessionFromSavedModel(
                options, None, str(path).encode(), tags, 1, self._graph, buffer, status
            )
            if api.TF_GetCode(status):
                raise LoadError(f"{path}: {from_tensorflow(api.TF_GetCode(status), _message(status))}")
            found = ctypes.cast(buffer, ctypes.POINTER(_Buffer)).contents
            meta_graph = tf.compat.v1.MetaGraphDef.FromString(ctypes.string_at(found.data, found.length))
        except DecodeError as error:
            raise LoadError(f"{path}: the graph can't be read ({error}).") from None
        finally:
            api.TF_DeleteBuffer(buffer)
            api.TF_DeleteSessionOptions(options)
            api.TF_DeleteStatus(status)
        # TensorFlow takes such a folder for a model without variables, and fails when it is asked.
        has_variables = any(node.op == "VarHandleOp" for node in meta_graph.graph_def.node)
        if has_variables and not (path / "variables" / "variables.index").exists():
            raise LoadError(f"{path}: found no variables/variables.index; expected the model's variables.")
        return meta_graph

    def signature(self, name: str) -> Signature:
        """The signature of that name.

        Raises:
            RequestError: there is none.
        """
        if name not in self.signatures:
            known = ", ".join(sorted(self.signatures))
            raise invalid(f"Signature {name!r}: found no such signature; expected one of {known}.")
        return self.signatures[name]

    def run(
        self,
        signature: Signature,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]:
        """The outputs, by name.

        Args:
            signature: one of this model's.
            inputs: an array of the right type for each input; strings as object arrays of bytes.
            outputs: names of those to compute; all if None.
            timeout: seconds after which TensorFlow gives up.

        Raises:
            RequestError: TensorFlow's verdict, such as that of a failed check.
        """
        names, fetches = signature.fetches(signature.outputs if outputs is None else outputs)
        results = (ctypes.c_void_p * len(names))()
        tensors: list[int] = []
        status = api.TF_NewStatus()
        options = _run_options(timeout)
        try:
            for name, spec in signature.inputs.items():
                tensors.append(to_tensor(inputs[name], spec.dtype.as_datatype_enum))
            given = (ctypes.c_void_p * len(tensors))(*tensors)
            api.TF_SessionRun(
                self._session, options, signature.feeds, given, len(tensors), fetches, results, len(names), None, 0,
                None, status,
            )  # fmt: skip
            if code := api.TF_GetCode(status):
                raise from_tensorflow(code, _message(status))
            found = {name: to_array(result) for name, result in zip(names, results, strict=True)}
            return found if outputs is None else {name: found[name] for name in outputs}
        finally:
            for tensor in (*tensors, *filter(None, results)):
                api.TF_DeleteTensor(tensor)
            api.TF_DeleteStatus(status)
            if options is not None:
                api.TF_DeleteBuffer(options)

    def __call__(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """All outputs for values by name, of whatever type; those that the signature does not take are left out.

        Raises:
            RequestError: no such signature, or TensorFlow's verdict.
            KeyError: an input is missing.
        """
        return self.request(signature, inputs)()

    def request(self, signature: str, inputs: Mapping[str, Any]) -> Callable[[], dict[str, np.ndarray]]:
        """A request that can be sent again and again, its values converted once; see `__call__`."""
        asked = self.signature(signature)
        arrays = {name: _as_array(inputs[name], spec.dtype) for name, spec in asked.inputs.items()}
        return functools.partial(self.run, asked, arrays)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def cancel(self) -> None:
        """Ends what runs, with the status CANCELLED, and lets nothing run any more."""
        if self._session is not None:
            status = api.TF_NewStatus()
            api.TF_CloseSession(self._session, status)
            api.TF_DeleteStatus(status)

    def close(self) -> None:
        """Frees the session with its variables; nothing may run on it any more."""
        if self._session is not None:
            status = api.TF_NewStatus()
            api.TF_CloseSession(self._session, status)
            api.TF_DeleteSession(self._session, status)
            api.TF_DeleteStatus(status)
            self._session = None
        if self._graph is not None:
            api.TF_DeleteGraph(self._graph)
            self._graph = None

    def _output(self, signature: str, tensor_name: str) -> _Output:
        name, _, index = tensor_name.partition(":")
        operation = api.TF_GraphOperationByName(self._graph, name.encode())
        if operation is None:
            raise LoadError(f"{self.path}: signature {signature!r} names {tensor_name!r}, which the graph lacks.")
        return _Output(operation, int(index or 0))


def _as_array(values: Any, dtype: tf.DType) -> np.ndarray:
    if dtype != tf.string:
        return np.asarray(values, dtype.as_numpy_dtype)
    array = np.asarray(values, object)
    texts = [value if isinstance(value, bytes) else str(value).encode() for value in array.reshape(-1)]
    result = np.empty(len(texts), object)
    result[:] = texts
    return result.reshape(array.shape)


def _message(status: Any) -> str:
    text: str = api.TF_Message(status).decode(errors="replace")
    return text


def _run_options(timeout: float | None) -> Any:
    if timeout is None:
        return None
    # At least one: 0 means no limit.
    content = tf.compat.v1.RunOptions(timeout_in_ms=max(1, int(timeout * 1000))).SerializeToString()
    return api.TF_NewBufferFromString(content, len(content))
