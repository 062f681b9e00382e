"""Messages of TensorFlow: a serialised tf.Example, or several, each after its length."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import tensorflow as tf
from google.protobuf.message import DecodeError

from easyrec_lite.inputs.messages.decoder import Cut, Decoder, Part
from easyrec_lite.inputs.rows import RawColumn
from easyrec_lite.inputs.schema import ColumnSpec, Kind

_MISMATCH = re.compile(r"Key: (.*), Index: \d+\.  Data types don't match", re.DOTALL)
_SAMPLE = 8  # Examples that show as which of the three types a feature is written
_DTYPES = {"int64_list": tf.int64, "float_list": tf.float32, "bytes_list": tf.string}
_USUAL = {Kind.INT: tf.int64, Kind.FLOAT: tf.float32, Kind.TEXT: tf.string}
_FEATURES_TAG = b"\n"
_LONGEST = 5  # bytes of a length of 32 bits as a varint


class ExampleDecoder(Decoder):
    """Reads tf.Examples, a row each.

    A message is one Example, or several, each after its length as a varint (what `writeDelimitedTo` of Java's protobuf
    and `serialize_length_prefixed` of Python's write). A feature may be of any of the three types, as long as its
    values can be read as declared. One without values is missing, and so is an empty list: tf.Example can't tell them
    apart. A single value is expected where no list is declared.
    """

    chunk = 1024

    def _cut(self, values: Sequence[bytes | None]) -> Cut:
        cut = Cut()
        rows: list[_Row] = []
        for number, value in enumerate(values):
            frames = [value] if value is not None and _is_one(value) else _frames(value or b"")
            if not frames:
                reason = "neither a tf.Example nor several, each after its length" if value else "an empty message"
                cut.spoil(number, "no value" if value is None else reason)
            for index, text in enumerate(frames):
                try:
                    # For all of them, since TensorFlow's faster parser also takes some that were cut short.
                    example = tf.train.Example.FromString(text)
                except DecodeError:
                    cut.spoil(number, "isn't a whole tf.Example", index if len(frames) > 1 else None)
                else:
                    rows.append(_Row(number, index, text, example))
        if rows:
            self._read(rows, cut)
        return cut

    def _read(self, rows: Sequence[_Row], cut: Cut) -> None:
        """Reads Examples at once, but for those that stop TensorFlow's parser or hold several values for one."""
        dtypes = {name: self._written_as(spec, rows[:_SAMPLE]) for name, spec in self.specs.items()}
        together, apart = list(rows), list[_Row]()
        while together:
            try:
                columns, single = self._columns([row.text for row in together], dtypes)
            except (tf.errors.InvalidArgumentError, UnicodeDecodeError) as error:  # its text may quote any bytes
                match = _MISMATCH.search(str(error))
                name = match[1] if match else ""
                fits = [name in dtypes and row.dtype(name) in (None, dtypes[name]) for row in together]
                if all(fits):
                    fits = [False] * len(together)
                apart += itertools.compress(together, np.logical_not(fits))
                together = list(itertools.compress(together, fits))
                continue
            if not single.all():
                apart += itertools.compress(together, ~single)
                together = list(itertools.compress(together, single))
                columns = {name: column.filter(pa.array(single)) for name, column in columns.items()}
            cut.parts.append(_part(columns, together))
            break
        if apart:
            cells: dict[str, RawColumn] = {name: [row.cell(spec) for row in apart] for name, spec in self.specs.items()}
            cut.parts.append(_part(cells, apart))

    def _columns(
        self, texts: Sequence[bytes], dtypes: Mapping[str, tf.DType]
    ) -> tuple[dict[str, pa.Array], np.ndarray]:
        """The columns of Examples, and which have at most one value where one is expected."""
        values, splits = _parse(texts, dtypes)
        columns: dict[str, pa.Array] = {}
        single = np.ones(len(texts), bool)
        for (name, spec), flat, ends in zip(self.specs.items(), values, splits, strict=True):
            array = pa.array(flat, pa.binary() if flat.dtype == object else None)
            lengths = np.diff(ends)
            if spec.ragged:
                missing = pa.array(lengths == 0)
                columns[name] = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), array, mask=missing)
            else:
                columns[name] = array if np.all(lengths == 1) else array.take(pa.array(ends[:-1], mask=lengths == 0))
                single &= lengths <= 1
        return columns, single

    @staticmethod
    def _written_as(spec: ColumnSpec, rows: Sequence[_Row]) -> tf.DType:
        """The type to ask TensorFlow for: it takes a feature only if it is written as one of the three."""
        dtypes = Counter(dtype for row in rows if (dtype := row.dtype(spec.name)) is not None)
        if spec.kind is Kind.TEXT:  # a float32 is spelt with fewer digits than a float64 of that value
            dtypes.pop(tf.float32, None)
        return max(dtypes, key=dtypes.__getitem__, default=_USUAL[spec.kind])


