"""Messages that can't be read, of 15 kinds for each format.

None of them holds a row that could be trained on: where one row is wrong it is the only one. What is wrong inside a
row is always its label, so that it is wrong in every config.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from tools._kafka_formats import Format, length_prefixed, varint
from tools._kafka_rows import Message, milliseconds

HUGE_BYTES = 2**18
_GARBAGE_BYTES = 256


class Damager:
    """Makes damaged messages out of rows.

    Args:
        format: What the sound messages are made by.
        label: The column that is damaged, a number.
    """

    def __init__(self, format: Format, label: str):
        self._format = format
        self._label = label
        self._kinds: Mapping[str, Callable[[pa.Table, np.random.Generator], bytes | None]] = {
            "null": lambda row, random: None,
            "empty": lambda row, random: b"",
            "garbage": lambda row, random: _garbage(random),
            **getattr(self, f"_{format.name}_kinds")(),
        }

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the kinds, 15 in every format."""
        return tuple(self._kinds)

    def make(self, kind: str, row: pa.Table, random: np.random.Generator) -> bytes | None:
        """A damaged message of that kind; `row` is the row [1] that it could have been."""
        return self._kinds[kind](row, random)

    def _csv_kinds(self) -> dict:
        separator = self._format.separator
        other = "\t" if separator != "\t" else ","
        return {
            "truncated": lambda row, random: _first_half_of_cells(self._sound(row), separator.encode()),
            "too_few_columns": lambda row, random: self._sound(row.drop_columns([self._label])),
            "too_many_columns": lambda row, random: self._sound(row.append_column("surplus", [["1"]])),
            "wrong_separator": lambda row, random: Format("csv", separator=other).messages(row)[0],
            "not_utf8": lambda row, random: self._marked(row, b"\xff\xfe1"),
            "wrong_type": lambda row, random: self._marked(row, b"abc"),
            "overflow": lambda row, random: self._marked(row, b"9" * 40),
            "huge": lambda row, random: self._marked(row, b"9" * HUGE_BYTES),
            "label_nan": lambda row, random: self._marked(row, b"nan"),
            "open_quote": lambda row, random: self._marked(row, b'"1'),
            "header": lambda row, random: separator.join(row.column_names).encode(),
            "other_format": lambda row, random: Format("json").messages(row)[0],
        }

    def _json_kinds(self) -> dict:
        return {
            "truncated": lambda row, random: _first_half(self._sound(row)),
            "missing_bracket": lambda row, random: self._sound(row)[:-1],
            "trailing_comma": lambda row, random: self._sound(row)[:-1] + b"," + self._sound(row)[-1:],
            "single_quotes": lambda row, random: self._sound(row).replace(b'"', b"'"),
            "not_utf8": lambda row, random: self._marked(row, b'"\xff\xfe1"'),
            "wrong_type": lambda row, random: self._marked(row, b'"abc"'),
            "nested": lambda row, random: self._marked(row, b'{"value":1}'),
            "overflow": lambda row, random: self._marked(row, b"9" * 40),
            "huge": lambda row, random: self._marked(row, b"9" * HUGE_BYTES),
            "label_nan": lambda row, random: self._marked(row, b"NaN"),
            "label_missing": lambda row, random: self._sound(row.drop_columns([self._label])),
            "not_an_object": lambda row, random: json.dumps(self._label).encode(),
        }

    def _arrow_kinds(self) -> dict:
        return {
            "truncated": lambda row, random: self._sound(row)[:-64],
            "half_a_schema": lambda row, random: self._sound(row)[:100],
            "zeros": lambda row, random: bytes(len(self._sound(row))),
            # An IPC stream begins with ffffffff and the length of the schema.
            "wrong_length": lambda row, random: self._sound(row)[:4] + b"\xff\xff\xff\x7f" + self._sound(row)[8:],
            "wrong_type": lambda row, random: self._sound(self._with_label(row, pa.array(["abc"]))),
            "nested": lambda row, random: self._sound(self._with_label(row, pa.array([{"value": 1}]))),
            "too_many_values": lambda row, random: self._sound(self._with_label(row, pa.array([[0, 1]]))),
            "overflow": lambda row, random: self._sound(self._with_label(row, pa.array([1e300]))),
            "huge": lambda row, random: self._sound(self._with_label(row, pa.array(["9" * HUGE_BYTES]))),
            "label_nan": lambda row, random: self._sound(self._with_label(row, pa.array([float("nan")]))),
            "label_missing": lambda row, random: self._sound(row.drop_columns([self._label])),
            "other_format": lambda row, random: Format("json").messages(row)[0],
        }

    def _tfexample_kinds(self) -> dict:
        return {
            "truncated": lambda row, random: _first_half(self._sound(row)),
            "trailing_bytes": lambda row, random: self._framed(self._example(row) + b"\xff\xff\xff"),
            "wrong_length": lambda row, random: self._framed(_longer_than_it_is(self._example(row))),
            "no_features": lambda row, random: self._framed(b"\n\x00"),
            "wrong_type": lambda row, random: self._sound(self._with_label(row, pa.array(["abc"]))),
            "too_many_values": lambda row, random: self._sound(self._with_label(row, pa.array([[0, 1]]))),
            "label_empty": lambda row, random: self._sound(self._with_label(row, pa.array([[]], pa.list_(pa.int64())))),
            "label_nan": lambda row, random: self._sound(self._with_label(row, pa.array([float("nan")]))),
            "label_infinite": lambda row, random: self._sound(self._with_label(row, pa.array([float("inf")]))),
            "label_missing": lambda row, random: self._sound(row.drop_columns([self._label])),
            "huge": lambda row, random: self._sound(self._with_label(row, pa.array(["9" * HUGE_BYTES]))),
            "other_format": lambda row, random: Format("json").messages(row)[0],
        }

    def _sound(self, row: pa.Table) -> bytes:
        return self._format.messages(row)[0]

    def _marked(self, row: pa.Table, label: bytes) -> bytes:
        """The message in text with these bytes in place of the label's."""
        mark = "0f95dd1c6a2b4c33"
        text = self._sound(self._with_label(row, pa.array([mark])))
        return text.replace(b'"' + mark.encode() + b'"', label).replace(mark.encode(), label)

    def _with_label(self, row: pa.Table, label: pa.Array) -> pa.Table:
        return row.set_column(row.column_names.index(self._label), self._label, label)

    def _example(self, row: pa.Table) -> bytes:
        return Format("tfexample").messages(row)[0]

    def _framed(self, example: bytes) -> bytes:
        return example if self._format.rows_per_message == 1 else length_prefixed(example)


