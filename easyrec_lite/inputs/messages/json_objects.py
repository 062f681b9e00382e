"""Messages of JSON: an object, or several, as an array or one after the other on lines of their own.

Arrow's parser reads many messages at once, one row an object. What it can't read is read again by Python's `json`,
alone. Whatever Arrow takes, Python reads alike, so that a row doesn't depend on its neighbours.

How rows find back to their messages: each message that goes to Arrow begins with `{` and ends with `}`, and a line feed
parts it from the next. Strings can't hold a line feed, and `}` followed by `{` is JSON only between two whole objects.
So if Arrow takes them all, each message is a sequence of whole objects; and if these are as many together as there are
places where one could end and the next begin, then each message has just as many as it has such places.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.json as pa_json

from easyrec_lite.inputs.cells import is_utf8
from easyrec_lite.inputs.convert import EXACT_FLOATS
from easyrec_lite.inputs.messages.decoder import Cut, Decoder, Part
from easyrec_lite.inputs.rows import RawColumn
from easyrec_lite.inputs.schema import ColumnSpec, Kind

_BLANKS = b" \t\r\n"
_BETWEEN_LINES = re.compile(rb"(?<=\})[ \t\r]*\n[ \t\r\n]*(?=\{)")
_BETWEEN_ITEMS = re.compile(rb"(?<=\})[ \t\r\n]*,[ \t\r\n]*(?=\{)")
_NOT_PYTHON = (b"Inf", b"-NaN")  # what Arrow takes for numbers and Python doesn't, but for Infinity
_FAILED_ROW = re.compile(r"in row (\d+)$")
_SAMPLE = 8  # messages that show how a column is written: as numbers, text or booleans
_LONGEST = 4000  # digits of an int; Python's limit, by default, is 4300
_ARROW_TYPES = {float: pa.float64(), str: pa.string(), bool: pa.bool_()}
_NAMES = {list: "an array", dict: "an object", str: "a string", bool: "a boolean", type(None): "null"}


class JsonDecoder(Decoder):
    """Reads JSON objects, a row each.

    A missing key is a missing cell, as null is; other keys than those of the columns don't matter. Numbers may be given
    as text, and booleans for numbers. Whole numbers are exact to 64 bits. A row is unusable if a wanted column holds an
    object, a list where none is declared, something else where one is, or if its key is given twice.
    """

    chunk = 1024

    def _cut(self, values: Sequence[bytes | None]) -> Cut:
        cut = Cut()
        texts = _texts(values)
        apart = set(range(len(values))).difference(texts.numbers.tolist())
        if len(texts):
            part, odd = self._read_together(texts)
            apart.update(odd)
            if part is not None:
                cut.parts.append(part)
        self._read_apart(values, sorted(apart), cut)
        return cut

    def _read_together(self, texts: _Texts) -> tuple[Part | None, list[int]]:
        """The rows of all messages that Arrow takes, and the numbers of those that it doesn't."""
        schema = self._written_as(texts.texts[:_SAMPLE])
        good = np.ones(len(texts), bool)
        start, table = 0, None
        while start < len(texts) and table is None:
            try:
                table = texts[start:].parse(schema)
            except _ParseError as error:
                if error.text is None or 8 * np.count_nonzero(~good) > len(texts):
                    good[start:] = False
                    break
                good[start + error.text] = False
                start += error.text + 1
        if not good.all() and good.any():
            try:
                table = texts.only(good).parse(schema)
            except _ParseError:
                good[:] = False
        odd = texts.numbers[~good].tolist()
        if not good.any():
            return None, odd
        part, strange = self._part(texts.only(good), table)
        return part, odd + strange

    def _part(self, texts: _Texts, table: pa.Table) -> tuple[Part, list[int]]:
        """The rows as Arrow read them, less the messages with whole numbers that it couldn't read exactly."""
        message = np.repeat(texts.numbers, texts.objects)
        row = np.arange(len(message)) - np.repeat(np.cumsum(texts.objects) - texts.objects, texts.objects)
        columns: dict[str, pa.Array] = {}
        inexact = np.zeros(len(message), bool)
        for name, column in zip(table.column_names, table.combine_chunks().columns, strict=True):
            columns[name] = column.chunk(0)
            if self.specs[name].kind is not Kind.FLOAT:
                columns[name], wrong = _whole(columns[name])
                inexact |= wrong
        if not inexact.any():
            return Part(columns, message, row), []
        keep = ~np.isin(message, message[inexact])
        columns = {name: column.filter(pa.array(keep)) for name, column in columns.items()}
        return Part(columns, message[keep], row[keep]), np.unique(message[inexact]).tolist()

    def _written_as(self, texts: Sequence[bytes]) -> pa.Schema:
        """The types to ask Arrow for: it takes a column only if it is written in one way."""
        sample: list[dict[str, object]] = []
        for text in texts:
            try:
                found = _load(_BETWEEN_LINES.split(text, 1)[0])
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                sample.append(found)
        return pa.schema([_field(spec, [row.get(name) for row in sample]) for name, spec in self.specs.items()])

    def _read_apart(self, values: Sequence[bytes | None], numbers: Sequence[int], cut: Cut) -> None:
        """Reads messages one by one."""
        rows: list[dict[str, object]] = []
        message: list[int] = []
        index: list[int] = []
        for number in numbers:
            try:
                found = _objects(values[number])
            except _UnreadableError as error:
                cut.spoil(number, str(error))
                continue
            for row, item in enumerate(found):
                twice = [name for name in self.specs if isinstance(item, _Repeating) and name in item.repeated]
                if isinstance(item, str):
                    cut.spoil(number, item, row)
                elif twice:
                    cut.spoil(number, "is given more than once", row, twice[0])
                else:
                    rows.append(item)
                    message.append(number)
                    index.append(row)
        if rows:
            columns: dict[str, RawColumn] = {
                name: [_as_together(row.get(name), spec.kind) for row in rows] for name, spec in self.specs.items()
            }
            cut.parts.append(Part(columns, np.array(message, np.int64), np.array(index, np.int64)))


