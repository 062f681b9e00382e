"""What a checkpoint looks like on disk.

    <model_dir>/checkpoints/step-000000001000/
        manifest.json                 what is in the other files, with checksums, and everything that is not a tensor
        packed.npys                   the small tensors, one .npy record after the other
        00007-user_id_table.npy       one big tensor, an ordinary .npy file

`np.load` reads the `.npy` files, and `packed.npys` record by record from one open file. Nothing is pickled.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

FORMAT = "easyrec_lite checkpoint"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
PACKED = "packed.npys"

_NAME = re.compile(r"step-(\d{12,})")


class Tensor(Protocol):
    """A named array that can be read and written in ranges of rows (axis 0); a scalar counts as one row.

    Ranges keep the memory of a save or a restore small however big a table is, and let a table whose rows are laid
    out otherwise (weights beside optimizer state, shards) appear here under its logical name and shape.
    """

    @property
    def name(self) -> str:
        """Unique among the tensors of a checkpoint; any text."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[rows, ...], or [] for a scalar."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """A number, bool or fixed-width bytes or text; no objects."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows `start` to `stop` as [stop - start, ...]; a scalar is read by (0, 1) as [] or [1]."""

    def write(self, start: int, array: np.ndarray) -> None:
        """Replace the rows from `start` on by `array` [n, ...]; a scalar is written by (0, array of shape [])."""


@dataclass(frozen=True)
class NumpyTensor:
    """A `Tensor` over a NumPy array, which `write` changes in place."""

    name: str
    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The array's dtype."""
        return self.array.dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return a view of the rows."""
        return self.array[start:stop] if self.array.ndim else self.array

    def write(self, start: int, array: np.ndarray) -> None:
        """Replace rows in place."""
        if self.array.ndim:
            self.array[start : start + len(array)] = array
        else:
            self.array[()] = array


@dataclass(frozen=True)
class Record:
    """Where one tensor lies: an .npy record of `size` bytes at `offset` of `file`, checksum over all its bytes."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    file: str
    offset: int
    size: int
    crc32: int

    @property
    def rows(self) -> int:
        """Length of axis 0; 1 for a scalar."""
        return self.shape[0] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def data_offset(self) -> int:
        """Where the values begin in the file, after the .npy header."""
        return self.offset + self.size - self.rows * self.row_bytes

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's form."""
        return {**vars(self), "dtype": dtype_name(self.dtype), "shape": list(self.shape)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        """Read the manifest's form; ValueError, KeyError or TypeError if it is none."""
        record = cls(
            name=str(values["name"]),
            dtype=parse_dtype(values["dtype"]),
            shape=tuple(int(size) for size in values["shape"]),
            file=str(values["file"]),
            offset=int(values["offset"]),
            size=int(values["size"]),
            crc32=int(values["crc32"]),
        )
        if Path(record.file).name != record.file or min((*record.shape, record.offset, 0)) < 0:
            raise ValueError(f"record of {record.name!r} points outside of the checkpoint")
        if record.data_offset < record.offset:
            raise ValueError(f"record of {record.name!r} is smaller than its shape")
        return record


def directory_name(step: int) -> str:
    """Return the name of the checkpoint of `step`."""
    return f"step-{step:012d}"


def step_of(name: str) -> int | None:
    """Return the step of a checkpoint's directory name, None if it is not one."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def file_name(index: int, name: str) -> str:
    """Return the file of a big tensor: the index makes it unique, the name readable."""
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._")[-100:]
    return f"{index:05d}-{readable}.npy"


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return the name that `parse_dtype` reads; TypeError for what cannot be stored without pickling."""
    if dtype.kind in "SUMm":
        return dtype.str
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None or dtype.name.startswith("void"):
        raise TypeError(f"arrays of {dtype} cannot be stored; use numbers, bool or fixed-width text")
    return dtype.name


def parse_dtype(name: str) -> np.dtype[Any]:
    """Return the dtype of `dtype_name`; bfloat16 and its like come from ml_dtypes, which TensorFlow brings."""
    try:
        dtype = np.dtype(name)
    except TypeError:
        import ml_dtypes

        if not hasattr(ml_dtypes, name):
            raise ValueError(f"unknown dtype {name!r}") from None
        dtype = np.dtype(getattr(ml_dtypes, name))
    if dtype.hasobject:
        raise ValueError(f"dtype {name!r} cannot be stored")
    return dtype


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the little-endian dtype of the .npy record; types that .npy does not know are stored by their bits."""
    return np.dtype(f"<u{dtype.itemsize}") if dtype.kind == "V" else dtype.newbyteorder("<")


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the header of an .npy record."""
    header = io.BytesIO()
    description = np.lib.format.dtype_to_descr(stored_dtype(dtype))
    np.lib.format.write_array_header_1_0(header, {"descr": description, "fortran_order": False, "shape": shape})
    return header.getvalue()


def ranges(rows: int, row_bytes: int, chunk_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) over the rows, each range of at most `chunk_bytes`, or one row."""
    step = max(1, chunk_bytes // max(1, row_bytes))
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def to_bytes(array: np.ndarray, dtype: np.dtype[Any]) -> memoryview:
    """Return the little-endian bytes of the values, copied only if they must be."""
    stored = stored_dtype(dtype)
    array = np.ascontiguousarray(array)
    array = array.view(stored) if dtype.kind == "V" else array.astype(stored, copy=False)
    return array.reshape(-1).view(np.uint8).data


def from_bytes(data: bytearray, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Return the array of `to_bytes`, in native byte order."""
    array = np.frombuffer(data, stored_dtype(dtype))
    array = array.view(dtype) if dtype.kind == "V" else array.astype(dtype, copy=False)
    return array.reshape(shape)