class Mixture:
    """Damaged messages to mix in among the messages of a replay: every kind as often, at random places.

    Args:
        damager: Makes them.
        columns: The columns of the sound messages, in order.
        count: How many there are to be.
        first_row: The number of the first row of the replay.
        rows: Its rows.
        shares: Of the partitions, in proportion.
        event_time: The column with the time of the event; None for none.
        seed: Of places, kinds and partitions.
    """

    def __init__(
        self,
        damager: Damager,
        columns: Sequence[str],
        count: int,
        first_row: int,
        rows: int,
        shares: Sequence[float],
        event_time: str | None,
        seed: int,
    ):
        random = np.random.default_rng((seed, 15))
        self._damager = damager
        self._columns = list(columns)
        self._event_time = event_time
        self._seed = seed
        self._row = first_row
        self._rows = (
            first_row + np.sort(random.choice(rows, count, replace=count > rows)) if count else np.array([], int)
        )
        kinds = damager.kinds
        self._kinds = random.permutation([kinds[at % len(kinds)] for at in range(count)])
        self._partitions = random.choice(len(shares), count, p=np.array(shares) / np.sum(shares))

    def add(self, chunk: pa.Table) -> list[Message]:
        """Takes the next rows [B] of the replay; the damaged messages that are to go before the end of these."""
        begin, end = np.searchsorted(self._rows, (self._row, self._row + len(chunk))).tolist()
        messages = []
        for at in range(begin, end):
            row = chunk.slice(int(self._rows[at]) - self._row, 1)
            kind = str(self._kinds[at])
            value = self._damager.make(kind, row.select(self._columns), np.random.default_rng((self._seed, at)))
            time = None if self._event_time is None else int(milliseconds(row, self._event_time)[0])
            key = b"null" if value is None else None  # Kafka takes no message with neither
            messages.append(Message(int(self._rows[at]), 0, int(self._partitions[at]), time, key, value, kind))
        self._row += len(chunk)
        return messages


def _garbage(random: np.random.Generator) -> bytes:
    """Random bytes on one line, no beginning of a message in any format."""
    return b"\xff" + random.bytes(_GARBAGE_BYTES).translate(bytes.maketrans(b"\r\n", b"\xff\xff"))


def _first_half(text: bytes) -> bytes:
    return text[: len(text) // 2]


def _first_half_of_cells(text: bytes, separator: bytes) -> bytes:
    cells = text.split(separator)
    return separator.join(cells[: len(cells) // 2])


def _longer_than_it_is(example: bytes) -> bytes:
    """An Example whose one field, the features, claims seven bytes more than there are."""
    begin = next(index for index in range(1, len(example)) if example[index] < 0x80) + 1
    features = example[begin:]
    return b"\n" + varint(len(features) + 7) + features