@dataclass(frozen=True, slots=True)
class _Texts:
    """Messages for Arrow.

    Attributes:
        texts: Their objects, without the brackets of a list and the commas between them.
        numbers: int64 `[N]`: which messages they are.
        objects: int64 `[N]`: how many objects each should hold.
    """

    texts: Sequence[bytes]
    numbers: np.ndarray
    objects: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, part: slice) -> _Texts:
        return _Texts(self.texts[part], self.numbers[part], self.objects[part])

    def only(self, which: np.ndarray) -> _Texts:
        """Those of a mask."""
        return _Texts(list(itertools.compress(self.texts, which)), self.numbers[which], self.objects[which])

    def parse(self, schema: pa.Schema) -> pa.Table:
        """Their rows, as many as there should be; raises _ParseError."""
        data = b"\n".join(self.texts)
        try:
            table = pa_json.read_json(
                pa.BufferReader(data),
                pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
                pa_json.ParseOptions(
                    explicit_schema=schema, unexpected_field_behavior="ignore", newlines_in_values=True
                ),
            )
        except pa.ArrowInvalid as error:
            failed = _FAILED_ROW.search(str(error))
            ends = np.cumsum(self.objects)
            at = int(np.searchsorted(ends, int(failed[1]), side="right")) if failed else len(self)
            raise _ParseError(at if at < len(self) else None) from None
        if len(table) != self.objects.sum():
            raise _ParseError(None)
        return table


class _UnreadableError(Exception):
    pass


class _ParseError(Exception):
    """Arrow can't read messages; `text` is the index of the first one at fault, if that is known."""

    def __init__(self, text: int | None) -> None:
        super().__init__(text)
        self.text = text


class _Repeating(dict[str, object]):
    """An object that gives some keys more than once."""

    repeated: frozenset[str] = frozenset()


class _Digits(str):
    """A whole number of so many digits that Python refuses to make an int of it."""


def _texts(values: Sequence[bytes | None]) -> _Texts:
    """The messages that may go to Arrow."""
    texts: list[bytes] = []
    numbers: list[int] = []
    objects = np.ones(len(values), np.int64)
    for number, value in enumerate(values):
        text = (value or b"").strip(_BLANKS)
        if text[:1] == b"[":
            text = text[1:-1].strip(_BLANKS) if text[-1:] == b"]" else b""
            text, joints = _BETWEEN_ITEMS.subn(b"\n", text)
            objects[number] += joints
        elif b"\n" in text:
            objects[number] += len(_BETWEEN_LINES.findall(text))
        if text[:1] == b"{" and text[-1:] == b"}":
            texts.append(text)
            numbers.append(number)
    found = _Texts(texts, np.array(numbers, np.int64), objects[numbers])
    together = b"\n".join(texts)
    if not is_utf8(together) or any(word in together for word in _NOT_PYTHON):
        found = found.only(np.array([_is_plain(text) for text in texts], bool))
    return found


