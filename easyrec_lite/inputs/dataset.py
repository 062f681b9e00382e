"""A source as a tf.data.Dataset.

A batch crosses from Python to TensorFlow as one int64 vector, one float32 vector and one string, which the graph cuts
into columns again: a call of Python per batch, not per column, and no Python string per cell. Text is joined by a byte
that it doesn't hold and split by `StringSplitV2`. tools/bench/inputs.py measures it; of the ways to make a tf.string
tensor of Arrow text (2 CPU cores, 20 columns of 4,096 short strings) this one took 2.8 ms, Python bytes objects 4.6, a
serialised TensorProto with `tf.io.parse_tensor` 10.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from easyrec_lite.inputs.batch import Column, HasJson, Ragged, RawBatch
from easyrec_lite.inputs.errors import InputError
from easyrec_lite.inputs.schema import ColumnSpec, Kind
from easyrec_lite.inputs.source import Source

# What text is joined by: rare bytes first; pairs of unequal bytes can't overlap themselves, so they split safely too.
_SINGLES = [bytes([byte]) for byte in (0x1F, 0x1E, 0x1D, 0x1C, 0x00, 0x01, 0x02, 0x03, 0xFF, 0xFE)]
_FAILURES: weakref.WeakKeyDictionary[Source, InputError] = weakref.WeakKeyDictionary()

Packed = tuple[np.ndarray, np.ndarray, bytes, bytes, np.ndarray, str, np.ndarray]


def as_dataset(
    source: Source,
    start: HasJson | str | None = None,
    *,
    prefetch: int = 4,
    with_missing: bool = False,
) -> tf.data.Dataset:
    """Reads a source in a background thread, a few batches ahead.

    Args:
        source: The source. Read it in one place at a time.
        start: The position to start from, as `Source.read` takes it. It is also where a second iteration starts.
        prefetch: Batches kept ready, beside the windows that the source itself holds.
        with_missing: Add the number of missing cells of each column.

    Returns:
        A dataset of `(columns, position)`: `columns` maps names to int64, float32 or string tensors of shape `[B]`, or
        ragged ones `[B, None]`; `position` is the JSON of the next row to read after the batch, a string scalar. With
        `with_missing`, a third element maps the same names to int64 scalars.

    Raises:
        InputError: The start doesn't fit. What goes wrong later ends the iteration with a `tf.errors.OpError`, after
            the batches that could still be read; iterate within `input_errors(source)` to get the InputError.
    """
    specs = dict(source.columns)
    source.read(start)  # a start that doesn't fit is refused here, not in the background

    def generate() -> Iterator[Packed]:
        _FAILURES.pop(source, None)
        try:
            for batch in source.read(start):
                yield _pack(batch, specs)
        except InputError as error:
            _FAILURES[source] = error
            raise

    signature = (
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([None], tf.float32),
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([len(specs)], tf.int64),
    )

    def unpack(*packed: tf.Tensor) -> tuple[Any, ...]:
        columns, position, missing = _unpack(specs, *packed)
        return (columns, position, missing) if with_missing else (columns, position)

    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    return dataset.map(unpack, num_parallel_calls=1, deterministic=True).prefetch(prefetch)


@contextmanager
def input_errors(source: Source) -> Iterator[None]:
    """Turns the TensorFlow error that ends a dataset of this source into the InputError that caused it.

    Example:
        >>> with input_errors(source):
        ...     for columns, position in as_dataset(source):
        ...         ...
    """
    try:
        yield
    except tf.errors.OpError:
        failure = _FAILURES.pop(source, None)
        if failure is None:
            raise
        raise failure from None


def _pack(batch: RawBatch, specs: Mapping[str, ColumnSpec]) -> Packed:
    ints: list[np.ndarray] = []
    floats: list[np.ndarray] = []
    texts: list[pa.Array] = []
    for name, spec in specs.items():
        column: Column = batch.columns[name]
        if isinstance(column, Ragged):
            ints.append(column.row_splits)
            column = column.values
        if spec.kind is Kind.TEXT:
            texts.append(column)
        else:
            (ints if spec.kind is Kind.INT else floats).append(column)
    joined, separator = _join(texts)
    sizes = np.array([len(part) for part in (*ints, *floats, *texts)], np.int64)
    missing = np.array([batch.missing.get(name, 0) for name in specs], np.int64)
    return (
        np.concatenate(ints) if ints else np.zeros(0, np.int64),
        np.concatenate(floats) if floats else np.zeros(0, np.float32),
        joined,
        separator,
        sizes,
        batch.position.to_json(),
        missing,
    )


def _unpack(
    specs: Mapping[str, ColumnSpec],
    ints: tf.Tensor,
    floats: tf.Tensor,
    joined: tf.Tensor,
    separator: tf.Tensor,
    sizes: tf.Tensor,
    position: tf.Tensor,
    missing: tf.Tensor,
) -> tuple[dict[str, tf.Tensor | tf.RaggedTensor], tf.Tensor, dict[str, tf.Tensor]]:
    counts = {kind: sum(spec.kind is kind for spec in specs.values()) for kind in Kind}
    counts[Kind.INT] += sum(spec.ragged for spec in specs.values())
    parts: dict[Kind, list[tf.Tensor]] = {}
    first = 0
    for kind, flat in ((Kind.INT, ints), (Kind.FLOAT, floats), (Kind.TEXT, None)):
        count, last = counts[kind], first + counts[kind]
        if flat is None and count:
            # The text ends with one more separator, so that no text at all is told from one empty text.
            flat = tf.raw_ops.StringSplitV2(input=joined[None], sep=separator).values[:-1]
        parts[kind] = list(tf.split(flat, sizes[first:last], num=count)) if count else []
        first = last
    columns: dict[str, tf.Tensor | tf.RaggedTensor] = {}
    for name, spec in specs.items():
        splits = parts[Kind.INT].pop(0) if spec.ragged else None
        values = parts[spec.kind].pop(0)
        columns[name] = values if splits is None else tf.RaggedTensor.from_row_splits(values, splits, validate=False)
    return columns, position, dict(zip(specs, tf.unstack(missing, len(specs)), strict=True))


def _join(texts: list[pa.Array]) -> tuple[bytes, bytes]:
    if not texts:
        return b"", _SINGLES[0]
    flat = pa.concat_arrays([*texts, pa.array([""], pa.string())]).cast(pa.binary())
    data = flat.buffers()[2]
    content = data.to_pybytes() if data is not None else b""
    separator = next(mark for mark in itertools.chain(_SINGLES, _pairs()) if mark not in content)
    rows = pa.ListArray.from_arrays(pa.array([0, len(flat)], pa.int32()), flat)
    return pc.binary_join(rows, separator)[0].as_py(), separator


def _pairs() -> Iterator[bytes]:
    return (bytes([one, two]) for one in range(256) for two in range(256) if one != two)
