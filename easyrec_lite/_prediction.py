"""Predictions for files of any size, written whole or not at all."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import tensorflow as tf

from easyrec_lite.checkpoints import atomic_path
from easyrec_lite.errors import UserError
from easyrec_lite.inputs import ColumnSpec, HasJson, RawBatch, Source, WindowedSource, as_dataset, input_errors
from easyrec_lite.models import Recommender

PARQUET_ENDINGS = (".parquet", ".pq")


class _Writer(Protocol):
    def write_table(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


class _Keeping(Source):
    """A source whose kept columns wait in a queue, batch by batch, while TensorFlow has the others."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.kept: deque[pa.RecordBatch | None] = deque()

    @property
    def columns(self) -> Mapping[str, ColumnSpec]:
        return self._source.columns

    def read(self, start: HasJson | str | None = None) -> Iterator[RawBatch]:
        for batch in self._source.read(start):
            self.kept.append(batch.kept)
            yield batch

    def close(self) -> None:
        self._source.close()


def predictions(
    recommender: Recommender, source: WindowedSource
) -> Iterator[tuple[dict[str, pa.Array], dict[str, np.ndarray]]]:
    """Kept columns and predictions by name, batch by batch, in the order of the rows.

    Args:
        recommender: restored.
        source: reads the feature columns, unshuffled, and keeps those to hand on.
    """
    keeping = _Keeping(source)
    dataset = as_dataset(keeping).map(
        tf.autograph.experimental.do_not_convert(lambda columns, _: recommender.encode(columns, targets=False))
    )
    predict = tf.function(recommender.predict, input_signature=[dataset.element_spec], autograph=False)
    with input_errors(keeping):
        for batch in dataset.prefetch(2):
            values = {name: value.numpy() for name, value in predict(batch).items()}
            kept = keeping.kept.popleft()
            yield {} if kept is None else dict(zip(kept.schema.names, kept.columns, strict=True)), values


def refuse_same_names(kept: Collection[str], predicted: Collection[str]) -> None:
    """Raises UserError if a column to hand on has the name of a prediction beside it."""
    if same := sorted(set(kept) & set(predicted)):
        raise UserError(
            f"Columns to hand on: found {same}, names of predictions; expected other names. Leave them out, rename them"
            " in the input, or choose other predictions (--output_cols)."
        )


def write_predictions(
    rows: Iterator[tuple[dict[str, pa.Array], dict[str, np.ndarray]]],
    path: Path,
    *,
    outputs: Sequence[str] | None = None,
    separator: str = ",",
    with_header: bool = True,
) -> int:
    """Writes kept columns and predictions to one file; returns the number of rows.

    Args:
        rows: as from `predictions`.
        path: ends in `.parquet` or `.pq` for Parquet; anything else is text.
        outputs: the predictions to write, in this order; None = all.
        separator: between the cells of text.
        with_header: the first line of text names the columns.

    Raises:
        UserError: an output that the model doesn't have, or one with the name of a kept column.
    """
    count = 0
    with atomic_path(path) as temporary, contextlib.ExitStack() as stack:
        writer: _Writer | None = None
        for kept, values in rows:
            names = list(outputs) if outputs is not None else list(values)
            refuse_same_names(kept, names)
            if missing := [name for name in names if name not in values]:
                raise UserError(f"--output_cols: the model has no {missing}; it predicts {sorted(values)}")
            table = pa.table({**kept, **{name: _column(values[name]) for name in names}})
            if path.suffix not in PARQUET_ENDINGS:
                table = _as_text(table)
            if writer is None:
                writer = stack.enter_context(contextlib.closing(_open(temporary, table.schema, separator, with_header)))
            writer.write_table(table)
            count += table.num_rows
        if writer is None:
            raise UserError("The input has no usable rows: nothing is written.")
    return count


def _open(path: Path, schema: pa.Schema, separator: str, with_header: bool) -> _Writer:
    if path.suffix in PARQUET_ENDINGS:
        return pq.ParquetWriter(path, schema)
    options = pa_csv.WriteOptions(include_header=with_header, delimiter=separator, quoting_style="needed")
    return pa_csv.CSVWriter(path, schema, write_options=options)


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return _text(values)
    flat = pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, int(np.prod(values.shape[1:])))


def _text(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.binary()).cast(pa.string()) if values.dtype == object else pa.array(values)


def _is_list(type_: pa.DataType) -> bool:
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


def _joined(values: list[object] | None) -> str | None:
    return None if values is None else ",".join(map(_item, values))


def _item(value: object) -> str:
    if isinstance(value, bytes):  # as other writers than ours leave text in Parquet
        return value.decode("utf-8", "backslashreplace")
    return "" if value is None else str(value)


def _as_text(table: pa.Table) -> pa.Table:
    """Lists as text, numbers joined by commas, as EasyRec writes vectors."""
    columns: Mapping[str, pa.Array] = {
        name: pa.array(map(_joined, table[name].to_pylist()), pa.string())
        if _is_list(table[name].type)
        else table[name]
        for name in table.column_names
    }
    return pa.table(columns)