def _is_plain(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return not any(word in text for word in _NOT_PYTHON)


def _field(spec: ColumnSpec, cells: Sequence[object]) -> pa.Field:
    if spec.ragged:
        cells = [value for cell in cells if isinstance(cell, list) for value in cell]
    types = Counter(float if type(cell) is int else type(cell) for cell in cells)
    usual = str if spec.kind is Kind.TEXT else float
    type_ = _ARROW_TYPES[max(_ARROW_TYPES, key=lambda type_: (types[type_], type_ is usual))]
    large = any(type(cell) is int and abs(cell) >= EXACT_FLOATS for cell in cells)
    if type_ == pa.float64() and spec.kind is not Kind.FLOAT and large:
        type_ = pa.int64()  # exact, but Arrow takes no message at all where one of them has another number
    return pa.field(spec.name, pa.list_(type_) if spec.ragged else type_)


def _whole(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """float64, or lists of it, as int64, and the rows where that isn't exact."""
    ragged = pa.types.is_list(column.type)
    values = column.flatten() if ragged else column
    wrong = np.zeros(len(column), bool)
    if not pa.types.is_floating(values.type):
        return column, wrong
    numbers = values.to_numpy(zero_copy_only=False)  # NaN where null
    exact = (np.abs(numbers) < EXACT_FLOATS) & (numbers == np.floor(numbers))
    whole = pa.array(np.where(exact, numbers, 0).astype(np.int64), mask=None if exact.all() else ~exact)
    inexact = ~exact & values.is_valid().to_numpy(zero_copy_only=False)
    if not ragged:
        return whole, inexact
    offsets = column.offsets.to_numpy()
    wrong[np.searchsorted(offsets, np.flatnonzero(inexact), side="right") - 1] = True
    nulls = column.is_null() if column.null_count else None
    return pa.ListArray.from_arrays(column.offsets, whole, mask=nulls), wrong


def _objects(value: bytes | None) -> list[dict[str, object] | str]:
    """The rows of one message; a text says what is wrong with that row. Raises _UnreadableError."""
    text = (value or b"").strip(_BLANKS)
    if not text:
        raise _UnreadableError("no value" if value is None else "an empty message")
    pieces = [text] if text.startswith(b"[") or b"\n" not in text else _BETWEEN_LINES.split(text)
    found: list[object] = []
    for piece in pieces:
        try:
            found.append(_load(piece))
        except UnicodeDecodeError:
            found.append(_UnreadableError("isn't UTF-8 text"))
        except json.JSONDecodeError as error:
            # Without its text, which may quote the message.
            found.append(_UnreadableError(f"isn't JSON, from character {error.pos} on"))
        except RecursionError:
            found.append(_UnreadableError("JSON nested too deeply"))
    if len(found) == 1 and isinstance(found[0], list):
        found = found[0]
        if not found:
            raise _UnreadableError("a list without rows")
    elif not any(isinstance(item, dict) for item in found):
        raise found[0] if isinstance(found[0], _UnreadableError) else _UnreadableError(_instead(found[0]))
    return [item if isinstance(item, dict) else _instead(item) for item in found]


def _as_together(cell: object, kind: Kind) -> object:
    """A cell as it would be, had Arrow read it."""
    if isinstance(cell, list):
        return [value if isinstance(value, list) else _as_together(value, kind) for value in cell]
    if type(cell) in (int, _Digits) and kind is Kind.FLOAT:
        return float(str(cell))  # infinite, where float(cell) would overflow
    if type(cell) is float and kind is not Kind.FLOAT and cell.is_integer() and abs(cell) < EXACT_FLOATS:
        return int(cell)
    return cell


def _instead(item: object) -> str:
    if isinstance(item, _UnreadableError):
        return str(item)
    return f"{_NAMES.get(type(item), 'a number')}, where an object should be"


def _load(text: bytes) -> object:
    return _READER.decode(text.decode())


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeating = _Repeating(found)
    repeating.repeated = frozenset(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
    return repeating


def _integer(text: str) -> int | float | _Digits:
    return -0.0 if text == "-0" else int(text) if len(text) < _LONGEST else _Digits(text)


_READER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)