@dataclass(slots=True)
class _Row:
    """One Example: its message, its index there, and its bytes."""

    message: int
    index: int
    text: bytes
    example: tf.train.Example

    def dtype(self, name: str) -> tf.DType | None:
        """The type that a feature is written as; None where it isn't there."""
        features = self.example.features.feature
        kind = features[name].WhichOneof("kind") if name in features else None
        return _DTYPES[kind] if kind else None

    def cell(self, spec: ColumnSpec) -> object:
        """The value of a feature; a list of them if one is declared, or if there are several; None if there is none."""
        if spec.name not in self.example.features.feature:
            return None
        feature = self.example.features.feature[spec.name]
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else []
        if not values:
            return None
        return values if spec.ragged or len(values) > 1 else values[0]


def _part(columns: Mapping[str, RawColumn], rows: Sequence[_Row]) -> Part:
    message = np.array([row.message for row in rows], np.int64)
    return Part(columns, message, np.array([row.index for row in rows], np.int64))


def _parse(texts: Sequence[bytes], dtypes: Mapping[str, tf.DType]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The values of each feature, flat, and where those of each row begin and end.

    This is `tf.io.parse_example` with a RaggedFeature for each column, without what it takes to make ragged tensors.
    """
    nothing = tf.constant([], tf.string)
    with tf.device("CPU"):
        parsed = tf.raw_ops.ParseExampleV2(
            serialized=tf.constant(texts, tf.string),
            names=nothing,
            sparse_keys=nothing,
            dense_keys=nothing,
            ragged_keys=tf.constant(list(dtypes), tf.string),
            dense_defaults=[],
            num_sparse=0,
            sparse_types=[],
            ragged_value_types=list(dtypes.values()),
            ragged_split_types=[tf.int32] * len(dtypes),
            dense_shapes=[],
        )
    return [flat.numpy() for flat in parsed.ragged_values], [ends.numpy() for ends in parsed.ragged_row_splits]


def _is_one(value: bytes) -> bool:
    """Whether bytes are one Example to all appearances: field 1, the features, and no byte more."""
    return value[:1] == _FEATURES_TAG and (found := _length(value, 1)) is not None and sum(found) == len(value)


def _frames(value: bytes) -> list[bytes]:
    """Examples that stand each after its length; none if that isn't what the message holds.

    That each begins as an Example does is asked for because a message that was cut short may well pass for a sequence
    of lengths and bytes.
    """
    frames: list[bytes] = []
    at = 0
    while at < len(value):
        if (found := _length(value, at)) is None:
            return []
        at, length = found
        frames.append(value[at : at + length])
        if not _is_one(frames[-1]):
            return []
        at += length
    return frames


def _length(value: bytes, at: int) -> tuple[int, int] | None:
    """The end of the varint at a place, and its number."""
    length = 0
    for shift, byte in enumerate(value[at : at + _LONGEST]):
        length |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return at + shift + 1, length
    return None
