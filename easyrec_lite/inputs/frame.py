"""pandas DataFrames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
import pyarrow as pa

from easyrec_lite.inputs.errors import InputError
from easyrec_lite.inputs.parquet import table_block
from easyrec_lite.inputs.position import Identity
from easyrec_lite.inputs.rows import Block, Rows
from easyrec_lite.inputs.schema import find_arrow, resolve
from easyrec_lite.protos import data_pb2

_BLOCK_ROWS = 65536


class FrameRows(Rows):
    """Reads the wanted columns of a DataFrame; cells may be numbers, text, times, or lists of these.

    Args:
        config: The data_config; only its input_fields matter.
        frame: The rows; its index doesn't matter.
        columns: The wanted columns; None means the declared ones, or all.

    Raises:
        ConfigError: A wanted column isn't there, or can't be read as declared.
        InputError: The frame is empty, or a column mixes types.
    """

    def __init__(
        self, config: data_pb2.DatasetConfig, frame: pd.DataFrame, columns: Sequence[str] | None = None
    ) -> None:
        if not len(frame):
            raise InputError("the DataFrame", "no rows", "rows to read")
        available = [str(name) for name in frame.columns]
        private = {field.input_name for field in config.input_fields if field.private}
        arrays: dict[str, pa.Array] = {}
        for name in dict.fromkeys(columns or [field.input_name for field in config.input_fields] or available):
            if available.count(name) == 1:
                arrays[name] = _to_arrow(frame.iloc[:, available.index(name)], name, name in private)
        table = pa.table(arrays)
        specs = resolve(config, available, columns, find_arrow(table.schema, "the DataFrame"), "the DataFrame")
        self._table = table.select(list(specs)).combine_chunks()
        super().__init__(specs, ["DataFrame"], Identity.of([", ".join(available)], [len(frame)]))

    @property
    def num_rows(self) -> int:
        """Rows of the frame."""
        return len(self._table)

    def blocks(self, file: int, offset: int = 0, line: int = 0) -> Iterator[Block]:
        """Reads from a row on; see `Rows.blocks`."""
        row = offset
        for batch in self._table.slice(offset).to_batches(max_chunksize=_BLOCK_ROWS):
            yield table_block(batch, row)
            row += len(batch)


def _to_arrow(series: pd.Series, name: str, private: bool) -> pa.Array:
    try:
        array = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        detail = "" if private else f" ({str(error).splitlines()[0][:200]})"  # it shows a value
        hint = f"convert it first, for example with frame[{name!r}].astype(str)"
        raise InputError(
            f"the DataFrame's column {name!r}", f"mixed types{detail}", "one type a column", hint
        ) from None
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
