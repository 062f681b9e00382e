"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from easyrec_lite.inputs.errors import InputError
from easyrec_lite.inputs.paths import Paths, expand, identify
from easyrec_lite.inputs.rows import Block, Rows
from easyrec_lite.inputs.schema import find_arrow, resolve
from easyrec_lite.protos import data_pb2

_BLOCK_ROWS = 65536


class ParquetRows(Rows):
    """Reads the wanted columns of Parquet files, by name; an offset is a row, and whole row groups are skipped.

    Args:
        config: The data_config; only its input_fields matter.
        paths: The files; all of them need the wanted columns.
        columns: The wanted columns; None means the declared ones, or all.

    Raises:
        ConfigError: A wanted column isn't there, or can't be read as declared.
        InputError: A file isn't there, isn't Parquet, is damaged, or lacks a column that the first one has.
    """

    def __init__(self, config: data_pb2.DatasetConfig, paths: Paths, columns: Sequence[str] | None = None) -> None:
        files = expand(paths)
        self._groups: list[list[int]] = []
        for index, file in enumerate(files):
            with _errors(file), pq.ParquetFile(file) as parquet:
                schema, metadata = parquet.schema_arrow, parquet.metadata
                self._groups.append([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])
            if not index:
                specs = resolve(config, schema.names, columns, find_arrow(schema, file), file)
            for name, spec in specs.items():
                if schema.get_field_index(name) < 0:
                    hint = "all files of an input need the same columns"
                    raise InputError(file, f"no column {name!r}", f"the columns of {files[0]}", hint)
                if find_arrow(schema, file)(name).ragged != spec.ragged:
                    kinds = "lists" if spec.ragged else "single values"
                    raise InputError(
                        file, f"{schema.field(name).type} in column {name!r}", f"{kinds}, as in {files[0]}"
                    )
        super().__init__(specs, files, identify(files))

    @property
    def num_rows(self) -> int:
        """Rows of all files together."""
        return sum(map(sum, self._groups))

    def blocks(self, file: int, offset: int = 0, line: int = 0) -> Iterator[Block]:
        """Reads one file from a row on; see `Rows.blocks`."""
        ends = np.cumsum(self._groups[file], dtype=np.int64)
        first = int(np.searchsorted(ends, offset, side="right"))
        if first == len(ends):
            return
        row = int(ends[first - 1]) if first else 0
        with _errors(self.names[file]), pq.ParquetFile(self.names[file]) as parquet:
            groups = list(range(first, len(ends)))
            for batch in parquet.iter_batches(
                _BLOCK_ROWS, row_groups=groups, columns=list(self.specs), use_threads=False
            ):
                skip = min(max(0, offset - row), len(batch))
                if skip < len(batch):
                    yield table_block(batch.slice(skip), row + skip)
                row += len(batch)


def table_block(batch: pa.RecordBatch, row: int) -> Block:
    """A block of rows that have row numbers instead of lines."""
    columns = {name: batch.column(name) for name in batch.schema.names}
    return Block(columns, row, 0, [], lambda: np.arange(row + 1, row + 1 + len(batch)), lambda index: None)


@contextmanager
def _errors(file: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, pa.ArrowMemoryError | MemoryError):
            raise
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "the file may be cut short; write or copy it again"
        raise InputError(
            file, f"a file that can't be read as Parquet ({detail[:200]})", "a whole Parquet file", hint
        ) from None
