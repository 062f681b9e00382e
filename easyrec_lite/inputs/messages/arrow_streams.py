"""Messages of Arrow: an IPC stream of record batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from easyrec_lite.config import ConfigError
from easyrec_lite.inputs.messages.decoder import Cut, Decoder, Part
from easyrec_lite.inputs.schema import find_arrow

# All-null columns take no bytes a row: without a limit, a few damaged bytes could claim any number of rows.
_MAX_ROWS_A_BYTE = 8
_MARK = b"\xff\xff\xff\xff"


class ArrowDecoder(Decoder):
    """Reads IPC streams; the rows of a message are those of all its record batches.

    The schemas of messages may differ in the order of their columns, in columns that nobody asked for, in the widths of
    numbers and in dictionaries. A column that isn't there is missing in every row. Buffers may be compressed.
    """

    def _cut(self, values: Sequence[bytes | None]) -> Cut:
        cut = Cut()
        alike: list[_Alike] = []
        # By the bytes of the schema, for most messages begin with the same ones; with it where it is all it takes.
        seen: dict[bytes, tuple[_Alike, pa.Schema | None]] = {}
        for number, value in enumerate(values):
            if not value:
                cut.spoil(number, "no value" if value is None else "an empty message")
                continue
            try:
                header = value[: _header_size(value)]
                group, plain = seen.get(header, (None, None))
                batches = _read(value, plain, len(header))
                if group is None:
                    schema = batches[0].schema
                    group = next((group for group in alike if group.schema.equals(schema)), None)
                    if group is None:
                        alike.append(group := _Alike(schema, self._wanted(schema)))
                    seen[header] = group, schema if _is_plain(schema, header) else None
                group.add(number, batches)
            except _UnreadableError as error:
                cut.spoil(number, str(error), column=error.column)
            except UnicodeDecodeError:
                cut.spoil(number, "names of columns that aren't UTF-8")
        cut.parts += [group.part() for group in alike]
        return cut

    def _wanted(self, schema: pa.Schema) -> list[str]:
        """The decoder's columns that a message has; raises _UnreadableError where they can't be used."""
        names = [name for name in self.specs if name in set(schema.names)]
        find = find_arrow(schema, "the message")
        for name in names:
            if len(schema.get_all_field_indices(name)) > 1:
                raise _UnreadableError("is there more than once", name)
            if pa.types.is_null(schema.field(name).type):
                continue
            expected = "lists" if self.specs[name].ragged else "single values"
            try:
                if find(name).ragged == self.specs[name].ragged:
                    continue
            except ConfigError:
                pass
            raise _UnreadableError(f"holds {str(schema.field(name).type)[:100]}, expected {expected}", name)
        return names


class _UnreadableError(Exception):
    def __init__(self, reason: str, column: str | None = None) -> None:
        super().__init__(reason)
        self.column = column


class _Alike:
    """Messages of one schema."""

    def __init__(self, schema: pa.Schema, names: Sequence[str]) -> None:
        self.schema, self._names = schema, names
        self._batches: list[pa.RecordBatch] = []
        self._numbers: list[int] = []
        self._rows: list[int] = []

    def add(self, number: int, batches: Sequence[pa.RecordBatch]) -> None:
        self._batches += batches
        self._numbers.append(number)
        self._rows.append(sum(len(batch) for batch in batches))

    def part(self) -> Part:
        table = pa.Table.from_batches(self._batches).select(self._names)
        if not any(map(_has_dictionary, table.schema.types)):
            table = table.combine_chunks()  # all columns in one call: it costs a fifth of as many calls
        columns = {name: _joined(column) for name, column in zip(self._names, table.columns, strict=True)}
        rows = np.array(self._rows)
        first = np.cumsum(rows) - rows
        return Part(columns, np.repeat(self._numbers, rows), np.arange(rows.sum()) - np.repeat(first, rows))


def _has_dictionary(type_: pa.DataType) -> bool:
    return pa.types.is_dictionary(type_) or (pa.types.is_nested(type_) and pa.types.is_dictionary(type_.value_type))


def _joined(column: pa.ChunkedArray) -> pa.Array:
    """The column of all messages; each has its own dictionaries, which together may be too many for their indices."""
    if pa.types.is_dictionary(column.type):
        column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks])
    elif _has_dictionary(column.type):
        column = column.cast(pa.list_(column.type.value_type.value_type))
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _is_plain(schema: pa.Schema, header: bytes) -> bool:
    """Whether a schema is all it takes to read rows: no dictionaries, and numbers in the order of this machine's bytes.

    A schema that was read says nothing of that order; but if it were the other one, this machine would write another.
    """
    return all(map(_is_plain_type, schema.types)) and schema.serialize().to_pybytes() == header


def _is_plain_type(type_: pa.DataType) -> bool:
    item = type_.value_type if pa.types.is_list(type_) else type_
    return any(is_one(item) for is_one in (pa.types.is_primitive, pa.types.is_string, pa.types.is_binary))


def _header_size(value: bytes) -> int:
    """The length of the first part of a stream, its schema: a mark, the length of the rest, and the rest."""
    at = len(_MARK) if value.startswith(_MARK) else 0  # Arrow before 0.15 had none
    return at + 4 + max(0, int.from_bytes(value[at : at + 4], "little", signed=True))


def _read(value: bytes, schema: pa.Schema | None, header: int) -> list[pa.RecordBatch]:
    """All record batches of a stream.

    Every buffer is checked: those of a damaged one may point anywhere.

    Args:
        value: The stream.
        schema: Its schema, if that is known; to read it again costs as much as reading the rows of a small message.
        header: The bytes that it takes.
    """
    source = pa.BufferReader(value)
    batches = []
    try:
        for batch in _stream(source) if schema is None else _rest(source, schema, header):
            batch.validate(full=True)
            batches.append(batch)
    except (pa.ArrowException, OSError, ValueError):
        # Their text is left out: it may quote the message.
        raise _UnreadableError("isn't a whole and sound Arrow IPC stream") from None
    if source.tell() < source.size():
        raise _UnreadableError("bytes after the end of the Arrow IPC stream")
    rows = sum(len(batch) for batch in batches)
    if not 0 < rows <= _MAX_ROWS_A_BYTE * len(value):
        raise _UnreadableError("more rows than bits" if rows else "a stream without rows")
    return batches


def _stream(source: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_stream(source) as stream:
        yield from stream


def _rest(source: pa.NativeFile, schema: pa.Schema, header: int) -> Iterator[pa.RecordBatch]:
    """What follows a schema that is known."""
    source.seek(header)
    while True:
        try:
            message = pa.ipc.read_message(source)
        except EOFError:
            return
        yield pa.ipc.read_record_batch(message, schema)
