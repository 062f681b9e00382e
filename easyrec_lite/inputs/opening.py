"""The right source for a config and its paths."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.inputs.bad_rows import BadRows
from easyrec_lite.inputs.frame import FrameRows
from easyrec_lite.inputs.parquet import ParquetRows
from easyrec_lite.inputs.paths import Paths
from easyrec_lite.inputs.rows import Rows
from easyrec_lite.inputs.text import TextRows
from easyrec_lite.inputs.windowed import WindowedSource
from easyrec_lite.protos import data_pb2

_Type = data_pb2.DatasetConfig
_Opener = Callable[[data_pb2.DatasetConfig, Paths, Sequence[str] | None], Rows]
_OPENERS: dict[int, _Opener] = {
    _Type.CSVInput: TextRows,
    _Type.CSVInputV2: TextRows,
    _Type.CSVInputEx: TextRows,
    _Type.ParquetInput: ParquetRows,
    _Type.ParquetInputV2: ParquetRows,
    _Type.ParquetInputV3: ParquetRows,
    _Type.HiveParquetInput: ParquetRows,
    _Type.KafkaInput: TextRows,  # files beside a topic hold its messages, line by line
}
_PARQUET_ENDINGS = (".parquet", ".pq")


def open_source(
    data_config: data_pb2.DatasetConfig,
    data: Paths | pd.DataFrame,
    *,
    columns: Sequence[str] | None = None,
    batch_size: int | None = None,
    shuffle: bool | None = None,
    seed: int = 1,
    epochs: int | None = 1,
    drop_remainder: bool = False,
    bad_rows: BadRows | None = None,
    required: Collection[str] = (),
    keep: Sequence[str] = (),
    types: Mapping[str, str] | None = None,
) -> WindowedSource:
    """Opens files or a DataFrame.

    The format is that of `data_config.input_type`; files ending in .parquet or .pq are Parquet in any case, and without
    an input_type all others are text.

    Args:
        data_config: Format, fields, and the defaults of what follows.
        data: A path, a pattern, a comma list, a sequence of these, or a DataFrame.
        columns: The columns to read, for example those of features, labels and weights; None means the declared ones,
            or all of the file if none is declared.
        batch_size: Rows a batch; None means data_config.batch_size.
        shuffle: None means data_config.shuffle. Windows have max(shuffle_window, shuffle_buffer_size) rows.
        seed: Seed of the shuffling.
        epochs: How often to read everything; None means for ever.
        drop_remainder: Leave the very last batch out if it is short.
        bad_rows: Where unusable rows go; None only counts and logs them, within data_config.max_bad_row_share.
        required: The columns without which a row can't be used, such as those of labels; it is then a bad row.
        keep: Columns to hand on beside `columns`, as they are read: `RawBatch.kept`.
        types: What to read columns as that the config doesn't declare, by name, such as what training read; the others
            are what the data suggests. Text without a header has no such columns.

    Raises:
        ConfigError: Columns or types don't fit the data, or the input type isn't read here; all problems at once.
        InputError: Files that aren't there or can't be read.
    """
    wanted = columns if columns is None else list(dict.fromkeys([*columns, *keep]))
    if isinstance(data, pd.DataFrame):
        rows: Rows = FrameRows(_declared(data_config, types or {}), data, wanted)
    else:
        opener = _opener(data_config, data)
        by_place = opener is TextRows and not data_config.with_header
        rows = opener(data_config if by_place else _declared(data_config, types or {}), data, wanted)
    declared = {field.input_name for field in data_config.input_fields}
    # For messages: what is wrong with a cell may be its type, which nobody declared.
    rows.specs |= {name: replace(spec, declared=name in declared) for name, spec in rows.specs.items()}
    return WindowedSource(
        rows,
        batch_size=data_config.batch_size if batch_size is None else batch_size,
        window=max(data_config.shuffle_window, data_config.shuffle_buffer_size, 1),
        shuffle=data_config.shuffle if shuffle is None else shuffle,
        seed=seed,
        epochs=epochs,
        drop_remainder=drop_remainder,
        bad_rows=bad_rows if bad_rows is not None else BadRows.from_config(data_config),
        required=required,
        keep=keep,
        columns=columns,
    )


def _declared(config: data_pb2.DatasetConfig, types: Mapping[str, str]) -> data_pb2.DatasetConfig:
    """The config with fields for the columns in `types` that it doesn't declare."""
    declared = data_pb2.DatasetConfig()
    declared.CopyFrom(config)
    for name in types.keys() - {field.input_name for field in config.input_fields}:
        declared.input_fields.add(input_name=name, input_type=_Type.FieldType.Value(types[name]))
    return declared


def _opener(config: data_pb2.DatasetConfig, paths: Paths) -> _Opener:
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    parts = [part for path in given for part in os.fspath(path).split(",") if part.strip()]
    if parts and all(part.strip().endswith(_PARQUET_ENDINGS) for part in parts):
        return ParquetRows
    if not config.HasField("input_type"):
        return TextRows
    if (opener := _OPENERS.get(config.input_type)) is None:
        names = ", ".join(_Type.InputType.Name(type_) for type_ in _OPENERS)
        found = _Type.InputType.Name(config.input_type)
        raise ConfigError([Problem("data_config.input_type", found, f"for files, one of {names}")])
    return opener
