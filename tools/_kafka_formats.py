"""Rows as the values of Kafka messages: CSV, JSON, tf.Example and Arrow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from easyrec_lite.errors import UserError

FORMATS = ("csv", "json", "arrow", "tfexample")


class Format:
    """Cuts a table into messages.

    | format | one row a message | many rows a message |
    |---|---|---|
    | csv | the cells, no header, no line end | lines parted by a line feed |
    | json | an object | a list of objects |
    | arrow | an IPC stream of one record batch | the same |
    | tfexample | a serialized tf.Example | the same one after another, each after its length as a varint, which is \
what `writeDelimitedTo` of Java's and `serialize_length_prefixed` of Python's protobuf write |

    Missing cells are empty in CSV, null in JSON and Arrow, and left out of a tf.Example. The values of a list are
    joined by `list_separator` in CSV. What is no finite number is null in JSON, and NaN is empty in CSV.

    Args:
        name: One of FORMATS.
        rows_per_message: Rows in each message but perhaps the last.
        separator: What parts the cells of CSV.
        list_separator: What parts the values of a list in CSV.
    """

    def __init__(self, name: str, rows_per_message: int = 1, separator: str = ",", list_separator: str = "|"):
        if name not in FORMATS:
            raise UserError(f"format: expected one of {', '.join(FORMATS)}. Received: {name!r}")
        if rows_per_message < 1:
            raise UserError(f"rows_per_message: expected at least 1. Received: {rows_per_message}")
        self.name = name
        self.rows_per_message = rows_per_message
        self.separator = separator
        self.list_separator = list_separator

    def messages(self, table: pa.Table) -> list[bytes]:
        """The values of the messages, in order."""
        encode: Callable[[pa.Table], list[bytes]] = getattr(self, f"_{self.name}")
        return encode(table.combine_chunks())

    def _csv(self, table: pa.Table) -> list[bytes]:
        rows = _joined([self._csv_texts(name, _array(table, name)) for name in table.column_names], self.separator)
        return [b"\n".join(rows[part]) for part in self._parts(len(rows))]

    def _csv_texts(self, name: str, values: pa.Array) -> pa.Array:
        if pa.types.is_list(values.type):
            items = pc.fill_null(_cast(name, values.flatten()), "")
            texts = pc.binary_join(_relisted(values, items), self.list_separator)
        else:
            texts = _cast(name, _nan_to_null(values))
        kind = values.type.value_type if pa.types.is_list(values.type) else values.type
        return pc.fill_null(texts if pa.types.is_primitive(kind) else _mapped(texts, self._csv_cell), "")

    def _csv_cell(self, text: str) -> str:
        if "\n" in text or "\r" in text:
            raise UserError(f"csv: a cell can't hold a line's end, as {text!r} does. Take another format.")
        if self.separator not in text and (len(self.separator) != 1 or '"' not in text):
            return text
        if len(self.separator) != 1:  # readers know quotes only between separators of one character
            raise UserError(f"csv: {text!r} holds the separator {self.separator!r}. Take another separator.")
        return '"' + text.replace('"', '""') + '"'

    def _json(self, table: pa.Table) -> list[bytes]:
        cells = []
        for index, name in enumerate(table.column_names):
            before = ("{" if index == 0 else "") + json.dumps(name) + ":"
            cells.append(pc.binary_join_element_wise(before, _json_texts(name, _array(table, name)), ""))
        rows = [row + b"}" for row in _joined(cells, ",")]
        if self.rows_per_message == 1:
            return rows
        return [b"[" + b",".join(rows[part]) + b"]" for part in self._parts(len(rows))]

    def _arrow(self, table: pa.Table) -> list[bytes]:
        messages = []
        for part in self._parts(len(table)):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table.slice(part.start, part.stop - part.start))
            messages.append(sink.getvalue().to_pybytes())
        return messages

    def _tfexample(self, table: pa.Table) -> list[bytes]:
        import tensorflow as tf  # here: it takes seconds, and no other format needs it

        def entries(name: str) -> list[bytes]:
            values = _array(table, name)
            kind = values.type.value_type if pa.types.is_list(values.type) else values.type
            field, text = _example_field(name, kind), _is_text(kind)

            def entry(cell: Any) -> bytes:
                if cell is None:
                    return b""
                cells = cell if isinstance(cell, list) else [cell]
                features = tf.train.Features()
                getattr(features.feature[name], field).value.extend([one.encode() for one in cells] if text else cells)
                return features.SerializeToString()

            if pa.types.is_list(values.type):
                return [entry(cell) for cell in values.to_pylist()]
            coded = values.dictionary_encode()
            known = [entry(cell) for cell in coded.dictionary.to_pylist()]
            return [b"" if code is None else known[code] for code in coded.indices.to_pylist()]

        # Serialized messages laid end to end are one message with the fields of all.
        cells = zip(*(entries(name) for name in table.column_names), strict=True)
        texts = [b"\n" + length_prefixed(b"".join(row)) for row in cells]
        if self.rows_per_message == 1:
            return texts
        framed = [length_prefixed(text) for text in texts]
        return [b"".join(framed[part]) for part in self._parts(len(framed))]

    def _parts(self, rows: int) -> Iterator[slice]:
        for start in range(0, rows, self.rows_per_message):
            yield slice(start, min(start + self.rows_per_message, rows))


def length_prefixed(text: bytes) -> bytes:
    """The bytes after their number as a varint."""
    return varint(len(text)) + text


def varint(number: int) -> bytes:
    """A whole number as protobuf writes it: seven bits a byte, the lowest first, the top bit set but on the last."""
    code = bytearray()
    while number > 0x7F:
        code.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*code, number])


def _array(table: pa.Table, name: str) -> pa.Array:
    column = table[name]
    values = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    if pa.types.is_dictionary(values.type):
        return values.dictionary_decode()
    return values.cast(pa.list_(values.type.value_type)) if _is_other_list(values.type) else values


def _is_other_list(type_: pa.DataType) -> bool:
    return pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _joined(columns: list[pa.Array], separator: str) -> list[bytes]:
    """The rows, cell by cell, as UTF-8."""
    return pc.binary_join_element_wise(*columns, separator).cast(pa.binary()).to_pylist()


def _mapped(texts: pa.Array, change: Callable[[str], str]) -> pa.Array:
    """Each text changed, each different one once."""
    coded = texts.dictionary_encode()
    changed = pa.array([change(text) for text in coded.dictionary.to_pylist()], pa.string())
    return changed.take(coded.indices)


def _relisted(lists: pa.Array, items: pa.Array) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    splits = np.concatenate([[0], np.cumsum(lengths)])
    return pa.ListArray.from_arrays(pa.array(splits, pa.int32()), items)


def _nan_to_null(values: pa.Array) -> pa.Array:
    if not pa.types.is_floating(values.type):
        return values
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


def _cast(name: str, values: pa.Array) -> pa.Array:
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(
            f"column {name!r}: {values.type} can't be written as text. Leave it out of the columns."
        ) from error


def _json_texts(name: str, values: pa.Array) -> pa.Array:
    if pa.types.is_list(values.type):
        items = pc.binary_join(_relisted(values, _json_texts(name, values.flatten())), ",")
        texts = pc.if_else(values.is_valid(), pc.binary_join_element_wise("[", items, "]", ""), None)
    elif pa.types.is_floating(values.type):
        texts = pc.if_else(pc.is_finite(values), values.cast(pa.string()), None)
    elif pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        texts = values.cast(pa.string())
    else:
        texts = _mapped(_cast(name, values), json.dumps)
    return pc.fill_null(texts, "null")


def _example_field(name: str, type_: pa.DataType) -> str:
    if pa.types.is_integer(type_) or pa.types.is_boolean(type_):
        return "int64_list"
    if pa.types.is_floating(type_):
        return "float_list"
    if pa.types.is_string(type_) or pa.types.is_binary(type_):
        return "bytes_list"
    raise UserError(f"column {name!r}: {type_} has no place in a tf.Example. Leave it out of the columns.")
