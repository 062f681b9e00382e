"""A source as a tf.data.Dataset.

A batch crosses from Python to TensorFlow as a few arrays and strings, which the graph cuts into columns again: a call
of Python per batch, not per column, and no Python string per cell. Text is joined by a byte that it doesn't hold and
split by `StringSplitV2`.

Measured (2 cores, TF 2.21), CPU time a batch of 4,096 rows: of the ways to make tf.string tensors of 20 Arrow columns
of short text, this one took 2.8 ms, Python bytes objects 4.6, a serialised TensorProto with `tf.io.parse_tensor` 10.
For 20 columns of numbers and two of lists (ten values a row), shuffling took 0.8 ms, packing 0.2, `from_generator`
0.5, and unpacking 0.5; decoding Parquet comes on top. `tools.bench.inputs` measures the whole.
"""

from __future__ import annotations

import atexit
import inspect
import itertools
import time
import weakref
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from easyrec_lite.inputs.batch import HasJson, Ragged, RawBatch
from easyrec_lite.inputs.errors import InputError
from easyrec_lite.inputs.schema import ColumnSpec, Kind
from easyrec_lite.inputs.source import Source

# What text is joined by: rare bytes first; pairs of unequal bytes can't overlap themselves, so they split safely too.
_SINGLES = [bytes([byte]) for byte in (0x1F, 0x1E, 0x1D, 0x1C, 0x00, 0x01, 0x02, 0x03, 0xFF, 0xFE)]
_FAILURES: weakref.WeakKeyDictionary[Source, InputError] = weakref.WeakKeyDictionary()
_READING: weakref.WeakKeyDictionary[Generator[_Packed, None, None], Source] = weakref.WeakKeyDictionary()
_IN_PYTHON = (inspect.GEN_RUNNING, inspect.GEN_CLOSED)
_END_SECONDS, _QUIET_SECONDS = 10.0, 0.1


def _end_reading() -> None:
    """Ends all reading, and waits until TensorFlow's threads have left Python.

    At its end the interpreter destroys what iterators are left, and so waits for their threads: for one that waits for
    rows, for ever; and a thread that comes back to the interpreter by then is stopped where it is, and never comes.
    """
    for source in list(_READING.values()):
        source.close()
    end = quiet = time.monotonic()
    end += _END_SECONDS
    while time.monotonic() < min(end, quiet + _QUIET_SECONDS) and _READING:
        # One that has ended goes when TensorFlow has said goodbye to it; one that is neither is left in peace.
        if any(inspect.getgeneratorstate(rows) in _IN_PYTHON for rows in list(_READING)):
            quiet = time.monotonic()
        time.sleep(0.005)


atexit.register(_end_reading)


def as_dataset(
    source: Source,
    start: HasJson | str | None = None,
    *,
    prefetch: int = 4,
    details: bool = False,
) -> tf.data.Dataset:
    """Reads a source in a background thread, a few batches ahead.

    Args:
        source: The source. Read it in one place at a time.
        start: The position to start from, as `Source.read` takes it. It is also where a second iteration starts.
        prefetch: Batches kept ready, beside the windows that the source itself holds.
        details: Add a third element, what else is known of a batch.

    Returns:
        A dataset of `(columns, position)`: `columns` maps names to int64, float32 or string tensors of shape `[B]`, or
        ragged ones `[B, None]`; `position` is the JSON of the next row to read after the batch, a string scalar. With
        `details`, `Details` follow.

    Raises:
        InputError: The start doesn't fit. What goes wrong later ends the iteration with a `tf.errors.OpError`, after
            the batches that could still be read; iterate within `input_errors(source)` to get the InputError.
    """
    specs = dict(source.columns)
    source.read(start)  # a start that doesn't fit is refused here, not in the background

    def generate() -> Generator[_Packed, None, None]:
        _FAILURES.pop(source, None)
        try:
            for batch in source.read(start):
                yield _pack(batch, specs)
        except InputError as error:
            _FAILURES[source] = error
            raise

    def begin() -> Generator[_Packed, None, None]:
        rows = generate()
        _READING[rows] = source
        return rows

    def unpack(packed: _Packed) -> tuple[Any, ...]:
        columns, position, more = _unpack(specs, packed)
        return (columns, position, more) if details else (columns, position)

    dataset = tf.data.Dataset.from_generator(begin, output_signature=_signature(len(specs)))
    # There is no Python control flow in it to convert; looking for some takes a second.
    unpack = tf.autograph.experimental.do_not_convert(unpack)
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


class Details(NamedTuple):
    """What is known of a batch beside its rows.

    Attributes:
        missing: Missing cells of each column, int64 scalars.
        event_time: `RawBatch.event_time`, float64 scalar.
    """

    missing: dict[str, tf.Tensor]
    event_time: tf.Tensor


class _Packed(NamedTuple):
    """A batch in few pieces; columns of one kind are stacked, so that unstacking them shares their memory."""

    ints: Any  # int64 [single int columns, B]
    floats: Any  # float32 [single float columns, B]
    text: Any  # the cells of all single text columns, column by column
    splits: Any  # int64 [ragged columns, B + 1]
    ragged_ints: Any  # int64 [N], the values of all ragged int columns, column by column
    ragged_floats: Any  # float32 [N]
    ragged_text: Any  # as `text`, with one empty value after the last, so that no value is told from an empty one
    separators: Any  # string [2]: what `text` and `ragged_text` are joined by
    position: Any  # string scalar
    missing: Any  # int64 [columns]
    event_time: Any  # float64 scalar


