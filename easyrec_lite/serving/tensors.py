"""NumPy arrays as tensors of TensorFlow's C API, and back.

Short strings are written as a tensor lays them out (`TF_TString` of tensorflow/core/platform/ctstring_internal.h, the
same since TensorFlow 2.4), all of a column at once: a call of the C API for each can cost more than running the model.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

STRING = tf.string.as_datatype_enum

_STRING_SIZE = 24  # sizeof(TF_TString)
_INLINE = 22  # the longest string that fits into it

_VOID, _INT, _SIZE, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_int64
_DEALLOCATOR = ctypes.CFUNCTYPE(None, _VOID, _SIZE, _VOID)
# Result and arguments of functions of tensorflow/c/{c_api,tf_tensor,tf_tstring}.h. Short ones keep the interpreter's
# lock; to give it up and take it again would cost more than they do.
_SHORT: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "TF_NewGraph": (_VOID, ()),
    "TF_NewSessionOptions": (_VOID, ()),
    "TF_DeleteSessionOptions": (None, (_VOID,)),
    "TF_SetConfig": (None, (_VOID, ctypes.c_char_p, _SIZE, _VOID)),
    "TF_NewBuffer": (_VOID, ()),
    "TF_NewBufferFromString": (_VOID, (ctypes.c_char_p, _SIZE)),
    "TF_DeleteBuffer": (None, (_VOID,)),
    "TF_NewStatus": (_VOID, ()),
    "TF_DeleteStatus": (None, (_VOID,)),
    "TF_GetCode": (_INT, (_VOID,)),
    "TF_Message": (ctypes.c_char_p, (_VOID,)),
    "TF_GraphOperationByName": (_VOID, (_VOID, ctypes.c_char_p)),
    "TF_AllocateTensor": (_VOID, (_INT, _VOID, _INT, _SIZE)),
    "TF_NewTensor": (_VOID, (_INT, _VOID, _INT, _VOID, _SIZE, _DEALLOCATOR, _VOID)),
    "TF_DeleteTensor": (None, (_VOID,)),
    "TF_TensorType": (_INT, (_VOID,)),
    "TF_TensorData": (_VOID, (_VOID,)),
    "TF_TensorByteSize": (_SIZE, (_VOID,)),
    "TF_NumDims": (_INT, (_VOID,)),
    "TF_Dim": (_LONG, (_VOID, _INT)),
    "TF_StringCopy": (None, (_VOID, ctypes.c_char_p, _SIZE)),
    "TF_StringDealloc": (None, (_VOID,)),
    "TF_StringGetDataPointer": (_VOID, (_VOID,)),
    "TF_StringGetSize": (_SIZE, (_VOID,)),
}
_LONG_RUNNING: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "TF_LoadSessionFromSavedModel": (_VOID, (_VOID, _VOID, ctypes.c_char_p, _VOID, _INT, _VOID, _VOID, _VOID)),
    "TF_SessionRun": (None, (_VOID, _VOID, _VOID, _VOID, _INT, _VOID, _VOID, _INT, _VOID, _INT, _VOID, _VOID)),
    "TF_CloseSession": (None, (_VOID, _VOID)),
    "TF_DeleteSession": (None, (_VOID, _VOID)),
    "TF_DeleteGraph": (None, (_VOID,)),
}


class _Library:
    """The functions of TensorFlow's C API that are used here, from the library that Python has loaded already."""

    def __init__(self) -> None:
        folder = Path(tf.sysconfig.get_lib())
        path = next((path for suffix in (".so*", "*.dylib") for path in folder.glob(f"libtensorflow_cc{suffix}")), None)
        if path is None:
            raise ImportError(f"{folder}: found no libtensorflow_cc; expected TensorFlow's own wheel.")
        for library, functions in (
            (ctypes.PyDLL(str(path)), _SHORT),
            (ctypes.CDLL(str(path)), _LONG_RUNNING),
        ):
            for name, (result, arguments) in functions.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
                setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name}: not declared here.")


api = _Library()


def to_tensor(array: np.ndarray, dtype: int) -> int:
    """A new tensor; whoever calls deletes it.

    Args:
        array: numbers of the type, or an object array of bytes.
        dtype: a value of TensorFlow's DataType.
    """
    shape = (ctypes.c_int64 * max(array.ndim, 1))(*array.shape)
    if dtype == STRING:
        content, long = _layout(array.reshape(-1).tolist())
        if long:
            address = content.ctypes.data
            _kept[address] = content, long
            return int(api.TF_NewTensor(dtype, shape, array.ndim, address, content.nbytes, _free_texts, None))
    else:
        content = np.ascontiguousarray(array)
    tensor = api.TF_AllocateTensor(dtype, shape, array.ndim, content.nbytes)
    if content.nbytes:
        ctypes.memmove(api.TF_TensorData(tensor), content.ctypes.data, content.nbytes)
    return int(tensor)


def _layout(values: list[bytes]) -> tuple[np.ndarray, list[int]]:
    """Strings as uint8 `[N, 24]`, and the places of those that own memory elsewhere."""
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    result = np.zeros((len(values), _STRING_SIZE), np.uint8)
    result[:, 0] = lengths << 2  # of a short one; two bits, zeros, say so
    result[:, 1 : 1 + _INLINE] = np.array(values, f"S{_INLINE}").view(np.uint8).reshape(-1, _INLINE)
    long = np.flatnonzero(lengths > _INLINE).tolist()
    result[long] = 0  # what TF_StringInit would do
    for place in long:
        api.TF_StringCopy(result.ctypes.data + place * _STRING_SIZE, values[place], len(values[place]))
    return result, long


# Tensors with long strings by their address: the model may keep a tensor for longer than the request lasts, so they are
# freed when TensorFlow says.
_kept: dict[int, tuple[np.ndarray, list[int]]] = {}


@_DEALLOCATOR
def _free_texts(address: int, size: int, argument: None) -> None:
    _, long = _kept.pop(address)
    for place in long:
        api.TF_StringDealloc(address + place * _STRING_SIZE)


def to_array(tensor: int) -> np.ndarray:
    """A tensor's values, copied; strings as an object array of bytes."""
    shape = [api.TF_Dim(tensor, axis) for axis in range(api.TF_NumDims(tensor))]
    data, dtype = api.TF_TensorData(tensor), api.TF_TensorType(tensor)
    if dtype != STRING:
        content = ctypes.string_at(data, api.TF_TensorByteSize(tensor)) if data else b""
        return np.frombuffer(content, tf.as_dtype(dtype).as_numpy_dtype).reshape(shape)
    result = np.empty(int(np.prod(shape)), object)
    for place in range(len(result)):
        text = data + place * _STRING_SIZE
        result[place] = ctypes.string_at(api.TF_StringGetDataPointer(text), api.TF_StringGetSize(text))
    return result.reshape(shape)