def _signature(columns: int) -> _Packed:
    ints, floats = tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.float32)
    stacked_ints, stacked_floats = tf.TensorSpec([None, None], tf.int64), tf.TensorSpec([None, None], tf.float32)
    text, texts, counts = (
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([2], tf.string),
        tf.TensorSpec([columns], tf.int64),
    )
    time = tf.TensorSpec([], tf.float64)
    return _Packed(stacked_ints, stacked_floats, text, stacked_ints, ints, floats, text, texts, text, counts, time)


def _pack(batch: RawBatch, specs: Mapping[str, ColumnSpec]) -> _Packed:
    single: dict[Kind, list[Any]] = {kind: [] for kind in Kind}
    ragged: dict[Kind, list[Any]] = {kind: [] for kind in Kind}
    splits: list[np.ndarray] = []
    for name, spec in specs.items():
        column = batch.columns[name]
        if isinstance(column, Ragged):
            splits.append(column.row_splits)
            ragged[spec.kind].append(column.values)
        else:
            single[spec.kind].append(column)
    text, separator = _join(single[Kind.TEXT])
    ragged_text, ragged_separator = _join([*ragged[Kind.TEXT], pa.array([""], pa.string())])
    return _Packed(
        np.stack(single[Kind.INT]) if single[Kind.INT] else np.zeros([0, batch.rows], np.int64),
        np.stack(single[Kind.FLOAT]) if single[Kind.FLOAT] else np.zeros([0, batch.rows], np.float32),
        text,
        np.stack(splits) if splits else np.zeros([0, batch.rows + 1], np.int64),
        np.concatenate(ragged[Kind.INT]) if ragged[Kind.INT] else np.zeros(0, np.int64),
        np.concatenate(ragged[Kind.FLOAT]) if ragged[Kind.FLOAT] else np.zeros(0, np.float32),
        ragged_text,
        np.array([separator, ragged_separator], object),
        batch.position.to_json(),
        np.array([batch.missing.get(name, 0) for name in specs], np.int64),
        np.float64(batch.event_time),
    )


def _unpack(
    specs: Mapping[str, ColumnSpec], packed: _Packed
) -> tuple[dict[str, tf.Tensor | tf.RaggedTensor], tf.Tensor, Details]:
    single = {kind: [name for name, spec in specs.items() if spec.kind is kind and not spec.ragged] for kind in Kind}
    ragged = {kind: [name for name, spec in specs.items() if spec.kind is kind and spec.ragged] for kind in Kind}
    all_ragged = [name for name, spec in specs.items() if spec.ragged]
    splits = dict(zip(all_ragged, tf.unstack(packed.splits, len(all_ragged)), strict=True))

    stacked = {Kind.INT: packed.ints, Kind.FLOAT: packed.floats}
    if single[Kind.TEXT]:
        shape = [len(single[Kind.TEXT]), tf.shape(packed.ints)[1]]
        # Split, an empty text is one empty cell; it is none where there are no rows. (From 0, a slice shares memory.)
        stacked[Kind.TEXT] = tf.reshape(_split(packed.text, packed.separators[0])[: shape[0] * shape[1]], shape)
    flat = {Kind.INT: packed.ragged_ints, Kind.FLOAT: packed.ragged_floats}
    if ragged[Kind.TEXT]:
        flat[Kind.TEXT] = _split(packed.ragged_text, packed.separators[1])

    columns: dict[str, tf.Tensor | tf.RaggedTensor] = {}
    for kind in Kind:
        if single[kind]:
            columns |= zip(single[kind], tf.unstack(stacked[kind], len(single[kind])), strict=True)
        if ragged[kind]:
            sizes = [splits[name][-1] for name in ragged[kind]] + [tf.constant(1, tf.int64)] * (kind is Kind.TEXT)
            for name, values in zip(ragged[kind], tf.split(flat[kind], sizes), strict=False):
                columns[name] = tf.RaggedTensor.from_row_splits(values, splits[name], validate=False)
    missing = dict(zip(specs, tf.unstack(packed.missing, len(specs)), strict=True))
    return {name: columns[name] for name in specs}, packed.position, Details(missing, packed.event_time)


def _split(joined: tf.Tensor, separator: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.StringSplitV2(input=joined[None], sep=separator).values


def _join(texts: list[pa.Array]) -> tuple[bytes, bytes]:
    """Joins the cells of text columns by a separator that none of them holds, and gives that too."""
    if not texts or not sum(map(len, texts)):
        return b"", _SINGLES[0]
    flat = pa.concat_arrays(texts).cast(pa.binary())
    data = flat.buffers()[2]
    content = data.to_pybytes() if data is not None else b""
    separator = next(mark for mark in itertools.chain(_SINGLES, _pairs()) if mark not in content)
    rows = pa.ListArray.from_arrays(pa.array([0, len(flat)], pa.int32()), flat)
    return pc.binary_join(rows, separator)[0].as_py(), separator


def _pairs() -> Iterator[bytes]:
    return (bytes([one, two]) for one in range(256) for two in range(256) if one != two)
